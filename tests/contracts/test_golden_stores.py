"""F-44: stores as former programs left them are opened by this one, with all that is in them."""

import shutil
import signal
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
from provisioner.store.tinydb_store import TinyDbStore
from provisioner.store.whole import Summary, parts, tallied
from tests.contracts.golden_places import GoldenPlace, PostgresPlace, SqlitePlace, TinyDbPlace
from tests.contracts.golden_stores import NOON, fill_all, folder_of
from tests.contracts.later_program import AFTER_THE_STEP, LATER, POINTS
from tests.contracts.store_stage import in_loop
from tests.contracts.store_values import walk_unit
from tests.support.postgres import PostgresServer

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
    await check(await TinyDbPlace(tmp_path, schema).open(), tmp_path, schema)


@pytest.mark.parametrize("schema", RELEASED)
@in_loop
async def test_f_44_a_sqlite_store_of_a_former_program(tmp_path: Path, schema: int) -> None:
    """F-44: its tables and indexes become those that a new store has today."""
    place, fresh = SqlitePlace(tmp_path, schema), SqlitePlace(tmp_path / "fresh", None)
    await check(await place.open(), tmp_path, schema)
    await (await fresh.open()).close()
    assert place.tables() == fresh.tables()


@pytest.mark.parametrize("schema", RELEASED)
@in_loop
async def test_f_44_a_postgresql_store_of_a_former_program(
    postgres: PostgresServer, tmp_path: Path, schema: int
) -> None:
    """F-44: its tables, indexes and the function that commits become those that a new store has today."""
    place, fresh = PostgresPlace(postgres, schema), PostgresPlace(postgres, None)
    await check(await place.open(), tmp_path, schema)
    await (await fresh.open()).close()
    assert place.tables() == fresh.tables()


@pytest.mark.parametrize("schema", RELEASED)
@pytest.mark.parametrize(("kind", "point"), [(kind, point) for kind, points in POINTS.items() for point in points])
@in_loop
async def test_f_44_a_migration_that_was_killed_is_none_or_whole(
    request: pytest.FixtureRequest, tmp_path: Path, schema: int, kind: str, point: str
) -> None:
    """F-44: kill -9 in the middle of a migration leaves the store as it was, or migrated with all that is in it; the
    next start of the new program completes it, and the old program does not misread it then."""
    place = restored(kind, schema, request, tmp_path)
    before = place.content()
    assert place.migrate_later(die_at=point) == -signal.SIGKILL
    assert (place.content() == before) == (point not in AFTER_THE_STEP)
    await check(await place.open_later(), tmp_path, schema)
    with pytest.raises(Unavailable, match=f"schema {LATER.version} and this program knows schema {SCHEMA.version}"):
        await place.open()
    if kind != "tinydb":
        assert "ACME/GW1000" in str(place.content())


@pytest.mark.parametrize("kind", POINTS)
@in_loop
async def test_f_44_the_former_program_goes_on_where_a_migration_was_killed(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """F-44: whoever does not want the upgrade after that finds the store of before under the program of before."""
    place = restored(kind, SCHEMA.version, request, tmp_path)
    assert place.migrate_later(die_at="rows") == -signal.SIGKILL
    await check(await place.open(), tmp_path, SCHEMA.version)


def restored(kind: str, schema: int, request: pytest.FixtureRequest, folder: Path) -> GoldenPlace:
    match kind:
        case "tinydb":
            return TinyDbPlace(folder, schema)
        case "sqlite":
            return SqlitePlace(folder, schema)
    return PostgresPlace(request.getfixturevalue("postgres"), schema)


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
