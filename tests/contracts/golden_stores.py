"""What golden stores hold, and how they are made: ``python -m tests.contracts.golden_stores SCHEMA`` writes those of a
schema that is about to be released, next to those of the released ones, which are never changed again."""

import asyncio
import shutil
import sqlite3
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import psycopg

from provisioner.model.epoch import Epoch
from provisioner.model.ports import Put, Store, Unit
from provisioner.model.request import ProvisionRequest
from provisioner.services import copying
from provisioner.store.sql.postgres_options import PostgresOptions
from provisioner.store.sql.postgres_store import PostgresStore
from provisioner.store.sql.sqlite_store import SqliteStore
from provisioner.store.tinydb_store import TinyDbStore
from tests.contracts.store_values import NOON, event, one_of_each, walk_unit
from tests.support.postgres import running_postgres

GOLDEN = Path(__file__).parent / "golden"
WALKS = 6


def folder_of(schema: int) -> Path:
    return GOLDEN / f"schema-{schema}"


def restore_tinydb(schema: int, target: Path) -> None:
    shutil.copytree(folder_of(schema) / "tinydb", target)


def restore_sqlite(schema: int, target: Path) -> None:
    connection = sqlite3.connect(target)
    connection.executescript((folder_of(schema) / "sqlite.sql").read_text())
    connection.close()


def restore_postgres(schema: int, options: PostgresOptions) -> None:
    """options: of an empty database."""
    with psycopg.connect(**options.keywords()) as connection:  # type: ignore[arg-type]  # the keywords are libpq's
        connection.execute((folder_of(schema) / "postgresql.sql").read_bytes())


async def fill(store: Store, first: int, count: int) -> None:
    """Records of every kind; some of them changed since, and the audit rows of it."""
    for number in range(first, first + count):
        await store.commit(walk_unit(number))
    found = await store.get(ProvisionRequest, f"req-{first:06d}")
    assert found is not None
    await store.commit(Unit([Put(replace(found, attempts=3))], [event("again")]))


async def fill_all(store: Store) -> None:
    await store.commit(Unit([Put(noun) for noun in one_of_each() if not isinstance(noun, Epoch)], [event("each")]))
    await store.commit(Unit([Put(Epoch(number=2, began_at=NOON))]))
    await fill(store, 1_000, WALKS)


async def write_tinydb(target: Path) -> None:
    """With an archive, a snapshot and a journal that is newer, as a kill leaves them."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "store"
        store = await TinyDbStore.open(place, audit_rows_max=4)
        await store.commit(Unit([Put(noun) for noun in one_of_each() if not isinstance(noun, Epoch)], [event("each")]))
        await store.commit(Unit([Put(Epoch(number=2, began_at=NOON))]))
        for number in range(1_000, 1_000 + WALKS - 1):
            await store.commit(walk_unit(number))
        await store.close()
        store = await TinyDbStore.open(place, audit_rows_max=4)
        await store.commit(walk_unit(1_000 + WALKS - 1))
        found = await store.get(ProvisionRequest, "req-001000")
        assert found is not None
        await store.commit(Unit([Put(replace(found, attempts=3))], [event("again")]))
        _copy(place, target)
        await store.close()


def _copy(place: Path, target: Path) -> None:
    shutil.copytree(place, target, ignore=shutil.ignore_patterns("store.lock"))


async def write_sqlite(target: Path) -> None:
    """As SQL, which people can read."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "store.db"
        store = await SqliteStore.open(path)
        await fill_all(store)
        await store.close()
        _keep(sqlite_dump(path), target)


def _keep(text: str, target: Path) -> None:
    target.write_text(text)


def sqlite_dump(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return "\n".join(connection.iterdump()) + "\n"
    finally:
        connection.close()


async def write_postgres(target: Path) -> None:
    """As SQL as well."""
    with running_postgres() as server:
        options = server.options(server.empty_database())
        store = await PostgresStore.open(options)
        await fill_all(store)
        await store.close()
        _keep(server.dump(options.database), target)


async def write_backup(target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        store = await TinyDbStore.open(Path(scratch) / "store")
        await fill_all(store)
        await copying.backup("admin:ada", store, target, NOON)
        await store.close()


async def write(schema: int) -> None:
    folder_of(schema).mkdir(parents=True)
    await write_tinydb(folder_of(schema) / "tinydb")
    await write_sqlite(folder_of(schema) / "sqlite.sql")
    await write_postgres(folder_of(schema) / "postgresql.sql")
    await write_backup(folder_of(schema) / "backup.txt")


if __name__ == "__main__":
    asyncio.run(write(int(sys.argv[1])))
