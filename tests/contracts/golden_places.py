"""Where tests put golden stores: each restored into a place of its own, opened by this program or by a later one."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from provisioner.model.ports import Store
from provisioner.store.sql.postgres_store import PostgresStore
from provisioner.store.sql.sqlite_store import SqliteStore
from provisioner.store.tinydb_store import TinyDbStore
from tests.contracts import golden_stores, later_program
from tests.contracts.postgres_process import told
from tests.support.installation import ROOT
from tests.support.postgres import PostgresServer

PROCESS_S_MAX = 60


class GoldenPlace(Protocol):
    """A golden store that was restored."""

    async def open(self) -> Store: ...

    async def open_later(self) -> Store: ...

    def migrate_later(self, die_at: str) -> int:
        """The exit status of a process of the later program that opens it, and dies at that point."""

    def content(self) -> object:
        """All that it keeps; equal to itself while nothing was changed."""


class TinyDbPlace:
    def __init__(self, folder: Path, schema: int) -> None:
        self._folder = folder / "tinydb"
        golden_stores.restore_tinydb(schema, self._folder)

    async def open(self) -> TinyDbStore:
        return await TinyDbStore.open(self._folder)

    async def open_later(self) -> TinyDbStore:
        return await later_program.open_tinydb(self._folder)

    def migrate_later(self, die_at: str) -> int:
        return _migrate_later(die_at, "tinydb", str(self._folder))

    def content(self) -> object:
        return {name: (self._folder / name).read_bytes() for name in ("audit-archive.jsonl", "store.json", "store.log")}


class SqlitePlace:
    def __init__(self, folder: Path, schema: int | None) -> None:
        """schema: None for an empty one."""
        self._file = folder / "store.db"
        if schema is not None:
            golden_stores.restore_sqlite(schema, self._file)

    async def open(self) -> SqliteStore:
        return await SqliteStore.open(self._file)

    async def open_later(self) -> SqliteStore:
        return await later_program.open_sqlite(self._file)

    def migrate_later(self, die_at: str) -> int:
        return _migrate_later(die_at, "sqlite", str(self._file))

    def content(self) -> object:
        return golden_stores.sqlite_dump(self._file)

    def tables(self) -> list[Any]:
        """Tables and indexes."""
        connection = sqlite3.connect(self._file)
        found = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2").fetchall()
        connection.close()
        return found


class PostgresPlace:
    def __init__(self, server: PostgresServer, schema: int | None) -> None:
        """schema: None for an empty one."""
        self._server = server
        self._options = server.options(server.empty_database())
        if schema is not None:
            golden_stores.restore_postgres(schema, self._options)

    async def open(self) -> PostgresStore:
        return await PostgresStore.open(self._options)

    async def open_later(self) -> PostgresStore:
        return await later_program.open_postgres(self._options)

    def migrate_later(self, die_at: str) -> int:
        return _migrate_later(die_at, "postgresql", line=told(self._options))

    def content(self) -> object:
        return self._server.dump(self._options.database)

    def tables(self) -> list[Any]:
        """Columns, indexes, constraints and the functions."""
        return self._server.ask(
            """SELECT concat_ws(' ', table_name, ordinal_position, column_name, data_type, is_nullable, column_default,
                      collation_name)
               FROM information_schema.columns WHERE table_schema = 'public'
               UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
               UNION ALL SELECT concat_ws(' ', conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint
               WHERE connamespace = 'public'::regnamespace
               UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
               ORDER BY 1""",
            database=self._options.database,
        )


def _migrate_later(die_at: str, *arguments: str, line: bytes = b"") -> int:
    done = subprocess.run(
        [sys.executable, "-m", "tests.contracts.later_program", *arguments],
        cwd=ROOT,
        env={**os.environ, "DIE_AT": die_at},
        input=line,
        capture_output=True,
        timeout=PROCESS_S_MAX,
        check=False,
    )
    assert done.stderr == b"", done.stderr.decode()
    return done.returncode
