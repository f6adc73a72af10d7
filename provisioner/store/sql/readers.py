"""Reading an SQLite database: what is one look-up in an index at once, the rest in threads."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from provisioner.model.audit import AuditEvent
from provisioner.model.errors import Unavailable
from provisioner.model.ports import N, Noun
from provisioner.store.sql import rows
from provisioner.store.sql.names import AUDIT, INDEXES, META, index_name
from provisioner.store.sql.recent import Recent
from provisioner.store.sql.sqlite_file import reading
from provisioner.store.sql.writer import told

T = TypeVar("T")
Records = Sequence[tuple[bytes]]

NEAR_ROWS_MAX = 16  # that are read and decoded on the event loop
_THREADS = 2
_MOMENT_ROWS = 500


class Readers:
    """Lives on one event loop. Every read sees all that was committed before it. Raises Unavailable.

    A hop to a thread and back costs several times what a look-up does, so look-ups do without; a writer or a
    checkpoint never holds up a reader in WAL mode."""

    def __init__(self, path: Path, recent: Recent) -> None:
        self._path = path
        self._recent = recent
        self._near = reading(path)
        self._far: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        for _ in range(_THREADS):
            self._far.put(reading(path))
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="store-reader")

    def get(self, noun: type[N], id: str) -> N | None:
        if (known := self._recent.get(noun, id)) is not None:
            return known
        found = self._near_records(noun, get_sql(noun.kind), (id,))
        return found[0] if found else None

    async def find(self, noun: type[N], index: str, value: str) -> Sequence[N]:
        sql = listing_sql(noun.kind, (index,), False)
        found = self._near_records(noun, sql, (value, NEAR_ROWS_MAX + 1))
        if len(found) <= NEAR_ROWS_MAX:
            return found
        return await self._listing(noun, sql, (value, -1))

    async def page(self, noun: type[N], where: Mapping[str, str], after: str | None, limit: int) -> Sequence[N]:
        sql = listing_sql(noun.kind, tuple(where), after is not None)
        parameters = (*where.values(), *(() if after is None else (after,)), limit)
        if limit <= NEAR_ROWS_MAX and _is_indexed(noun.kind, tuple(where)):
            return self._near_records(noun, sql, parameters)
        return await self._listing(noun, sql, parameters)

    async def count(self, noun: type[Noun], where: Mapping[str, str]) -> int:
        sql = count_sql(noun.kind, tuple(where))
        found = await self._in_thread(lambda connection: _rows(connection, sql, (*where.values(),)))
        return int(found[0][0]) if found else 0

    async def audit(self, after: int, limit: int, *, newest_first: bool) -> Sequence[AuditEvent]:
        order = "DESC" if newest_first else "ASC"
        sql = f"SELECT record FROM {AUDIT} WHERE seq > ? ORDER BY seq {order} LIMIT ?"
        return await self._listing(AuditEvent, sql, (after, limit))

    @asynccontextmanager
    async def moment(self) -> AsyncIterator["SqliteMoment"]:
        """A snapshot of SQLite's own; while it lasts, the WAL cannot begin anew."""
        connection = await self._in_thread(lambda _: _snapshot(self._path))
        try:
            yield SqliteMoment(int(_rows(connection, f"SELECT audit_seq FROM {META}", ())[0][0]), connection)
        finally:
            await asyncio.to_thread(connection.close)

    def close(self) -> None:
        """Blocks until what is being read is read."""
        self._threads.shutdown()
        self._near.close()
        for _ in range(_THREADS):
            self._far.get().close()

    def _near_records(self, noun: type[N], sql: str, parameters: Sequence[str | int]) -> Sequence[N]:
        found = [rows.loaded(noun, record) for (record,) in _rows(self._near, sql, parameters)]
        for each in found:
            self._recent.keep(each)
        return found

    async def _listing(self, noun: type[rows.T], sql: str, parameters: Sequence[str | int]) -> Sequence[rows.T]:
        return await self._in_thread(
            lambda connection: [rows.loaded(noun, record) for (record,) in _rows(connection, sql, parameters)]
        )

    async def _in_thread(self, read: Callable[[sqlite3.Connection], T]) -> T:
        def work() -> T:
            connection = self._far.get()
            try:
                return read(connection)
            finally:
                self._far.put(connection)

        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


class SqliteMoment:
    """A Moment."""

    def __init__(self, audit_seq: int, connection: sqlite3.Connection) -> None:
        self.audit_seq = audit_seq
        self._connection = connection

    async def nouns(self, noun: type[N]) -> AsyncIterator[Sequence[N]]:
        found: Sequence[N] = await asyncio.to_thread(self._page, noun, None)
        while found:
            yield found
            found = await asyncio.to_thread(self._page, noun, found[-1].id)

    def _page(self, noun: type[N], after: str | None) -> Sequence[N]:
        parameters = (_MOMENT_ROWS,) if after is None else (after, _MOMENT_ROWS)
        sql = listing_sql(noun.kind, (), after is not None)
        return [rows.loaded(noun, record) for (record,) in _rows(self._connection, sql, parameters)]


def _rows(connection: sqlite3.Connection, sql: str, parameters: Sequence[str | int]) -> Records:
    """All of them: a statement that is not read to its end would keep the next one in the past."""
    with _unavailable():
        try:
            return connection.execute(sql, parameters).fetchall()
        except UnicodeEncodeError:
            return []  # a value that is no UTF-8 text is in no record


def _snapshot(path: Path) -> sqlite3.Connection:
    with _unavailable():
        connection = reading(path)
        connection.execute("BEGIN")
        connection.execute(f"SELECT * FROM {META}").fetchall()
        return connection


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise Unavailable(f"the store could not be read: {told(error)}") from None


@cache
def get_sql(kind: str) -> str:
    return f"SELECT record FROM {kind} WHERE id = ?"


@cache
def listing_sql(kind: str, where: tuple[str, ...], continued: bool) -> str:
    """Parameters: the value of each name in ``where``, the id to go on after, how many (-1: all)."""
    terms = [f"{name} = ?" for name in where] + (["id > ?"] if continued else [])
    order = "" if set(where) & set(INDEXES[kind].unique) else " ORDER BY id"  # there is one record at most
    return f"SELECT record FROM {kind}{_source(where, kind)}{_where(terms)}{order} LIMIT ?"


@cache
def _is_indexed(kind: str, where: tuple[str, ...]) -> bool:
    """No row is read that is not asked for."""
    return not where or set(INDEXES[kind].best(where)) == set(where)


@cache
def count_sql(kind: str, where: tuple[str, ...]) -> str:
    return f"SELECT count(*) FROM {kind}{_source(where, kind)}{_where([f'{name} = ?' for name in where])}"


def _source(where: tuple[str, ...], kind: str) -> str:
    """Named, for without statistics SQLite takes all indexes to be alike."""
    return f" INDEXED BY {index_name(kind, INDEXES[kind].best(where))}" if where else ""


def _where(terms: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(terms)}" if terms else ""
