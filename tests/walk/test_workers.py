"""Workers: a parent keeps several processes running, and none outlives it (D12)."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from provisioner.config import Settings
from tests.support.installation import ROOT

DEADLINE_S = 15.0

# The parent of three workers that note their number, and each SIGHUP, in a file; one is told to fail for ever.
PARENT = """
import asyncio, sys
from provisioner.workers import Workers
def command(number):
    return [sys.executable, "-c", open(sys.argv[1]).read(), str(number), sys.argv[2]]
raise SystemExit(asyncio.run(Workers(command, 3, float(sys.argv[3])).run()))
"""
WORKER = """
import os, pathlib, signal, sys
folder = pathlib.Path(sys.argv[2])
def note(what):
    (folder / f"{what}-{sys.argv[1]}-{os.getpid()}").touch()
signal.signal(signal.SIGHUP, lambda *_: note("hup"))
signal.signal(signal.SIGTERM, signal.SIG_IGN if (folder / "deaf").exists() else lambda *_: (note("term"), sys.exit(0)))
if (folder / "hopeless").exists() and sys.argv[1] == "2":
    sys.exit(6)
note("up")
while os.read(0, 1):
    pass
note("orphan")
"""


# The same of one worker, whose program is there only after it could not be started.
EARLY_PARENT = """
import asyncio, os, sys
from provisioner import workers
workers.PAUSE_S = 0.05
program = sys.argv[1]
def command(number):
    if not os.path.lexists(program):
        asyncio.get_running_loop().call_later(0.02, os.symlink, sys.executable, program)
    return [program, "-c", "raise SystemExit(6)"]
raise SystemExit(asyncio.run(workers.Workers(command, 1, 1.0).run()))
"""

# The parent of two workers that live until it is gone. systemd hears it ten times as often.
WATCHED_PARENT = """
import asyncio, sys
from provisioner import workers
workers.TICK_S, workers.SILENT_S, workers.PAUSE_S = 0.1, 1.0, 0.05
def command(number):
    return [sys.executable, "-c", open(sys.argv[1]).read(), str(number), sys.argv[2]]
raise SystemExit(asyncio.run(workers.Workers(command, 2, 5.0).run()))
"""
WATCHED_WORKER = """
import os, pathlib, select, sys
from provisioner import workers
assert "NOTIFY_SOCKET" not in os.environ
(pathlib.Path(sys.argv[2]) / f"up-{sys.argv[1]}-{os.getpid()}").touch()
while not select.select([0], [], [], 0.1)[0]:
    workers.live(0)
"""


class Family:
    """The parent and what its workers have noted."""

    def __init__(
        self, folder: Path, stop_s: float = 5.0, *, parent: str = PARENT, program: str = WORKER, **environment: str
    ) -> None:
        self.folder = folder
        worker = folder / "worker.py"
        worker.write_text(program)
        command = [sys.executable, "-c", parent, worker, folder, str(stop_s)]
        self.process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment})

    def noted(self, what: str) -> dict[int, str]:
        """Process id -> number of the worker."""
        names = (path.name.split("-") for path in self.folder.glob(f"{what}-*"))
        return {int(pid): number for _, number, pid in names}

    def until(self, what: str, count: int) -> dict[int, str]:
        until_s = time.monotonic() + DEADLINE_S
        while len(noted := self.noted(what)) < count:
            assert time.monotonic() < until_s, f"{what}: {noted}"
            time.sleep(0.02)
        return noted

    def living(self) -> set[int]:
        return {pid for pid in self.noted("up") if psutil.pid_exists(pid)}


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    running = Family(tmp_path)
    yield running
    for pid in running.living():
        os.kill(pid, signal.SIGKILL)
    if running.process.poll() is None:
        running.process.kill()
    running.process.wait()


def test_f_27_a_worker_that_dies_is_started_again(family: Family) -> None:
    """A killed worker is replaced in its place, and the others never notice."""
    before = family.until("up", 3)
    victim = next(pid for pid, number in before.items() if number == "2")
    os.kill(victim, signal.SIGKILL)
    after = family.until("up", 4)
    assert [number for pid, number in after.items() if pid not in before] == ["2"]
    assert family.living() == set(after) - {victim}


def test_d12_signals_reach_every_worker(family: Family) -> None:
    """SIGHUP to the parent is SIGHUP to all; SIGTERM lets each end by itself, and the status is 0."""
    workers = family.until("up", 3)
    family.process.send_signal(signal.SIGHUP)
    assert family.until("hup", 3).keys() == workers.keys()
    family.process.terminate()
    assert family.process.wait(DEADLINE_S) == 0
    assert family.noted("term").keys() == workers.keys()
    assert family.living() == set()


def test_f_27_no_worker_outlives_a_killed_parent(family: Family) -> None:
    """Each notices that the parent is gone, whatever way it went, and ends."""
    workers = family.until("up", 3)
    family.process.kill()
    family.process.wait()
    assert family.until("orphan", 3).keys() == workers.keys()


def test_d12_settings_that_are_wrong_end_the_parent(tmp_path: Path) -> None:
    """A worker that says that its settings are wrong is not started for ever: all end, with its status."""
    (tmp_path / "hopeless").touch()
    family = Family(tmp_path)
    assert family.process.wait(DEADLINE_S) == 6
    assert family.living() == set()


def test_d12_a_worker_that_does_not_end_is_killed(tmp_path: Path) -> None:
    """After the time for the drain the parent waits for nobody."""
    (tmp_path / "deaf").touch()
    family = Family(tmp_path, stop_s=-4.5)
    family.until("up", 3)
    family.process.terminate()
    assert family.process.wait(DEADLINE_S) == 0
    assert family.living() == set()


CALLBACK = {"name": "rabbit", "kind": "http-callback", "product": "rabbitmq", "port": 1883}


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({}, "gate.workers: more than one needs store.kind postgresql; tinydb has one user"),
        ({"store": {"kind": "sqlite"}}, "gate.workers: more than one needs store.kind postgresql; sqlite has one user"),
    ],
)
def test_d12_workers_need_what_processes_can_share(changes: dict[str, Any], rule: str) -> None:
    """Several workers on a store of one process are refused with the field and the rule."""
    with pytest.raises(ValueError, match=rule):
        Settings.model_validate({"gate": {"workers": 2}, "account_brokers": [CALLBACK], **changes})


def test_f_27_a_worker_that_cannot_begin_is_tried_again(tmp_path: Path) -> None:
    """For want of memory or of processes: its place is not given up, and the log says why it is empty."""
    ended = subprocess.run(
        [sys.executable, "-c", EARLY_PARENT, tmp_path / "program"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert ended.returncode == 6, ended.stderr
    assert "worker 1 cannot begin: No such file or directory" in ended.stderr


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[socket.socket]:
    """Where systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(DEADLINE_S)
        yield made


@pytest.fixture
def watched(tmp_path: Path, channel: socket.socket) -> Iterator[Family]:
    family = Family(tmp_path, parent=WATCHED_PARENT, program=WATCHED_WORKER, NOTIFY_SOCKET=channel.getsockname())
    try:
        family.until("up", 2)
        assert channel.recv(100) == b"READY=1"
        yield family
    finally:
        family.process.kill()
        family.process.wait()


def _falls_silent(channel: socket.socket, within_s: float) -> bool:
    """Whether there is a pause longer than a worker may be silent."""
    until_s = time.monotonic() + within_s
    channel.settimeout(1.5)
    try:
        while time.monotonic() < until_s:
            assert channel.recv(100) == b"WATCHDOG=1"
    except TimeoutError:
        return True
    finally:
        channel.settimeout(DEADLINE_S)
    return False


def test_d12_a_worker_that_stands_still_is_not_hidden_by_the_others(watched: Family, channel: socket.socket) -> None:
    """The parent speaks for all: while one of them is silent, so is it, and systemd ends what does not go on."""
    victim = min(watched.living())
    assert [channel.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    os.kill(victim, signal.SIGSTOP)
    try:
        assert _falls_silent(channel, DEADLINE_S)
    finally:
        os.kill(victim, signal.SIGCONT)
    assert channel.recv(100) == b"WATCHDOG=1"


def test_f_27_a_worker_that_is_started_again_silences_nobody(watched: Family, channel: socket.socket) -> None:
    """Its death costs its connections alone, also where systemd watches."""
    os.kill(min(watched.living()), signal.SIGKILL)
    watched.until("up", 3)
    assert not _falls_silent(channel, 3.0)
