"""The default store (D9): TinyDB's file format, live tables in memory, a journal with group commit."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Self, cast

from provisioner.model import records
from provisioner.model.audit import AuditEvent
from provisioner.model.errors import Conflict, InvalidInput, LimitReached, Problem, Unavailable
from provisioner.model.ports import Delete, N, Noun, Page, Put, Unit
from provisioner.model.request import ProvisionRequest
from provisioner.store.audit_log import AuditLog
from provisioner.store.compaction import Compaction, Cut
from provisioner.store.disk import Disk, make_private_directory
from provisioner.store.feeds import Feeds
from provisioner.store.group_commit import GroupCommit, StagedUnit
from provisioner.store.live_tables import Change, LiveTable
from provisioner.store.lock import StoreLock
from provisioner.store.paging import check_limit
from provisioner.store.recovery import LOCK, Recovered, recover
from provisioner.store.schema import SCHEMA, Schema, to_json
from provisioner.store.snapshot import Meta, Moment
from provisioner.store.still import Still

REQUESTS_MAX = 10_000
AUDIT_ROWS_MAX = 100_000
JOURNAL_BYTES_MAX = 16 << 20
_FEED_ROWS = 500


class TinyDbStore:
    """A Store for one process and one event loop. ``open`` makes one, ``close`` must be awaited.

    Nothing is visible to readers before it is durable."""

    def __init__(
        self, found: Recovered, schema: Schema, *, requests_max: int, audit_rows_max: int, journal_bytes_max: int
    ) -> None:
        self._schema_version = schema.version
        self._audit_rows_max = audit_rows_max
        limits = {ProvisionRequest.kind: requests_max}
        self._tables = {noun.kind: LiveTable(noun.kind, limits.get(noun.kind)) for noun in schema.nouns}
        for kind, nouns in found.nouns.items():
            self._tables[kind].fill(nouns)
        self._audit = AuditLog(found.archive, found.audit, found.meta.audit_seq)
        self._journal = found.journal
        self._commits = GroupCommit(found.journal, self._land, self._lose)
        self._compaction = Compaction(found, self._audit, self._commits, self._cut, journal_bytes_max)
        self._unit = self._unit_ahead = found.meta.unit
        self._seq_ahead = found.meta.audit_seq
        self._journal_end = found.journal.end  # after the last unit that landed
        self._feeds = Feeds(lambda after: self.audit_page(after=after, limit=_FEED_ROWS))
        self._lock: StoreLock | None = None  # None: closed

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        requests_max: int = REQUESTS_MAX,
        audit_rows_max: int = AUDIT_ROWS_MAX,
        journal_bytes_max: int = JOURNAL_BYTES_MAX,
        schema: Schema = SCHEMA,
        disk: Disk | None = None,
    ) -> Self:
        """Open the store in ``directory``, which is made when it is not there.

        audit_rows_max: rows kept in memory; older ones move to the archive when the journal is compacted.
        Raises Unavailable: another process has it, the files are damaged or of a newer schema, the disk fails."""

        limits = {
            "requests_max": requests_max,
            "audit_rows_max": audit_rows_max,
            "journal_bytes_max": journal_bytes_max,
        }
        try:
            return await asyncio.to_thread(cls._opened, directory, schema, disk or Disk(), limits)
        except OSError as error:
            raise Unavailable(f"cannot open the store in {directory}: {error.strerror}") from None
        except Conflict as error:
            raise Unavailable(f"the store in {directory} is damaged: {error}") from None

    @classmethod
    def _opened(cls, directory: Path, schema: Schema, disk: Disk, limits: Mapping[str, int]) -> Self:
        make_private_directory(directory)
        with ExitStack() as undo:
            lock = StoreLock(directory / LOCK)
            undo.callback(lock.release)
            found = recover(directory, schema, disk)
            undo.callback(found.journal.close)
            store = cls(found, schema, **limits)
            undo.pop_all()
        store._lock = lock
        return store

    async def get(self, noun: type[N], id: str) -> N | None:
        return cast("N | None", self._table(noun).get(id))

    async def find(self, noun: type[N], index: str, value: str) -> Sequence[N]:
        return cast("Sequence[N]", self._table(noun).find(index, value))

    async def page(
        self, noun: type[N], *, where: Mapping[str, str] | None = None, after: str | None = None, limit: int = 100
    ) -> Page[N]:
        check_limit(limit)
        found = cast("Sequence[N]", self._table(noun).page(where, after, limit + 1))
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)

    async def count(self, noun: type[N], *, where: Mapping[str, str] | None = None) -> int:
        return self._table(noun).count(where)

    async def commit(self, unit: Unit) -> int:
        try:
            staged = self._staged(unit)
        except (Conflict, LimitReached):
            if self._commits.idle:
                raise
            # What refuses it may be on its way to the disk still. Judge again by what is left of that, so that
            # no refusal rests on a unit that is lost, and a caller who reads again finds what refused it.
            await self._commits.settled()
            staged = self._staged(unit)
        return await self._commits.durable(staged)

    async def audit_page(self, *, after: int = 0, limit: int = 100, newest_first: bool = False) -> Sequence[AuditEvent]:
        check_limit(limit)
        self._check_open()
        try:
            return await (self._audit.newest(after, limit) if newest_first else self._audit.page(after, limit))
        except OSError as error:
            raise Unavailable(f"archived audit rows cannot be read: {error.strerror}") from None

    def changes(self, after: int) -> AsyncIterator[AuditEvent]:
        """Ends when the store is closed."""
        return self._feeds.follow(after)

    async def health(self) -> None:
        self._check_open()
        await self._commits.probe()

    @asynccontextmanager
    async def moment(self) -> AsyncIterator[Still]:
        self._check_open()
        yield Still(self._audit.last_seq, {kind: table.all() for kind, table in self._tables.items()})

    async def adopt(self, nouns: Sequence[Noun], audit: Sequence[AuditEvent] = ()) -> None:
        await self._commits.settled()  # what it follows must not get lost
        self._check_open()
        rows = [event for event in audit if event.seq > self._seq_ahead]
        if rows and self._seq_ahead not in (0, rows[0].seq - 1):
            raise Conflict(f"audit row {rows[0].seq} does not follow row {self._seq_ahead}")
        await self._commits.durable(self._stage((self._table(type(noun)).adopt(noun) for noun in nouns), rows))

    async def close(self) -> None:
        """Finish the commits under way and write a last snapshot. Closing twice is harmless."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        self._feeds.close()
        await self._commits.settled()
        await self._compaction.finish()
        await self._commits.close()
        self._journal.close()
        lock.release()

    def _table(self, noun: type[Noun]) -> LiveTable:
        self._check_open()
        return self._tables[noun.kind]

    def _check_open(self) -> None:
        if self._lock is None:
            raise Unavailable("the store is closed")

    def _staged(self, unit: Unit) -> StagedUnit:
        self._check_open()
        audit = [records.stamped(event, "seq", seq) for seq, event in enumerate(unit.audit, self._seq_ahead + 1)]
        return self._stage(self._changes(unit.changes), audit)

    def _changes(self, changes: Sequence[Put | Delete]) -> Iterator[Change]:
        for change in changes:
            table = self._table(type(change.noun))
            yield table.put(change.noun) if isinstance(change, Put) else table.delete(change.noun)

    def _stage(self, staging: Iterator[Change], audit: Sequence[AuditEvent]) -> StagedUnit:
        """Judge changes by everything before them, durable or not. When one is refused none stays behind."""
        changes: list[Change] = []
        try:
            for change in staging:
                changes.append(change)
            json = self._json(changes, audit)
        except Exception:
            for staged in reversed(changes):
                staged.table.unstage(staged)
            raise
        self._unit_ahead += 1
        self._seq_ahead = audit[-1].seq if audit else self._seq_ahead
        return StagedUnit(json, changes, audit, self._seq_ahead, asyncio.get_running_loop().create_future())

    def _json(self, changes: Sequence[Change], audit: Sequence[AuditEvent]) -> bytes:
        """One unit of the journal: a record that is put, an id that is deleted."""
        rows = [(change.table.kind, change.id if change.after is None else change.after) for change in changes]
        try:
            return to_json({"unit": self._unit_ahead + 1, "changes": rows, "audit": audit})
        except TypeError as error:
            raise InvalidInput([Problem("unit", "must hold plain JSON values only", str(error))]) from None

    def _land(self, units: Sequence[StagedUnit], journal_end: int) -> None:
        for unit in units:
            for change in unit.changes:
                change.table.land(change)
            self._audit.extend(unit.audit)
        self._unit += len(units)
        self._journal_end = journal_end
        self._feeds.wake()
        if self._lock is not None:
            self._compaction.consider(journal_end)

    def _lose(self) -> None:
        for table in self._tables.values():
            table.lose()
        self._unit_ahead = self._unit
        self._seq_ahead = self._audit.last_seq

    def _cut(self) -> Cut:
        older, kept = self._audit.split(self._audit_rows_max)
        meta = Meta(self._schema_version, self._unit, self._audit.last_seq)
        nouns = {kind: table.all() for kind, table in self._tables.items()}
        return Cut(Moment(meta, nouns, kept), older, self._journal_end)
