"""The trail of what strangers cause."""

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

from provisioner.model.audit import AuditEvent
from provisioner.model.ports import Store, Unit
from provisioner.services.journal import AuditTrail

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Written:
    """A store that only takes audit rows."""

    def __init__(self) -> None:
        self.rows: list[AuditEvent] = []

    async def commit(self, unit: Unit) -> None:
        self.rows += unit.audit


def test_a_row_at_the_moment_of_the_end_does_not_hold_it_up() -> None:
    """What the closing gate still notes wakes the trail in the turn that cancels it: it ends, and the row is kept."""
    store: Any = Written()

    async def end_with_a_row() -> None:
        trail = AuditTrail(cast(Store, store), lambda: NOW, lambda: 0.0)
        running = asyncio.create_task(trail.run())
        await asyncio.sleep(0)
        trail.note(AuditEvent(at=NOW, actor="gate", action="connect.refused"))
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=5.0)
        assert done and running.cancelled()
        await trail.flush(close_windows=True)

    asyncio.run(end_with_a_row())
    assert [row.action for row in store.rows] == ["connect.refused"]
