"""The store ``sqlite`` (D9): one database file in WAL mode, one writer with group commit, readers beside it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

from provisioner.model.audit import AuditEvent
from provisioner.model.errors import Unavailable
from provisioner.model.ports import N, Noun, Page, Unit
from provisioner.store.feeds import Feeds
from provisioner.store.lock import StoreLock
from provisioner.store.paging import check_limit
from provisioner.store.schema import SCHEMA, Schema
from provisioner.store.sql import sqlite_file
from provisioner.store.sql.groups import Groups
from provisioner.store.sql.readers import Readers, SqliteMoment
from provisioner.store.sql.recent import Recent
from provisioner.store.sql.writer import Adoption, Probe, Work, Writer

NEAR_STATEMENTS_MAX = 250  # of a transaction that are executed on the event loop, some 10 us each
UNITS_MAX = 512  # of one transaction: those behind it wait no longer than that
_FEED_ROWS = 500


class SqliteStore:
    """A Store for one process and one event loop. ``open`` makes one, ``close`` must be awaited."""

    def __init__(self, path: Path, lock: StoreLock, writer: Writer) -> None:
        self._lock = lock
        self._writer = writer
        self._recent = Recent()
        self._readers = Readers(path, self._recent)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._groups: Groups[Work, int] = Groups(self._write, UNITS_MAX)
        self._feeds = Feeds(lambda after: self.audit_page(after=after, limit=_FEED_ROWS))
        self._closed = False

    @classmethod
    async def open(cls, path: Path, *, schema: Schema = SCHEMA, steps: Sequence[Path] | None = None) -> Self:
        """Open the database file, which is made when it is not there, and bring it to this program's schema.

        steps: folders of migrations in place of the program's own.
        Raises Unavailable: another process has it, it is damaged or of a newer schema, the disk fails."""
        try:
            return await asyncio.to_thread(cls._opened, path, schema, steps)
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(f"cannot open the store {path}: {sqlite_file.reason(error)}") from None

    @classmethod
    def _opened(cls, path: Path, schema: Schema, steps: Sequence[Path] | None) -> Self:
        with ExitStack() as undo:
            sqlite_file.make_folder(path)
            lock = StoreLock(path.with_name(path.name + sqlite_file.LOCK_SUFFIX))
            undo.callback(lock.release)
            sqlite_file.make_file(path)
            sqlite_file.bring_up_to_date(path, schema, steps)
            writer = Writer(sqlite_file.writing(path))
            undo.callback(writer.close)
            store = cls(path, lock, writer)
            undo.pop_all()
        return store

    async def get(self, noun: type[N], id: str) -> N | None:
        self._check_open()
        return self._readers.get(noun, id)

    async def find(self, noun: type[N], index: str, value: str) -> Sequence[N]:
        self._check_open()
        return await self._readers.find(noun, index, value)

    async def page(
        self, noun: type[N], *, where: Mapping[str, str] | None = None, after: str | None = None, limit: int = 100
    ) -> Page[N]:
        check_limit(limit)
        self._check_open()
        found = await self._readers.page(noun, where or {}, after, limit + 1)
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)

    async def count(self, noun: type[N], *, where: Mapping[str, str] | None = None) -> int:
        self._check_open()
        return await self._readers.count(noun, where or {})

    async def commit(self, unit: Unit) -> int:
        self._check_open()
        return await self._groups.outcome(unit)

    async def audit_page(self, *, after: int = 0, limit: int = 100, newest_first: bool = False) -> Sequence[AuditEvent]:
        check_limit(limit)
        self._check_open()
        return await self._readers.audit(after, limit, newest_first=newest_first)

    def changes(self, after: int) -> AsyncIterator[AuditEvent]:
        """Ends when the store is closed."""
        return self._feeds.follow(after)

    async def health(self) -> None:
        self._check_open()
        await self._groups.outcome(Probe())

    @asynccontextmanager
    async def moment(self) -> AsyncIterator[SqliteMoment]:
        self._check_open()
        async with self._readers.moment() as moment:
            yield moment

    async def adopt(self, nouns: Sequence[Noun], audit: Sequence[AuditEvent] = ()) -> None:
        self._check_open()
        await self._groups.outcome(Adoption(nouns, audit))

    async def close(self) -> None:
        """Finish the commits under way. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self._feeds.close()
        await self._groups.settled()
        await asyncio.to_thread(self._shut)

    async def _write(self, works: Sequence[Work]) -> Sequence[int | Exception]:
        loop = asyncio.get_running_loop()
        if sum(map(_statements, works)) <= NEAR_STATEMENTS_MAX:
            # A thread would have to fight for the interpreter before each of them.
            outcomes = self._writer.prepare(works)
            await loop.run_in_executor(self._thread, self._writer.commit)
        else:
            outcomes = await loop.run_in_executor(self._thread, self._writer.write, works)
        for work, outcome in zip(works, outcomes, strict=True):
            if isinstance(work, Unit) and isinstance(outcome, int):
                self._recent.landed(work)
            elif isinstance(work, Adoption):
                self._recent.forget(work.nouns)
        self._feeds.wake()
        return outcomes

    def _shut(self) -> None:
        self._thread.shutdown()
        self._readers.close()
        self._writer.close()  # last, for the last one brings the WAL into the file
        self._lock.release()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")


def _statements(work: Work) -> int:
    match work:
        case Unit():
            return len(work.changes) + len(work.audit)
        case Adoption():
            return len(work.nouns) + len(work.audit)
        case Probe():
            return 1
