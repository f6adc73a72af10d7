"""Compaction: a snapshot while commits go on, which lets the journal be short.

Order of a compaction: old audit rows to the archive, snapshot, head of the journal dropped. Each step is durable
before the next begins and harmless to repeat, so a crash between two of them loses nothing and doubles nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from provisioner.model.audit import AuditEvent
from provisioner.store.audit_log import AuditLog
from provisioner.store.group_commit import GroupCommit
from provisioner.store.journal import Journal
from provisioner.store.recovery import Recovered
from provisioner.store.snapshot import Moment, SnapshotStorage, write_moment

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cut:
    """A consistent moment. older: audit rows that go to the archive first. journal_end: offset after its last unit."""

    moment: Moment
    older: Sequence[AuditEvent]
    journal_end: int


class Compaction:
    """cut: makes a Cut of what is durable now; called on the event loop, so it must be quick."""

    def __init__(
        self, found: Recovered, audit: AuditLog, commits: GroupCommit, cut: Callable[[], Cut], journal_bytes_max: int
    ) -> None:
        self._storage: SnapshotStorage = found.storage
        self._journal: Journal = found.journal
        self._audit = audit
        self._commits = commits
        self._cut = cut
        self._journal_bytes_max = journal_bytes_max
        self._snapshot_bytes = found.storage.size_bytes()
        self._contained = 0  # the snapshot holds the journal up to this offset
        self._tried = 0  # the last compaction, good or not, began at this offset
        self._one_at_a_time = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def consider(self, journal_end: int) -> None:
        """Start a compaction when the journal has grown enough since the last one; a failed one is tried again then."""
        if self._task is None and journal_end - self._tried > max(self._journal_bytes_max, self._snapshot_bytes):
            self._task = asyncio.create_task(self._in_background())

    async def finish(self) -> None:
        """Bring everything into the snapshot; the journal keeps what cannot be brought there."""
        while self._task is not None:
            await asyncio.wait([self._task])
        if self._journal.end > self._contained:
            await self._compact()

    async def _in_background(self) -> None:
        try:
            await self._compact()
        finally:
            self._task = None

    async def _compact(self) -> None:
        async with self._one_at_a_time:
            cut = self._cut()
            self._tried = cut.journal_end
            try:
                await asyncio.to_thread(self._write_snapshot, cut)
                self._contained = cut.journal_end
                self._audit.forget_through(self._audit.archive.last_seq)
                await self._commits.in_thread(self._journal.drop_head, cut.journal_end)
            except OSError as error:
                _log.warning("the journal could not be compacted and stays as it is: %s", error.strerror)

    def _write_snapshot(self, cut: Cut) -> None:
        self._audit.archive.append(cut.older)
        write_moment(self._storage, cut.moment)
        self._snapshot_bytes = self._storage.size_bytes()
