"""The store for many gates at once: one PostgreSQL database (D9, D12)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Self

from provisioner.model import records
from provisioner.model.audit import AuditEvent
from provisioner.model.errors import InvalidInput, Problem, Unavailable
from provisioner.model.ports import Moment, N, Noun, Page, Unit
from provisioner.store.fanout import Fanout
from provisioner.store.feeds import Feeds
from provisioner.store.one_process import check_message
from provisioner.store.paging import check_limit
from provisioner.store.schema import SCHEMA, Schema
from provisioner.store.sql import postgres_copies, rows
from provisioner.store.sql.postgres_commits import FORGET_RECEIPTS, PostgresCommits
from provisioner.store.sql.postgres_leases import PostgresLeases
from provisioner.store.sql.postgres_news import SIGNALS, PostgresNews
from provisioner.store.sql.postgres_options import PostgresOptions
from provisioner.store.sql.postgres_reads import PostgresReads, checked_column, storable
from provisioner.store.sql.postgres_schema import make_current

_FEED_ROWS = 500
_FEED_RETRY_S = 0.5


class PostgresStore:
    """A SharedStore. Lives on one event loop; ``open`` makes one, ``close`` must be awaited.

    While the database is away every verb raises Unavailable within seconds, and feeds and signals wait; all go on by
    themselves when it is back."""

    def __init__(self, options: PostgresOptions, schema: Schema) -> None:
        self._options = options
        self._commits = PostgresCommits(options, schema.version)
        self._reads = PostgresReads(options)
        self._leases = PostgresLeases(self._reads)
        self._feeds = Feeds(self._feed_page)
        self._fanout = Fanout()
        self._news = PostgresNews(options, self._feeds.wake, self._fanout)
        self._closed = False

    @classmethod
    async def open(
        cls, options: PostgresOptions, *, schema: Schema = SCHEMA, steps: Sequence[Path] | None = None
    ) -> Self:
        """Open the database and bring it to this program's schema.

        steps: folders of migrations in place of the program's own.
        Raises Unavailable: it cannot be reached, or is of a newer schema."""
        await make_current(options, schema, steps)
        store = cls(options, schema)
        try:
            async with asyncio.timeout(options.connect_s + options.statement_s):
                await store._news.listening()
            with contextlib.suppress(Unavailable):
                await store._reads.ask(FORGET_RECEIPTS)
        except TimeoutError:
            await store.close()
            raise Unavailable(f"the {options.place} cannot be listened to") from None
        return store

    async def get(self, noun: type[N], id: str) -> N | None:
        self._check_open()
        found = await self._reads.lookup(noun, "id", id)
        return found[0] if found else None

    async def find(self, noun: type[N], index: str, value: str) -> Sequence[N]:
        self._check_open()
        return await self._reads.lookup(noun, checked_column(noun.kind, index), value)

    async def page(
        self, noun: type[N], *, where: Mapping[str, str] | None = None, after: str | None = None, limit: int = 100
    ) -> Page[N]:
        check_limit(limit)
        self._check_open()
        condition = _condition(noun, where, after)
        if condition is None:
            return Page([], None)
        text, values = condition
        statement = f"SELECT record FROM {noun.kind} WHERE {text} ORDER BY id LIMIT %s"
        records_found = await self._reads.ask(statement, (*values, limit + 1))
        found = [rows.loaded(noun, record) for (record,) in records_found[:limit]]
        return Page(found, found[-1].id if len(records_found) > limit else None)

    async def count(self, noun: type[N], *, where: Mapping[str, str] | None = None) -> int:
        self._check_open()
        condition = _condition(noun, where, None)
        if condition is None:
            return 0
        text, values = condition
        ((number,),) = await self._reads.ask(f"SELECT count(*) FROM {noun.kind} WHERE {text}", values)
        return int(number)

    async def commit(self, unit: Unit) -> int:
        self._check_open()
        return await self._commits.commit(unit)

    async def audit_page(self, *, after: int = 0, limit: int = 100, newest_first: bool = False) -> Sequence[AuditEvent]:
        check_limit(limit)
        self._check_open()
        order = "DESC" if newest_first else "ASC"
        statement = f"SELECT seq, record FROM audit WHERE seq > %s ORDER BY seq {order} LIMIT %s"
        found = await self._reads.ask(statement, (after, limit))
        return [records.stamped(rows.loaded(AuditEvent, record), "seq", seq) for seq, record in found]

    def changes(self, after: int) -> AsyncIterator[AuditEvent]:
        """Ends when the store is closed."""
        return self._feeds.follow(after)

    async def health(self) -> None:
        self._check_open()
        await self._commits.commit(Unit())

    def moment(self) -> AbstractAsyncContextManager[Moment]:
        self._check_open()
        return postgres_copies.moment(self._options)

    async def adopt(self, nouns: Sequence[Noun], audit: Sequence[AuditEvent] = ()) -> None:
        self._check_open()
        await postgres_copies.adopt(self._options, nouns, audit)

    async def notify(self, message: str) -> None:
        """One that is sent while the connection breaks may be heard twice."""
        check_message(message)
        self._check_open()
        await self._reads.ask("SELECT pg_notify(%s, %s)", (SIGNALS, message))

    def signals(self) -> AsyncIterator[str | None]:
        return self._fanout.listen()

    async def acquire(self, name: str, holder: str, seconds: float) -> int | None:
        self._check_open()
        return await self._leases.acquire(name, holder, seconds)

    async def renew(self, name: str, fence: int, seconds: float) -> bool:
        self._check_open()
        return await self._leases.renew(name, fence, seconds)

    async def release(self, name: str, fence: int) -> None:
        self._check_open()
        await self._leases.release(name, fence)

    async def close(self) -> None:
        """Finish the commits and reads under way. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self._feeds.close()
        self._fanout.close()
        await self._commits.close()
        await self._reads.close()
        await self._news.close()

    async def _feed_page(self, after: int) -> Sequence[AuditEvent]:
        with contextlib.suppress(Unavailable):
            return await self.audit_page(after=after, limit=_FEED_ROWS)
        asyncio.get_running_loop().call_later(_FEED_RETRY_S, self._feeds.wake)
        return []

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")


def _condition(
    noun: type[Noun], where: Mapping[str, str] | None, after: str | None
) -> tuple[str, tuple[Any, ...]] | None:
    """Of a statement, and its values. None: no record can fulfil it."""
    wanted = where or {}
    parts = [f"{checked_column(noun.kind, index)} = %s" for index in wanted]
    if not all(map(storable, wanted.values())):
        return None
    values = tuple(wanted.values())
    if after is None:
        return " AND ".join(parts) or "TRUE", values
    # No id has a NUL, so whatever is behind the first one does not change which ids are greater.
    after = after.split("\0")[0]
    if not storable(after):
        raise InvalidInput([Problem("after", "must be an id", f"text of {len(after)} characters")])
    return " AND ".join([*parts, "id > %s"]), (*values, after)
