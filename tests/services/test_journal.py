"""The audit trail of what strangers cause: complete in kind, bounded in number, and nothing lost uncounted."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.model.audit import AuditEvent
from provisioner.model.errors import Unavailable
from provisioner.model.ports import Unit
from provisioner.services.journal import KINDS_MAX, QUEUE_MAX, SINGLE_ROWS_MAX, WINDOW_S, AuditTrail
from tests.services.world import NOON, Clock

KNOCK = AuditEvent(at=NOON, actor="gate", action="connect.refused", outcome="refused", reason="password", address="::1")


class Log:
    """A store of which only the audit log is used."""

    def __init__(self) -> None:
        self.rows: list[AuditEvent] = []
        self.available = True
        self.commits = 0
        self.written = asyncio.Event()

    async def commit(self, unit: Unit) -> int:
        if not self.available:
            raise Unavailable("no space left")
        assert not unit.changes
        self.commits += 1
        self.rows += unit.audit
        self.written.set()
        return len(self.rows)


class Trail:
    """An audit trail on a log and a clock that is set."""

    def __init__(self) -> None:
        self.log, self.clock = Log(), Clock()
        store: Any = self.log
        self.trail = AuditTrail(store, lambda: self.clock.now, lambda: self.clock.monotonic_s)

    def note(self, count: int = 1, **changes: Any) -> None:
        for _ in range(count):
            self.trail.note(replace(KNOCK, at=self.clock.now, **changes))

    def move(self, seconds: float) -> None:
        self.clock.move(timedelta(seconds=seconds))

    def told(self) -> int:
        """How many notes the rows tell of."""
        return sum(int(str(row.details.get("count", 1))) for row in self.log.rows)


def run(scenario: Callable[[Trail], Coroutine[Any, Any, None]]) -> Trail:
    async def whole() -> Trail:
        trail = Trail()
        await scenario(trail)
        return trail

    return asyncio.run(whole())


def test_a_few_rows_of_a_kind_are_written_one_by_one() -> None:
    """EC-03: the first ten knocks are ten rows, as they came."""

    async def scenario(trail: Trail) -> None:
        trail.note(SINGLE_ROWS_MAX)
        await trail.trail.flush()
        assert trail.log.rows == [KNOCK] * SINGLE_ROWS_MAX

    run(scenario)


def test_a_flood_of_a_kind_is_ten_rows_and_a_count() -> None:
    """F-19, F-35: ten thousand refused logins from one address are eleven rows a minute that tell of all of them."""

    async def scenario(trail: Trail) -> None:
        trail.note(10_000)
        await trail.trail.flush()
        assert len(trail.log.rows) == SINGLE_ROWS_MAX
        trail.move(WINDOW_S)
        await trail.trail.flush()

    trail = run(scenario)
    assert len(trail.log.rows) == SINGLE_ROWS_MAX + 1
    assert trail.log.rows[-1].details == {"count": 10_000 - SINGLE_ROWS_MAX}
    assert trail.told() == 10_000


def test_a_count_is_not_told_before_its_minute_is_over() -> None:
    """F-35: whatever is flushed meanwhile; at shutdown it is told at once."""

    async def scenario(trail: Trail) -> None:
        trail.note(SINGLE_ROWS_MAX + 5)
        trail.move(WINDOW_S - 0.001)
        await trail.trail.flush()
        assert trail.told() == SINGLE_ROWS_MAX
        await trail.trail.flush(close_windows=True)
        assert trail.told() == SINGLE_ROWS_MAX + 5

    run(scenario)


def test_after_a_minute_rows_are_written_one_by_one_again() -> None:
    """F-35: each window has its own ten."""

    async def scenario(trail: Trail) -> None:
        for _ in range(3):
            trail.note(SINGLE_ROWS_MAX)
            await trail.trail.flush()
            trail.move(WINDOW_S)
            await trail.trail.flush()

    rows = run(scenario).log.rows
    assert len(rows) == 3 * SINGLE_ROWS_MAX
    assert rows == [replace(KNOCK, at=row.at) for row in rows]


@pytest.mark.parametrize(
    "changes",
    [
        {"action": "topic.refused"},
        {"reason": "unknown_user"},
        {"address": "::2"},
        {"client_id": "gw1"},
        {"username": "u"},
    ],
)
def test_kinds_are_told_apart(changes: dict[str, Any]) -> None:
    """EC-03: one who floods does not hide another action, reason, address, client id or user."""

    async def scenario(trail: Trail) -> None:
        trail.note(1000)
        trail.note(1, **changes)
        await trail.trail.flush()
        assert trail.log.rows[-1] == replace(KNOCK, **changes)

    run(scenario)


def test_a_count_keeps_the_details_of_the_last() -> None:
    """EC-03: the summary row shows the latest knock."""

    async def scenario(trail: Trail) -> None:
        trail.note(SINGLE_ROWS_MAX)
        trail.note(1, details={"topic": "a"})
        trail.note(1, details={"topic": "b"})
        await trail.trail.flush(close_windows=True)
        assert trail.log.rows[-1].details == {"topic": "b", "count": 2}

    run(scenario)


def test_memory_is_bounded_when_every_knock_is_another_kind() -> None:
    """F-35: with more kinds than are remembered the oldest is closed, its count told."""

    async def scenario(trail: Trail) -> None:
        trail.note(SINGLE_ROWS_MAX + 7)
        for number in range(KINDS_MAX):
            trail.note(1, client_id=f"gw{number}")
        assert len(trail.trail._kinds) == KINDS_MAX
        await trail.trail.flush()
        assert trail.told() == SINGLE_ROWS_MAX + 7 + KINDS_MAX

    run(scenario)


def test_what_finds_no_place_is_counted() -> None:
    """F-35, F-42: while nothing can be written, rows beyond the bound become one row that tells how many."""

    async def scenario(trail: Trail) -> None:
        for number in range(QUEUE_MAX + 30):
            trail.note(1, client_id=f"gw{number}")
        await trail.trail.flush()

    rows = run(scenario).log.rows
    assert len(rows) == QUEUE_MAX + 1
    assert (rows[-1].action, rows[-1].details) == ("audit.dropped", {"count": 30})


def test_what_finds_no_place_beside_newer_rows_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """F-42: rows that come while a full batch is refused push others out; each of them is told of, and so are those
    that were to be told of when the store failed. A row that stands for many counts as many."""

    async def at_once(_: float) -> None:
        pass

    monkeypatch.setattr("provisioner.services.journal.asyncio.sleep", at_once)

    async def scenario(trail: Trail) -> None:
        async def refuse(unit: Unit) -> int:
            trail.note(5, client_id="late")
            raise Unavailable("no space left")

        write = trail.log.commit
        trail.note(SINGLE_ROWS_MAX + 50)
        for number in range(QUEUE_MAX):
            trail.note(1, client_id=f"gw{number}")
        monkeypatch.setattr(trail.log, "commit", refuse)
        await trail.trail.flush(close_windows=True)
        await trail.trail.flush(close_windows=True)
        monkeypatch.setattr(trail.log, "commit", write)
        await trail.trail.flush(close_windows=True)
        assert trail.told() == SINGLE_ROWS_MAX + 50 + QUEUE_MAX + 5 + 5

    rows = run(scenario).log.rows
    assert [row.action for row in rows].count("audit.dropped") == 1


def test_rows_wait_for_a_store_that_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """F-42: nothing is lost, nothing is raised, and the order is kept."""

    async def at_once(_: float) -> None:
        pass

    monkeypatch.setattr("provisioner.services.journal.asyncio.sleep", at_once)

    async def scenario(trail: Trail) -> None:
        trail.log.available = False
        for number in range(3):
            trail.note(1, client_id=f"gw{number}")
            await trail.trail.flush()
        trail.log.available = True
        await trail.trail.flush()
        await trail.trail.flush()
        assert [row.client_id for row in trail.log.rows] == ["gw0", "gw1", "gw2"]
        assert trail.log.commits == 1

    run(scenario)


def test_noted_rows_are_written_by_themselves_and_in_batches() -> None:
    """F-35: a hundred rows noted together are one commit."""

    async def scenario(trail: Trail) -> None:
        task = asyncio.create_task(trail.trail.run())
        await asyncio.sleep(0)
        for number in range(100):
            trail.note(1, client_id=f"gw{number}")
        async with asyncio.timeout(10):
            await trail.log.written.wait()
        task.cancel()
        await asyncio.wait([task])
        assert (trail.log.commits, len(trail.log.rows)) == (1, 100)

    run(scenario)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("note"), st.integers(0, 3), st.integers(1, 30)),
        st.tuples(st.just("move"), st.integers(0, 70), st.just(0)),
        st.tuples(st.just("flush"), st.just(0), st.just(0)),
    ),
    max_size=20,
)


@given(STEPS)
def test_every_note_is_told_of_exactly_once(steps: list[tuple[str, int, int]]) -> None:
    """EC-03, F-41: whatever comes in whatever order, rows and counts add up to what was noted."""
    noted = 0

    async def scenario(trail: Trail) -> None:
        nonlocal noted
        noted = 0
        for what, number, count in steps:
            if what == "note":
                trail.note(count, client_id=f"gw{number}")
                noted += count
            elif what == "move":
                trail.move(number)
            else:
                await trail.trail.flush()
        await trail.trail.flush(close_windows=True)

    trail = run(scenario)
    assert trail.told() == noted
