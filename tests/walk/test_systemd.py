"""The unit of systemd, and what the service tells systemd of itself."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioner.config import GateSettings
from provisioner.doors import systemd
from tests.support.installation import ROOT, Installation

UNIT = ROOT / "deploy/fleetgate.service"
EXPOSURE_MAX = 2.0
SIGNS_MAX = 15  # more than the channel holds of those that came before


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[socket.socket]:
    """Where systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(8.0)
        yield made


def test_the_service_says_that_it_is_ready_and_goes_on_saying_that_it_lives(
    make_installation: Callable[..., Installation], channel: socket.socket
) -> None:
    """READY once its doors are open, then a sign of life about every second."""
    installation = make_installation()
    with installation.running(NOTIFY_SOCKET=channel.getsockname()):
        assert channel.recv(100) == b"READY=1"
        since_s = time.monotonic()
        assert [channel.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        assert time.monotonic() - since_s < 6.0
        installation.account()
        installation.provision(installation.request("gw1"))


def test_a_service_that_stands_still_is_not_said_to_live(
    make_installation: Callable[..., Installation], channel: socket.socket
) -> None:
    """While the process does not run there is no sign of life, so that the watchdog ends it."""
    installation = make_installation()
    with installation.running(NOTIFY_SOCKET=channel.getsockname()):
        assert channel.recv(100) == b"READY=1"
        assert installation.process is not None
        installation.process.send_signal(signal.SIGSTOP)
        try:
            channel.settimeout(2.0)
            with pytest.raises(TimeoutError):
                for _ in range(SIGNS_MAX):
                    channel.recv(100)
        finally:
            installation.process.send_signal(signal.SIGCONT)
        channel.settimeout(8.0)
        assert channel.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", [None, "", "/nowhere/at/all"])
def test_nobody_to_tell_is_no_fault(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    """Without systemd, and where its socket is gone, nothing happens."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    systemd.notify(systemd.READY)


def test_an_abstract_address_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """sd_notify(3): an address that begins with @ stands for one in the abstract namespace."""
    name = f"fleetgate-{os.getpid()}-{threading.get_ident()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind("\0" + name)
        made.settimeout(8.0)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        systemd.notify(systemd.ALIVE)
        assert made.recv(100) == b"WATCHDOG=1"


def _settings() -> dict[str, str]:
    lines = (line.partition("=") for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#"))
    return {name: value for name, _, value in lines}


def test_the_unit_gives_the_service_what_it_counts_on() -> None:
    """It waits for READY, watches, leaves time for the drain, reloads by SIGHUP and starts our program."""
    unit = _settings()
    assert (unit["Type"], unit["NotifyAccess"], unit["Restart"]) == ("notify", "main", "always")
    assert int(unit["WatchdogSec"]) >= 10
    assert int(unit["TimeoutStopSec"]) > GateSettings().drain_s + 5
    assert "-HUP $MAINPID" in unit["ExecReload"]
    assert unit["ExecStart"].split()[:2] == ["/opt/fleetgate/bin/fleetgate", "serve"]
    assert int(unit["LimitNOFILE"]) >= 20_000
    assert int(unit["LimitCORE"]) == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_the_unit_is_understood_and_hardened() -> None:
    """systemd knows every line of it, and finds little that a service in there could do to the host."""
    told = subprocess.run(["systemd-analyze", "verify", UNIT], capture_output=True, text=True, timeout=30).stderr
    ours = [line for line in told.splitlines() if "fleetgate.service" in line]
    assert [line for line in ours if "is not executable" not in line] == []
    shown = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", UNIT], capture_output=True, text=True, timeout=30
    ).stdout
    exposure = shown.strip().splitlines()[-1].split(":")[1].split()[0]
    assert float(exposure) <= EXPOSURE_MAX
