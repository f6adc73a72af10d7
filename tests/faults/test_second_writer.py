"""F-43: two writers on one store: the second is refused, or goes through the first; nothing is torn."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.installation import CLI, ROOT, START_S_MAX, Installation, run_cli

UNAVAILABLE = 8
WRITERS = 4
REQUESTS_EACH = 6
OPEN_STORE = """
import asyncio, sys
from pathlib import Path
from provisioner.model.errors import Unavailable
from provisioner.store.tinydb_store import TinyDbStore
try:
    asyncio.run(TinyDbStore.open(Path(sys.argv[1])))
except Unavailable as error:
    sys.exit(str(error))
"""


@pytest.fixture
def installation(make_installation: Callable[..., Installation]) -> Iterator[Installation]:
    made = make_installation()
    with made.running():
        made.account()
        yield made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def serve(config: Path) -> "subprocess.CompletedProcess[str]":
    command = [*CLI, "serve", "-c", str(config)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_f_43_a_second_service_is_refused(installation: Installation) -> None:
    """F-43: it ends with status 8 and names the holder; it has touched nothing, and the first one goes on."""
    assert installation.process is not None
    before = contents(installation.folder / "data")
    second = serve(installation.config)
    assert second.returncode == UNAVAILABLE, second.stderr
    assert f"in use by process {installation.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    assert contents(installation.folder / "data") == before
    installation.legitimate_device_provisions("still-here")
    assert installation.ask("fsck") == {"findings": []}


def test_f_43_a_second_settings_file_for_the_same_store_is_refused(installation: Installation) -> None:
    """F-43: the lock belongs to the store, not to the settings or the ports: through a link it is the same store."""
    other = installation.folder.parent / "other"
    shutil.copytree(installation.folder, other, ignore=shutil.ignore_patterns("data", "serve.log"))
    (other / "data").symlink_to(installation.folder / "data")
    second = serve(other / "fleetgate.yaml")
    assert second.returncode == UNAVAILABLE, second.stderr
    assert "is in use by process" in second.stderr


def test_f_43_another_program_cannot_open_the_store(installation: Installation) -> None:
    """F-43: whoever opens the files by our own code is told to go through the service."""
    command = [sys.executable, "-c", OPEN_STORE, str(installation.folder / "data")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "administer it through the running service" in done.stderr


def test_f_43_command_lines_write_through_the_service(installation: Installation) -> None:
    """F-43: command lines at the same time as devices that provision: everything is there once, the store is sound."""

    def create(writer: int) -> None:
        for number in range(REQUESTS_EACH):
            client_id = f"cli-{writer}-{number}"
            names = ("--account", "acme", "--client-id", client_id, "--username", f"user-{client_id}")
            run_cli("request", "create", *names, "-c", str(installation.config))

    def provision(writer: int) -> None:
        for number in range(REQUESTS_EACH):
            installation.provision(installation.request(f"dev-{writer}-{number}"))

    with ThreadPoolExecutor(2 * WRITERS) as pool:
        done = [pool.submit(work, writer) for writer in range(WRITERS) for work in (create, provision)]
        for each in done:
            each.result()
    expected = {
        f"{kind}-{writer}-{n}" for kind in ("cli", "dev") for writer in range(WRITERS) for n in range(REQUESTS_EACH)
    }
    made = [request["client_id"] for request in installation.listed("request.page", account="acme")]
    assert sorted(made) == sorted(expected)
    assert installation.ask("fsck") == {"findings": []}
    installation.kill()
    installation.start()
    assert len(installation.listed("request.page", account="acme")) == len(expected)
    assert installation.ask("fsck") == {"findings": []}


def test_f_43_two_that_start_at_once(make_installation: Callable[..., Installation]) -> None:
    """F-43: of services that are started at the same moment one runs; the lock of a killed one is no obstacle."""
    installation = make_installation()
    for _ in range(3):
        contenders = [
            subprocess.Popen([*CLI, "serve", "-c", str(installation.config)], cwd=ROOT, stderr=subprocess.PIPE)
            for _ in range(3)
        ]
        try:
            codes = _first_to_end(contenders, 2)
            assert codes == [UNAVAILABLE] * 2
            (winner,) = [each for each in contenders if each.poll() is None]
            os.kill(winner.pid, signal.SIGKILL)
            assert winner.wait(5) == -signal.SIGKILL
        finally:
            for each in contenders:
                each.kill()
                each.communicate()
    with installation.running():
        installation.account()
        installation.legitimate_device_provisions("after-all")


def _first_to_end(contenders: list["subprocess.Popen[bytes]"], count: int) -> list[int]:
    """The statuses of those that ended by themselves, once they are that many."""
    until_s = time.monotonic() + START_S_MAX * len(contenders)
    while len(codes := [each.returncode for each in contenders if each.poll() is not None]) < count:
        assert time.monotonic() < until_s, "too many go on"
        time.sleep(0.02)
    return codes
