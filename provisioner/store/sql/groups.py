"""Group commit for databases: units that wait while one transaction is under way share the next one, in order."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

U = TypeVar("U")
R = TypeVar("R")


class Groups(Generic[U, R]):
    """Lives on one event loop. write: takes up to ``units_max`` units and gives one outcome for each, in order.

    An exception among the outcomes is that unit's refusal; one that ``write`` raises is told to every unit."""

    def __init__(self, write: Callable[[Sequence[U]], Awaitable[Sequence[R | Exception]]], units_max: int) -> None:
        self._write = write
        self._units_max = units_max
        self._waiting: deque[tuple[U, asyncio.Future[R]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def outcome(self, unit: U) -> R:
        """Wait, with others, for what becomes of the unit. One whose caller gives up is written all the same."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((unit, future))
        if self._task is None:
            self._task = asyncio.create_task(self._write_groups())
        return await future

    def refuse_waiting(self, error: Exception) -> None:
        """Tell every unit that is not being written yet that it will not be."""
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)

    async def settled(self) -> None:
        """Wait until nothing is on its way."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _write_groups(self) -> None:
        try:
            while self._waiting:
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._units_max))]
                await self._write_group(group)
        finally:
            self._task = None

    async def _write_group(self, group: Sequence[tuple[U, asyncio.Future[R]]]) -> None:
        outcomes: Sequence[R | Exception]
        try:
            outcomes = await self._write([unit for unit, _ in group])
        # Whatever went wrong, the callers that wait must hear of it.
        except Exception as error:
            outcomes = [error] * len(group)
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
