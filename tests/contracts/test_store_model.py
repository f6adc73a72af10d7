"""The default store against a trivial model: committed, refused, closed, copied or cut short, both agree."""

import shutil
import tempfile
import threading
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import rule

from provisioner.model.ports import Unit
from provisioner.store.disk import Disk
from provisioner.store.tinydb_store import TinyDbStore
from tests.contracts.store_machine import Refused, StoreMachine, thorough


class PhotographedDisk(Disk):
    """A disk that can be copied between two of its operations, as a crash would leave it."""

    def __init__(self) -> None:
        self.still = threading.RLock()

    def write(self, fd: int, data: bytes) -> None:
        with self.still:
            super().write(fd, data)

    def fsync(self, fd: int) -> None:
        with self.still:
            super().fsync(fd)

    def truncate(self, fd: int, length: int) -> None:
        with self.still:
            super().truncate(fd, length)

    def replace(self, source: Path, target: Path) -> None:
        with self.still:
            super().replace(source, target)


class TinyDbMachine(StoreMachine):
    requests_max = 5

    def prepare(self) -> None:
        self.home = Path(tempfile.mkdtemp())
        self.lives = 0
        self.disk = PhotographedDisk()

    async def open(self) -> TinyDbStore:
        return await TinyDbStore.open(
            self.home / str(self.lives),
            requests_max=self.requests_max,
            audit_rows_max=4,
            journal_bytes_max=1500,
            disk=self.disk,
        )

    def verdicts(self, units: list[Unit]) -> list[Refused | int]:
        """In order; one refused beside others is judged again after them."""
        expected: list[Refused | int | None] = []
        others_on_the_way = False
        for unit in units:
            verdict = self.model.commit(unit)
            refused = not isinstance(verdict, int)
            expected.append(None if refused and others_on_the_way else verdict)
            others_on_the_way = others_on_the_way or not refused
        return [
            self.model.commit(unit) if verdict is None else verdict
            for unit, verdict in zip(units, expected, strict=True)
        ]

    @rule(torn=st.binary(max_size=40))
    def crash(self, torn: bytes) -> None:
        """The files as they are at any moment, torn lines at their ends, hold all that was committed."""
        crashed, self.lives = self.home / str(self.lives), self.lives + 1
        with self.disk.still:
            shutil.copytree(crashed, self.home / str(self.lives))
        for name in ("store.log", "audit-archive.jsonl"):
            with (self.home / str(self.lives) / name).open("ab") as file:
                file.write(torn)
        self.run(self.store.close())
        self.store = self.run(self.open())

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.home)


TestTinyDbAgainstModel = thorough(TinyDbMachine)
