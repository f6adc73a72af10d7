"""Many callers on a PostgreSQL store that something happens to, and what must be true afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from provisioner.model.audit import AuditEvent
from provisioner.model.device import Device
from provisioner.model.errors import Unavailable
from provisioner.store.sql.postgres_options import PostgresOptions
from provisioner.store.sql.postgres_store import PostgresStore
from tests.contracts.store_values import all_audit, walk_unit

CALLERS = 50
RECOVERED_S_MAX = 5.0
Outcomes = dict[int, int | BaseException]


@asynccontextmanager
async def opened(options: PostgresOptions) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(options)
    try:
        yield store
    finally:
        await store.close()


async def recovered_s(store: PostgresStore) -> float:
    """Until a commit succeeds."""
    began_s = time.monotonic()
    while True:
        try:
            await store.health()
            return time.monotonic() - began_s
        except Unavailable:
            assert time.monotonic() - began_s < 2 * RECOVERED_S_MAX, "the store does not recover"
            await asyncio.sleep(0.02)


async def committing(store: PostgresStore, outcomes: Outcomes, until: asyncio.Event) -> None:
    """Fifty callers, each committing one walk after the other; what became of each is kept."""
    numbers = iter(range(10**9))

    async def caller() -> None:
        while not until.is_set():
            number = next(numbers)
            try:
                outcomes[number] = await store.commit(walk_unit(number))
            except Unavailable as error:
                outcomes[number] = error
                await asyncio.sleep(0.01)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


async def follow(store: PostgresStore, seen: list[AuditEvent]) -> None:
    async with aclosing(store.changes(0)) as feed:  # type: ignore[type-var]  # the feed is an async generator
        async for row in feed:
            seen.append(row)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in other tasks and processes
            await asyncio.sleep(0.005)


async def assert_true(store: PostgresStore, outcomes: Outcomes) -> None:
    """What was acknowledged is there, once; what was not is not; the log has no gap and nobody's rows mixed up."""
    for number, outcome in outcomes.items():
        stored = await store.get(Device, f"dev-{number:06d}")
        assert (stored is not None) == isinstance(outcome, int), (number, outcome)
    log = await all_audit(store)
    assert [row.seq for row in log] == list(range(1, len(log) + 1))
    acknowledged = {number: seq for number, seq in outcomes.items() if isinstance(seq, int)}
    assert len(log) == 2 * len(acknowledged)
    for number, seq in acknowledged.items():
        assert [row.subject for row in log[seq - 2 : seq]] == [f"req-{number:06d}"] * 2
