"""Group commit: all units that wait share one write and one fsync, off the event loop, in order.

While one group is being written the next one gathers. A group that fails takes everything behind it along, because
that was judged by what the failed units would have left.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from provisioner.model.audit import AuditEvent
from provisioner.model.errors import Unavailable
from provisioner.store.journal import Journal
from provisioner.store.live_tables import Change

_log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class StagedUnit:
    """A unit on its way to the disk. ``durable`` resolves to the seq that its commit returns."""

    json: bytes
    changes: Sequence[Change]
    audit: Sequence[AuditEvent]
    seq: int
    durable: asyncio.Future[int]


@dataclass(slots=True, eq=False)
class _Group:
    """over: set when the group is durable or lost; error says which."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    units: list[StagedUnit] = field(default_factory=list)
    probe: bool = False
    error: Exception | None = None


class GroupCommit:
    """Lives on one event loop. landed: called for each group once it is durable, with the journal's end after it.
    lost: called once when staged units are given up, before their commits hear of it."""

    def __init__(
        self, journal: Journal, landed: Callable[[Sequence[StagedUnit], int], None], lost: Callable[[], None]
    ) -> None:
        self._journal = journal
        self._landed = landed
        self._lost = lost
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-journal")
        self._waiting = _Group()
        self._writing: _Group | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way to the disk."""
        return self._task is None

    async def durable(self, unit: StagedUnit) -> int:
        """Wait with others until the unit is on disk. Raises Unavailable when it never will be."""
        self._waiting.units.append(unit)
        self._wake()
        return await unit.durable

    async def settled(self) -> None:
        """Wait until everything that is on its way now is durable or lost."""
        group = self._waiting if self._waiting.units else self._writing
        if group is not None:
            await group.over.wait()

    async def probe(self) -> None:
        """Return when the disk takes a write now, raise Unavailable otherwise. Callers share one write."""
        group = self._waiting
        group.probe = True
        self._wake()
        await group.over.wait()
        if group.error is not None:
            raise _unavailable(group.error)

    async def in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run something on the journal between two groups."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: call(*args, **kwargs))

    async def close(self) -> None:
        """Finish what waits, then end the thread."""
        while self._task is not None:
            await asyncio.wait([self._task])
        self._thread.shutdown()

    def _wake(self) -> None:
        if self._task is None:
            # A group is nobody's own: what is logged of it is not about the one who came first.
            self._task = asyncio.create_task(self._write_groups(), context=Context())

    async def _write_groups(self) -> None:
        try:
            while self._waiting.units or self._waiting.probe:
                group, self._waiting = self._waiting, _Group()
                self._writing = group
                await self._write(group)
        finally:
            self._writing = self._task = None

    async def _write(self, group: _Group) -> None:
        try:
            if group.units:
                end = await self.in_thread(self._journal.append, [unit.json for unit in group.units])
                self._landed(group.units, end)
            else:
                await self.in_thread(self._journal.probe)
        # Whatever went wrong, the callers that wait must hear of it.
        except Exception as error:
            _log.error("the store could not write: %s", _reason(error))
            self._give_up(group, error)
            return
        for unit in group.units:
            if not unit.durable.done():
                unit.durable.set_result(unit.seq)
        group.over.set()

    def _give_up(self, failed: _Group, error: Exception) -> None:
        behind, self._waiting = self._waiting, _Group()
        self._lost()
        for group in (failed, behind):
            group.error = error
            for unit in group.units:
                if not unit.durable.done():
                    unit.durable.set_exception(_unavailable(error))
            group.over.set()


def _reason(error: Exception) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else type(error).__name__


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(f"the store could not write to its disk: {_reason(error)}; nothing was changed")
