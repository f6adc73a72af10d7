"""Sightings wait here for their turn: those of one device one after the other, those of different devices side by side.

Arrivals are handled at once. Departures rest for a while after their device was last written about, so that one that
comes and goes all the time costs a commit or two a second at the most.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from provisioner.model.ports import Sighting

WAITING_MAX = 100_000
REST_S = 1.0
_AT_ONCE_MAX = 64

Place = tuple[str, str]
"""Account and client id."""

Note = Callable[[Sequence[Sighting]], Awaitable[bool]]
"""Takes all sightings of one place that wait, in order; whether it wrote anything."""


class Turns:
    """``take`` never blocks; ``run`` hands out until it is cancelled."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._waiting: dict[Place, list[Sighting]] = {}
        self._count = 0
        self._next: asyncio.Queue[Place] = asyncio.Queue()
        self._busy: set[Place] = set()  # in the queue, or being handled
        self._resting: dict[Place, asyncio.TimerHandle] = {}
        self._free = asyncio.Semaphore(_AT_ONCE_MAX)

    @property
    def count(self) -> int:
        """How many wait."""
        return self._count

    def take(self, sighting: Sighting) -> None:
        """One that finds too many waiting is dropped: the device's next one will do."""
        if self._count >= WAITING_MAX:
            return
        place = sighting.account, sighting.client_id
        self._waiting.setdefault(place, []).append(sighting)
        self._count += 1
        if place not in self._busy and (sighting.connected or place not in self._resting):
            self._begin(place)

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._free.acquire()
                    try:
                        place = await self._next.get()
                    except asyncio.CancelledError:
                        self._free.release()
                        raise
                    group.create_task(self._handle(place))
        finally:
            for timer in self._resting.values():
                timer.cancel()

    async def _handle(self, place: Place) -> None:
        sightings = self._waiting.pop(place)
        self._count -= len(sightings)
        wrote = False
        try:
            wrote = await self._note(sightings)
        finally:
            self._free.release()
            self._busy.discard(place)
            self._rest(place) if wrote else self._rested(place)

    def _begin(self, place: Place) -> None:
        if (timer := self._resting.pop(place, None)) is not None:
            timer.cancel()
        self._busy.add(place)
        self._next.put_nowait(place)

    def _rest(self, place: Place) -> None:
        if any(sighting.connected for sighting in self._waiting.get(place, ())):
            self._begin(place)
        else:
            self._resting[place] = asyncio.get_running_loop().call_later(REST_S, self._rested, place)

    def _rested(self, place: Place) -> None:
        self._resting.pop(place, None)
        if place in self._waiting:
            self._begin(place)
