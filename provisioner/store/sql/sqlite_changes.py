"""Single changes in an SQLite transaction: a put, a delete, a record that is taken over.

Each leaves the transaction as it was when it is refused, and needs the writer's own view of the records.
"""

import sqlite3
from collections.abc import Sequence
from functools import cache

from provisioner.model.errors import Conflict, Duplicate, StaleVersion
from provisioner.model.ports import Noun
from provisioner.store.sql import rows
from provisioner.store.sql.names import INDEXES

_FIXED = 3  # id, version and record come before the indexes


def put(connection: sqlite3.Connection, noun: Noun) -> None:
    """Raises StaleVersion or Duplicate."""
    row = rows.as_put(noun)
    if noun.version == 0:
        _insert(connection, noun, row)
    else:
        _update(connection, noun, row)


def delete(connection: sqlite3.Connection, noun: Noun) -> None:
    """Raises StaleVersion."""
    if not connection.execute(_delete_sql(noun.kind), (noun.id, noun.version)).rowcount:
        raise _stale(connection, noun)


def keep(connection: sqlite3.Connection, noun: Noun) -> None:
    """Take the noun over as it is, in the place of the one of its id. Raises Duplicate."""
    try:
        connection.execute(_keep_sql(noun.kind), rows.as_kept(noun))
    except sqlite3.IntegrityError:
        raise _duplicate(connection, noun) from None


def _insert(connection: sqlite3.Connection, noun: Noun, row: Sequence[rows.Value]) -> None:
    try:
        connection.execute(_insert_sql(noun.kind), row)
    except sqlite3.IntegrityError:
        if _version(connection, noun):
            raise _stale(connection, noun) from None
        raise _duplicate(connection, noun) from None


def _update(connection: sqlite3.Connection, noun: Noun, row: Sequence[rows.Value]) -> None:
    """SQLite moves the entry of every index that is set, also to where it was: set only those that change."""
    before = connection.execute(_before_sql(noun.kind), (noun.id, noun.version)).fetchone()
    if before is None:
        raise _stale(connection, noun)
    pairs = zip(before, row[_FIXED:], strict=False)  # a kind without indexes has a column to read all the same
    changed = [place for place, (old, new) in enumerate(pairs, _FIXED) if old != new]
    sql = _update_sql(noun.kind, tuple(changed))
    try:
        connection.execute(sql, (row[1], row[2], *(row[place] for place in changed), noun.id))
    except sqlite3.IntegrityError:
        raise _duplicate(connection, noun) from None


def _version(connection: sqlite3.Connection, noun: Noun) -> int:
    """0 when there is no such record."""
    row = connection.execute(f"SELECT version FROM {noun.kind} WHERE id = ?", (noun.id,)).fetchone()
    return int(row[0]) if row else 0


def _stale(connection: sqlite3.Connection, noun: Noun) -> StaleVersion:
    version = _version(connection, noun)
    stands = f"is at version {version}, not at {noun.version}" if version else "does not exist"
    return StaleVersion(f"{noun.kind} {noun.id} {stands}")


def _duplicate(connection: sqlite3.Connection, noun: Noun) -> Conflict:
    for index, value in noun.unique().items():
        sql = f"SELECT id FROM {noun.kind} WHERE {index} = ? AND id <> ?"
        if (holder := connection.execute(sql, (value, noun.id)).fetchone()) is not None:
            return Duplicate(noun.kind, index, holder[0])
    return Conflict(f"{noun.kind} {noun.id} contradicts what is stored")


@cache
def _insert_sql(kind: str) -> str:
    names = rows.COLUMNS[kind]
    return f"INSERT INTO {kind} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


@cache
def _keep_sql(kind: str) -> str:
    changes = ", ".join(f"{name} = excluded.{name}" for name in rows.COLUMNS[kind][1:])
    return f"{_insert_sql(kind)} ON CONFLICT (id) DO UPDATE SET {changes}"


@cache
def _before_sql(kind: str) -> str:
    return f"SELECT {', '.join(INDEXES[kind].names) or '1'} FROM {kind} WHERE id = ? AND version = ?"


@cache
def _update_sql(kind: str, changed: tuple[int, ...]) -> str:
    names = (*rows.COLUMNS[kind][1:_FIXED], *(rows.COLUMNS[kind][place] for place in changed))
    return f"UPDATE {kind} SET {', '.join(f'{name} = ?' for name in names)} WHERE id = ?"


@cache
def _delete_sql(kind: str) -> str:
    return f"DELETE FROM {kind} WHERE id = ? AND version = ?"
