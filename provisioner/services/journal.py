"""The audit trail of what strangers cause: complete in kind, bounded in number.

Rows that administrators and grants cause are committed with the change itself. Rows that anybody can cause
by knocking (refused logins, refused topics, malformed bytes) come here: the first few of a kind are written
one by one, the rest of a minute as one row with a count, so that an attacker cannot fill the disk.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from provisioner.model.audit import AuditEvent
from provisioner.model.errors import Unavailable
from provisioner.model.observer import NOBODY, Observer
from provisioner.model.ports import Store, Unit

log = logging.getLogger(__name__)

SINGLE_ROWS_MAX = 10
WINDOW_S = 60.0
KINDS_MAX = 2_048
QUEUE_MAX = 4_096
AGAIN_S = 1.0


@dataclass(slots=True)
class _Kind:
    """One kind of row within the present window. held: rows not yet written, as the last of them."""

    opened_s: float
    written: int = 0
    held: AuditEvent | None = None
    held_count: int = 0


class AuditTrail:
    """``note`` never blocks and never raises; ``run`` writes what was noted, in batches."""

    def __init__(
        self,
        store: Store,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        observer: Observer = NOBODY,
    ) -> None:
        self._store, self._now, self._monotonic, self._observer = store, now, monotonic, observer
        self._kinds: OrderedDict[tuple[str | None, ...], _Kind] = OrderedDict()
        self._queue: list[AuditEvent] = []
        self._dropped = 0
        self._wake = asyncio.Event()

    def note(self, event: AuditEvent) -> None:
        """Take one row of a kind that anybody can cause."""
        self._observer.happened(event)
        key = (event.action, event.reason, event.address, event.client_id, event.username)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind(self._monotonic())
            if len(self._kinds) > KINDS_MAX:
                self._close(self._kinds.popitem(last=False)[1])
        if kind.written < SINGLE_ROWS_MAX:
            kind.written += 1
            self._enqueue(event)
        else:
            kind.held, kind.held_count = event, kind.held_count + event.count

    async def run(self) -> None:
        """Write until cancelled; then ``flush`` once more."""
        while True:
            # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the wake-up.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WINDOW_S / 4):
                    await self._wake.wait()
            await self.flush()

    async def flush(self, *, close_windows: bool = False) -> None:
        """Write what waits; close_windows: also the counts of windows that are still open."""
        self._wake.clear()
        self._close_windows(everything=close_windows)
        batch, self._queue = self._queue, []
        dropped, self._dropped = self._dropped, 0
        lost = [self._lost(dropped)] if dropped else []
        if not batch and not lost:
            return
        try:
            await self._store.commit(Unit(audit=[*batch, *lost]))
        except Unavailable:
            log.warning("%d audit rows wait: the store is unavailable", len(batch))
            room = QUEUE_MAX - len(self._queue)
            self._queue = batch[:room] + self._queue
            self._dropped += dropped + sum(event.count for event in batch[room:])
            await asyncio.sleep(AGAIN_S)
        else:
            for event in lost:
                self._observer.happened(event)
                self._observer.recorded(event)

    def _lost(self, count: int) -> AuditEvent:
        details = {"count": count}
        return AuditEvent(at=self._now(), actor="gate", action="audit.dropped", outcome="failed", details=details)

    def _enqueue(self, event: AuditEvent) -> None:
        if len(self._queue) >= QUEUE_MAX:
            self._dropped += event.count
            return
        self._observer.recorded(event)
        self._queue.append(event)
        self._wake.set()

    def _close(self, kind: _Kind) -> None:
        if kind.held is not None:
            self._enqueue(replace(kind.held, details={**kind.held.details, "count": kind.held_count}))

    def _close_windows(self, *, everything: bool) -> None:
        since = self._monotonic() - WINDOW_S
        for key, kind in list(self._kinds.items()):
            if everything or kind.opened_s <= since:
                self._close(self._kinds.pop(key))
