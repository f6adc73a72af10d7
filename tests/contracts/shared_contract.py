"""What processes on one store may count on of each other. A test class inherits ``SharedContract`` and gives a fixture
``hall``, which opens the store once more for each process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import pytest

from provisioner.model.errors import InvalidInput, Unavailable
from provisioner.model.ports import Shared
from tests.contracts.store_contract import in_loop


class ClosedLater(Shared, Protocol):
    async def close(self) -> None: ...


class Hall(Protocol):
    async def enter(self) -> ClosedLater:
        """One process more, as far as the store allows."""


@asynccontextmanager
async def entered(hall: Hall) -> AsyncIterator[ClosedLater]:
    shared = await hall.enter()
    try:
        yield shared
    finally:
        await shared.close()


async def hears(listener: Shared, heard: list[str | None], last: str) -> None:
    async for message in listener.signals():
        heard.append(message)
        if message == last:
            return


async def said_until_heard(speaker: Shared, listening: "asyncio.Task[None]", message: str) -> None:
    """A listener is not told from when on it listens, so say it until it is heard."""
    while not listening.done():
        await speaker.notify(message)
        await asyncio.wait([listening], timeout=0.02)
    await listening


class SharedContract:
    @in_loop
    async def test_every_process_hears_what_one_says(self, hall: Hall) -> None:
        """A message reaches all who listen, the sender too, whole and in order."""
        async with entered(hall) as speaker:
            heard: dict[int, list[str | None]] = {1: [], 2: []}
            listening = [asyncio.create_task(hears(speaker, each, "ready")) for each in heard.values()]
            for task in listening:
                await said_until_heard(speaker, task, "ready")
            again: list[str | None] = []
            following = asyncio.create_task(hears(speaker, again, "end"))
            await asyncio.sleep(0)
            for message in ("kick acme/gw1 \u2603", "'; drop table x; --", "x" * 7_900, "end"):
                await speaker.notify(message)
            await asyncio.wait_for(following, 10)
            told = [message for message in again if message not in (None, "ready")]
            assert told == ["kick acme/gw1 \u2603", "'; drop table x; --", "x" * 7_900, "end"]

    @in_loop
    async def test_a_message_has_a_size(self, hall: Hall) -> None:
        """What cannot be carried is refused before anything is sent."""
        async with entered(hall) as speaker:
            for message in ("", "x" * 7_901, "\u2603" * 3_000, "a\0b", "\ud800"):
                with pytest.raises(InvalidInput):
                    await speaker.notify(message)

    @in_loop
    async def test_a_lease_has_one_holder(self, hall: Hall) -> None:
        """Of ten who ask at once one gets it; asking again it keeps its number, the others keep being refused."""
        async with entered(hall) as shared:
            asked = await asyncio.gather(*(shared.acquire("effects", f"gate-{n}", 30) for n in range(10)))
            (winner,) = [n for n, fence in enumerate(asked) if fence is not None]
            assert await shared.acquire("effects", f"gate-{winner}", 30) == asked[winner]
            assert await shared.acquire("effects", "gate-x", 30) is None
            assert await shared.acquire("other", "gate-x", 30) is not None

    @in_loop
    async def test_a_released_lease_passes_on_with_a_greater_number(self, hall: Hall) -> None:
        """A former holder can neither renew nor release what has passed on."""
        async with entered(hall) as shared:
            first = await shared.acquire("effects", "a", 30)
            assert first is not None
            await shared.release("effects", first)
            second = await shared.acquire("effects", "b", 30)
            assert second is not None
            assert second > first
            assert not await shared.renew("effects", first, 30)
            await shared.release("effects", first)
            assert await shared.acquire("effects", "c", 30) is None
            assert await shared.renew("effects", second, 30)

    @in_loop
    async def test_a_lease_ends_when_nobody_renews_it(self, hall: Hall) -> None:
        """Renewing keeps it; without that it passes on by itself, and the late holder is told that it lost it."""
        async with entered(hall) as shared:
            first = await shared.acquire("effects", "a", 0.3)
            assert first is not None
            assert await shared.renew("effects", first, 0.3)
            second = None
            async with asyncio.timeout(10):
                while second is None:
                    await asyncio.sleep(0.02)
                    second = await shared.acquire("effects", "b", 30)
            assert second > first
            assert not await shared.renew("effects", first, 30)

    @in_loop
    async def test_nothing_is_shared_after_a_close(self, hall: Hall) -> None:
        """Iterations end, and every verb raises Unavailable."""
        async with entered(hall) as shared:
            iterator = aiter(shared.signals())
            waiting = asyncio.ensure_future(anext(iterator, "over"))
            await asyncio.sleep(0)
            await shared.close()
            last = await asyncio.wait_for(waiting, 10)
            assert last in (None, "over")
            for refused in (
                shared.notify("x"),
                shared.acquire("a", "b", 1),
                shared.renew("a", 1, 1),
                shared.release("a", 1),
            ):
                with pytest.raises(Unavailable):
                    await refused
