"""The schema of a PostgreSQL database: looked at by every process that opens it, migrated by one."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psycopg

from provisioner.model.errors import Unavailable
from provisioner.store.schema import Schema
from provisioner.store.sql.names import SCHEMA_VERSION_TABLE
from provisioner.store.sql.postgres_link import connect
from provisioner.store.sql.postgres_options import PostgresOptions

# Of the advisory lock that a migration holds; "fleetgat" as a number.
LOCK = int.from_bytes(b"fleetgat", "big")
_MIGRATION_S = 3600.0


async def make_current(options: PostgresOptions, schema: Schema, steps: Sequence[Path] | None) -> None:
    """F-44: bring the database to today's schema, once, however many processes want it at a time.

    steps: folders of migrations, None: those of the program.
    Raises Unavailable: it cannot be reached or changed, or a newer program has migrated it."""
    version = await _version(options)
    schema.check(version)
    if version != schema.version:
        await asyncio.to_thread(_migrate, options, schema, steps)


async def _version(options: PostgresOptions) -> int:
    connection = await connect(options)
    try:
        found = await connection.execute("SELECT to_regclass(%s) IS NOT NULL", (SCHEMA_VERSION_TABLE,))
        if not (await found.fetchall())[0][0]:
            return 0
        found = await connection.execute(f"SELECT version_num FROM {SCHEMA_VERSION_TABLE}".encode())
        return int((await found.fetchall())[0][0])
    except psycopg.Error as error:
        raise _unavailable(options, error) from None
    finally:
        await connection.close()


def _migrate(options: PostgresOptions, schema: Schema, steps: Sequence[Path] | None) -> None:
    # SQLAlchemy and alembic take half a second to import, which a database of today's schema does not cost.
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    from provisioner.store.sql.migrate import STEPS, migrate

    keywords = replace(options, statement_s=_MIGRATION_S).keywords()
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(**keywords), poolclass=NullPool)  # type: ignore[arg-type]  # the keywords are libpq's
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            migrate(connection, schema, STEPS if steps is None else steps)
    except DBAPIError as error:
        raise _unavailable(options, error.orig) from None
    except psycopg.Error as error:
        raise _unavailable(options, error) from None


def _unavailable(options: PostgresOptions, error: object) -> Unavailable:
    sqlstate = getattr(error, "sqlstate", None)
    why = f"SQLSTATE {sqlstate}" if sqlstate else "its connection broke"
    return Unavailable(f"the schema of the {options.place} cannot be read or changed: {why}; nothing was changed")
