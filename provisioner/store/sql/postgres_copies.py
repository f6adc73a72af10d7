"""Whole copies: reading all that PostgreSQL holds at one moment, and taking over what another store held."""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

import psycopg

from provisioner.model.audit import AuditEvent
from provisioner.model.errors import Conflict, Duplicate, Unavailable
from provisioner.model.ports import N, Noun
from provisioner.store.sql import rows
from provisioner.store.sql.names import AUDIT, INDEXES
from provisioner.store.sql.postgres_link import Connection, connect, reason
from provisioner.store.sql.postgres_options import PostgresOptions

_TOGETHER = 500
# Whoever reads a moment may write it somewhere slow.
_PATIENT = "SET idle_in_transaction_session_timeout = '1h'", "SET statement_timeout = '10min'"
_SNAPSHOT = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class PostgresMoment:
    """A Moment: a transaction that sees what was committed when it began."""

    def __init__(self, options: PostgresOptions, connection: Connection, audit_seq: int) -> None:
        self._options = options
        self._connection = connection
        self.audit_seq = audit_seq

    async def nouns(self, noun: type[N]) -> AsyncIterator[Sequence[N]]:
        statement = f"SELECT id, record FROM {noun.kind} WHERE id > %s ORDER BY id LIMIT {_TOGETHER}".encode()
        after = ""
        while True:
            with _told(self._options):
                found = await (await self._connection.execute(statement, (after,))).fetchall()
            if not found:
                return
            after = found[-1][0]
            yield [rows.loaded(noun, record) for _, record in found]


@asynccontextmanager
async def moment(options: PostgresOptions) -> AsyncIterator[PostgresMoment]:
    connection = await connect(options, *_PATIENT)
    try:
        with _told(options):
            await connection.execute(_SNAPSHOT)
            ((seq,),) = await (await connection.execute("SELECT audit_seq FROM meta")).fetchall()
        yield PostgresMoment(options, connection, seq)
    finally:
        await connection.close()


async def adopt(options: PostgresOptions, nouns: Sequence[Noun], audit: Sequence[AuditEvent]) -> None:
    """As the port says, in one transaction."""
    by_kind: dict[str, dict[str, Noun]] = defaultdict(dict)
    for noun in nouns:
        by_kind[noun.kind][noun.id] = noun
    connection = await connect(options, *_PATIENT)
    try:
        with _told(options):
            async with connection.transaction():
                ((head,),) = await (
                    await connection.execute("SELECT audit_seq FROM meta WHERE one = 1 FOR UPDATE")
                ).fetchall()
                for kind, adopted in by_kind.items():
                    await _adopt_kind(connection, kind, adopted)
                await _adopt_audit(connection, head, [event for event in audit if event.seq > head])
    finally:
        await connection.close()


async def _adopt_kind(connection: Connection, kind: str, nouns: Mapping[str, Noun]) -> None:
    await connection.execute(f"DELETE FROM {kind} WHERE id = ANY(%s)".encode(), (list(nouns),))
    await _refuse_duplicates(connection, kind, nouns)
    async with connection.cursor().copy(f"COPY {kind} ({', '.join(rows.COLUMNS[kind])}) FROM STDIN".encode()) as copy:
        for noun in nouns.values():
            await copy.write_row(rows.as_kept(noun))


async def _refuse_duplicates(connection: Connection, kind: str, nouns: Mapping[str, Noun]) -> None:
    """Who holds a value already: another one that is adopted, or one that stays."""
    for index in INDEXES[kind].unique:
        wanted: dict[str, str] = {}
        for noun in nouns.values():
            value = noun.unique().get(index)
            if value is not None and (holder := wanted.setdefault(value, noun.id)) != noun.id:
                raise Duplicate(kind, index, holder)
        cursor = await connection.execute(
            f"SELECT id FROM {kind} WHERE {index} = ANY(%s) LIMIT 1".encode(), (list(wanted),)
        )
        if (found := await cursor.fetchone()) is not None:
            raise Duplicate(kind, index, found[0])


async def _adopt_audit(connection: Connection, head: int, events: Sequence[AuditEvent]) -> None:
    if not events:
        return
    if head not in (0, events[0].seq - 1):
        raise Conflict(f"audit row {events[0].seq} does not follow row {head}")
    async with connection.cursor().copy(f"COPY {AUDIT} (seq, record) FROM STDIN".encode()) as copy:
        for event in events:
            await copy.write_row((event.seq, rows.as_audit(event)))
    await connection.execute("UPDATE meta SET audit_seq = %s WHERE one = 1", (events[-1].seq,))
    await connection.execute("SELECT pg_notify('fleetgate_audit', %s)", (str(events[-1].seq),))


@contextmanager
def _told(options: PostgresOptions) -> Iterator[None]:
    """What psycopg raises in the block becomes Unavailable."""
    try:
        yield
    except (psycopg.Error, OSError) as error:
        sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
        why = reason(sqlstate) if sqlstate else "the connection broke"
        raise Unavailable(f"the {options.place} could not copy: {why}") from None
