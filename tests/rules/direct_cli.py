"""The command line wired straight to the administrators' door of a desk, without a network between them."""

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest
from click.testing import CliRunner, Result

from provisioner.doors import cli_desk
from provisioner.doors.cli import cli
from provisioner.doors.control_client import ControlClient
from tests.rules.admin_desk import ADMIN, BROKER, Desk, open_desk

T = TypeVar("T")
TIMEOUT_S = 20
SETTINGS = f"account_brokers: [{{name: {BROKER}}}]\n"


class DirectCli:
    """``run`` is one command. sent: the verbs that reached the door, with their parameters."""

    def __init__(self, desk: Desk, loop: asyncio.AbstractEventLoop, folder: Path) -> None:
        self.desk, self.folder, self._loop = desk, folder, loop
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the desk's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT_S)

    def run(self, *arguments: str, status: int = 0, stdin: str | None = None, **environment: str | None) -> Result:
        """One command that must end with that status."""
        result = CliRunner(env=environment).invoke(cli, arguments, input=stdin, prog_name="fleetgate")
        unforeseen = result.exception if not isinstance(result.exception, SystemExit) else None
        assert result.exit_code == status, (result.exit_code, result.output, unforeseen)
        return result

    def json(self, *arguments: str, **options: Any) -> Any:
        return json.loads(self.run(*arguments, **options).stdout)

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text, encoding="utf-8", newline="")
        return str(path)


class DirectClient(ControlClient):
    """A ControlClient whose questions do not travel."""

    def __init__(self, bench: DirectCli) -> None:
        self._bench = bench
        self._host, self._port, self._timeout_s, self._packet_bytes_max = "desk", 0, 10.0, 60_000

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def _exchange(self, id: str, payload: bytes, within_s: float) -> Any:
        question = json.loads(payload)
        self._bench.sent.append((question["verb"], question["params"]))
        return json.loads(self._bench.wait(self._bench.desk.control.answer(ADMIN, payload)))


@contextmanager
def direct_cli(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DirectCli]:
    """In the folder of an installation, with the account acme."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stack = AsyncExitStack()
    try:
        opening = stack.enter_async_context(open_desk(folder))
        desk = asyncio.run_coroutine_threadsafe(opening, loop).result(TIMEOUT_S)
        bench = DirectCli(desk, loop, folder)
        bench.write("fleetgate.yaml", SETTINGS)
        monkeypatch.chdir(folder)
        monkeypatch.delenv("FLEETGATE_CONFIG", raising=False)
        monkeypatch.delenv("FLEETGATE_PASSWORD", raising=False)
        monkeypatch.setattr(cli_desk, "connect", lambda config: DirectClient(bench))
        bench.wait(desk.account())
        yield bench
        bench.wait(stack.aclose())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
