"""The commands of README.md do what README.md says, from an empty folder, with the stock MQTT clients."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PORTS = ("8883", "8884", "8885", "9464")
START_S_MAX = 60.0
WALK_S_MAX = 60.0
CONFIRM_S_MAX = 10.0
# Stops at the first command that fails, as a reader would.
SHELL = ("bash", "-euo", "pipefail", "-c")


class Reader:
    """Somebody in an empty folder who types the blocks of one kind. Ports are free ones instead of the usual."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        commands = folder / "bin"
        commands.mkdir()
        program = commands / "fleetgate"
        command = f"exec {shlex.quote(sys.executable)} -m provisioner.doors.cli"
        program.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} {command} "$@"\n')
        program.chmod(0o755)
        self._environment = {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "LANG": "C.UTF-8",
        }

    def blocks(self, kind: str) -> str:
        found = re.findall(rf"^```sh {kind}\n(.*?)^```$", README, re.M | re.S)
        assert found, f"README.md has no block of the kind {kind}"
        return re.sub("|".join(PORTS), lambda port: self._ports[port[0]], "\n".join(found))

    def types(self, commands: str) -> str:
        done = subprocess.run(
            [*SHELL, commands],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=WALK_S_MAX,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator[None]:
        """The first terminal: it says ready, and is left running for the second one."""
        log = self.folder / "serve.log"
        with log.open("wb") as output:
            terminal = subprocess.Popen(
                [*SHELL, self.blocks("serve")],
                cwd=self.folder,
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            until_s = time.monotonic() + START_S_MAX
            while "ready" not in log.read_text().splitlines():
                assert terminal.poll() is None, log.read_text()
                assert time.monotonic() < until_s, log.read_text()
                time.sleep(0.05)
            yield
        finally:
            os.killpg(terminal.pid, signal.SIGTERM)
            terminal.wait(START_S_MAX)

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Has typed everything."""
    reader = Reader(tmp_path_factory.mktemp("reader"))
    with reader.serving():
        reader.types(reader.blocks("walk"))
        yield reader


@pytest.mark.parametrize(("answer", "client_id"), [("answer.json", "press17"), ("answer18.json", "press18")])
def test_device_is_handed_its_new_life(reader: Reader, answer: str, client_id: str) -> None:
    """In MQTT 3.1.1 and in 5 the stock client is provisioned (EC-42)."""
    given = reader.read(answer)
    assert given["status"] == "provisioned"
    assert given["account"] == "acme"
    assert given["client_id"] == client_id


def test_both_devices_are_confirmed(reader: Reader) -> None:
    """Each was seen on the broker of its account, by the stock clients (EC-36)."""
    listing = "fleetgate request list -c plant/fleetgate.yaml -o json"
    until_s = time.monotonic() + CONFIRM_S_MAX
    while True:
        states = {each["client_id"]: each["state"] for each in json.loads(reader.types(listing))}
        if set(states.values()) == {"confirmed"}:
            break
        assert time.monotonic() < until_s, states
        time.sleep(0.1)
    assert set(states) == {"press17", "press18"}


def test_no_password_was_on_a_command_line(reader: Reader) -> None:
    """What README.md has people type carries no secret in an argument of a command (F-39)."""
    walk = reader.blocks("walk")
    outside_of_files = re.sub(r"<<END\n.*?^END$", "", walk, flags=re.M | re.S)
    assert "-P " in walk
    assert not re.search(r"(?<!\S)(-P|--password)(?!\S)", outside_of_files)


def test_pages_that_it_links_exist() -> None:
    """Every link of README.md leads to a file of the repository."""
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
