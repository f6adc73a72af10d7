"""The file of an SQLite store: private, in WAL mode, with this program's schema."""

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from provisioner.model.errors import Unavailable
from provisioner.store.disk import PRIVATE_DIRECTORY, open_private
from provisioner.store.schema import Schema
from provisioner.store.sql.names import SCHEMA_VERSION_TABLE
from provisioner.store.sql.writer import told

LOCK_SUFFIX = ".lock"
_BUSY_S = 10.0  # a reader meets a lock only while a database that was not closed is recovered
_CACHE_KB = 65_536
_STATEMENTS_MAX = 512


def make_folder(path: Path) -> None:
    """Raises OSError."""
    path.parent.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)


def make_file(path: Path) -> None:
    """The file with its mode before there is anything in it; SQLite gives those beside it the same. Raises OSError."""
    os.close(open_private(path, os.O_RDWR | os.O_CREAT))


def bring_up_to_date(path: Path, schema: Schema, steps: Sequence[Path] | None) -> None:
    """Make or migrate the tables. steps: folders of migrations, None: those of the program. Raises Unavailable."""
    connection = writing(path)
    try:
        found = _version(connection, path)
        schema.check(found)
        if found != schema.version:
            _migrate(connection, schema, steps)
    finally:
        connection.close()


def writing(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode, whose commits are on the disk when they return."""
    connection = _connected(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
    return connection


def reading(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. Text comes as bytes."""
    connection = _connected(path)
    connection.text_factory = bytes
    connection.execute("PRAGMA query_only = ON")
    return connection


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=_STATEMENTS_MAX
    )


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """0 for an empty database."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not tables:
        return 0
    if SCHEMA_VERSION_TABLE not in tables:
        raise Unavailable(f"{path} is no store of fleetgate's: it has other tables")
    return int(connection.execute(f"SELECT version_num FROM {SCHEMA_VERSION_TABLE}").fetchone()[0])


def _migrate(connection: sqlite3.Connection, schema: Schema, steps: Sequence[Path] | None) -> None:
    """In one transaction: after a crash the schema is the old one or the new one. Raises sqlite3.Error."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import StaticPool

    from provisioner.store.sql.migrate import STEPS, migrate

    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    event.listen(engine, "begin", lambda begun: begun.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with engine.begin() as begun:
            migrate(begun, schema, STEPS if steps is None else steps)
    except DBAPIError as error:
        raise (error.orig or error) from None


def reason(error: Exception) -> str:
    """Why it failed, without values."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return told(error) if isinstance(error, sqlite3.Error) else type(error).__name__
