"""F-44: stores as former programs left them are opened by this one, with all that is in them."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from provisioner.model.epoch import Epoch
from provisioner.model.errors import Unavailable
from provisioner.model.ports import Store
from provisioner.services import copying
from provisioner.services.copying import Place
from provisioner.store.backup_file import Backup
from provisioner.store.disk import Disk
from provisioner.store.schema import SCHEMA, Schema
from provisioner.store.sql.sqlite_store import SqliteStore
from provisioner.store.tinydb_store import TinyDbStore
from provisioner.store.whole import Summary, parts, tallied
from tests.contracts.golden_stores import NOON, fill_all, folder_of
from tests.contracts.store_stage import in_loop
from tests.contracts.store_values import walk_unit

RELEASED = tuple(range(1, SCHEMA.version + 1))
ROWS = 14  # of the audit log


async def tally(store: Store) -> dict[str, Summary]:
    async with store.moment() as moment:
        return dict(await tallied(parts(store, moment)))


async def expected(folder: Path, schema: int) -> dict[str, Summary]:
    """What this program makes of the same commits, of the kinds that there were in that schema."""
    store = await TinyDbStore.open(folder / "expected")
    await fill_all(store)
    found = await tally(store)
    await store.close()
    assert found["audit"].count == ROWS
    kinds = (await Backup.open(folder_of(schema) / "backup.txt")).summaries
    return {kind: found[kind] for kind in kinds}


async def check(store: Store, folder: Path, schema: int) -> None:
    """Everything is there, and the store goes on behind it."""
    assert await tally(store) == await expected(folder, schema)
    assert await store.get(Epoch, "store") == Epoch(number=2, began_at=NOON, version=1)
    assert await store.commit(walk_unit(5_000)) == ROWS + 2
    await store.close()


@pytest.mark.parametrize("schema", RELEASED)
@in_loop
async def test_f_44_a_tinydb_store_of_a_former_program(tmp_path: Path, schema: int) -> None:
    """F-44: snapshot, journal and archive together, as a kill left them."""
    shutil.copytree(folder_of(schema) / "tinydb", tmp_path / "store")
    await check(await TinyDbStore.open(tmp_path / "store"), tmp_path, schema)


@pytest.mark.parametrize("schema", RELEASED)
@in_loop
async def test_f_44_a_sqlite_store_of_a_former_program(tmp_path: Path, schema: int) -> None:
    """F-44: the tables and indexes of that time, which are those of PostgreSQL as well."""
    connection = sqlite3.connect(tmp_path / "store.db")
    connection.executescript((folder_of(schema) / "sqlite.sql").read_text())
    connection.close()
    await check(await SqliteStore.open(tmp_path / "store.db"), tmp_path, schema)


@pytest.mark.parametrize("schema", RELEASED)
@in_loop
async def test_f_44_a_backup_of_a_former_program(tmp_path: Path, schema: int) -> None:
    """F-44, F-40: a backup is worth keeping for years."""
    store = await TinyDbStore.open(tmp_path / "store")
    backup = await Backup.open(folder_of(schema) / "backup.txt")
    done = await copying.restore(backup, Place(store=store, name="t"), NOON)
    assert dict(done.summaries) == await expected(tmp_path, schema)
    assert done.epoch == 3
    await store.close()


class DyingDisk(Disk):
    """A disk that is gone from one operation on."""

    def __init__(self, calls: int) -> None:
        self.calls_left = calls

    def _call(self) -> None:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise OSError(5, "Input/output error")

    def write(self, fd: int, data: bytes) -> None:
        self._call()
        super().write(fd, data[: len(data) // 2] if self.calls_left == 0 else data)

    def fsync(self, fd: int) -> None:
        self._call()
        super().fsync(fd)

    def replace(self, source: Path, target: Path) -> None:
        self._call()
        super().replace(source, target)


@in_loop
async def test_f_44_a_migration_of_tinydb_is_whole_or_not_at_all(tmp_path: Path) -> None:
    """F-44: wherever the disk dies in a migration, the store is the old one, whole, or the new one, whole."""
    later = Schema(SCHEMA.version + 1, migrations={step: lambda rows: rows for step in range(1, SCHEMA.version + 1)})
    outcomes = set()
    for calls in range(12):
        place = tmp_path / f"store-{calls}"
        shutil.copytree(folder_of(SCHEMA.version) / "tinydb", place)
        try:
            await (await TinyDbStore.open(place, schema=later, disk=DyingDisk(calls))).close()
        except Unavailable:
            outcomes.add("refused")
        try:
            store = await TinyDbStore.open(place)
            outcomes.add("old")
        except Unavailable:
            store = await TinyDbStore.open(place, schema=later)
            outcomes.add("new")
        assert await tally(store) == await expected(tmp_path / str(calls), SCHEMA.version)
        await store.close()
    assert outcomes == {"refused", "old", "new"}
