"""A program of a later schema, of one step more than this one. As a process it opens a store, and so migrates it.

Arguments: ``tinydb FOLDER``, ``sqlite FILE`` or ``postgresql``, whose options stand in JSON on the first line of
standard input, so that the password is in no process list. The environment's DIE_AT names the point at which the
process kills itself (SIGKILL), as by kill -9; POINTS has those of each store.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from provisioner.model.ports import Store
from provisioner.store.disk import Disk
from provisioner.store.schema import SCHEMA, Rows, Schema
from provisioner.store.sql.migrate import STEPS
from provisioner.store.sql.postgres_options import PostgresOptions
from provisioner.store.sql.postgres_store import PostgresStore
from provisioner.store.sql.sqlite_store import SqliteStore
from provisioner.store.tinydb_store import TinyDbStore
from tests.contracts.postgres_process import told_options

POINTS = {
    "tinydb": ("rows", "write", "replace", "replaced", "truncate"),
    "sqlite": ("column", "rows", "end"),
    "postgresql": ("column", "rows", "end"),
}
# Those behind the one moment at which the new store takes the place of the old one.
AFTER_THE_STEP = ("replaced", "truncate")


def reach(point: str) -> None:
    if os.environ.get("DIE_AT") == point:
        os.kill(os.getpid(), signal.SIGKILL)


def _rows(rows: Rows) -> Rows:
    reach("rows")
    return rows


LATER = Schema(SCHEMA.version + 1, migrations={**SCHEMA.migrations, SCHEMA.version: _rows})
LATER_STEPS = (*STEPS, Path(__file__).parent / "later_schema")


class DyingDisk(Disk):
    def write(self, fd: int, data: bytes) -> None:
        super().write(fd, data[: len(data) // 2])
        reach("write")
        super().write(fd, data[len(data) // 2 :])

    def replace(self, source: Path, target: Path) -> None:
        reach("replace")
        super().replace(source, target)
        reach("replaced")

    def truncate(self, fd: int, length: int) -> None:
        reach("truncate")
        super().truncate(fd, length)


async def open_tinydb(folder: Path) -> TinyDbStore:
    return await TinyDbStore.open(folder, schema=LATER, disk=DyingDisk())


async def open_sqlite(file: Path) -> SqliteStore:
    return await SqliteStore.open(file, schema=LATER, steps=LATER_STEPS)


async def open_postgres(options: PostgresOptions) -> PostgresStore:
    return await PostgresStore.open(options, schema=LATER, steps=LATER_STEPS)


async def main(kind: str, *place: str) -> None:
    store: Store
    match kind:
        case "tinydb":
            store = await open_tinydb(Path(place[0]))
        case "sqlite":
            store = await open_sqlite(Path(place[0]))
        case _:
            store = await open_postgres(told_options())
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
