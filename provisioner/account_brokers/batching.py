"""Many who wait for the same costly step share one."""

import asyncio
from collections.abc import Awaitable, Callable

REST_S_MAX = 0.5


class Batch:
    """Runs ``step`` for everybody who asked before it began; those who ask while it runs share the next one.

    Between two steps it rests for as long as the former took, so that what stands still meanwhile moves in between."""

    def __init__(self, step: Callable[[], Awaitable[None]]) -> None:
        self._step = step
        self._next: asyncio.Task[None] | None = None
        self._last: asyncio.Task[None] | None = None
        self._rested_at_s = 0.0

    async def request(self) -> None:
        """Return when a step that began after this call is done; raises what it raised."""
        if self._next is None:
            self._next = asyncio.create_task(self._run(self._last))
            self._next.add_done_callback(_look_at)
        await asyncio.shield(self._next)

    async def settle(self) -> None:
        """Wait until nothing runs any more."""
        while (task := self._next or self._last) is not None and not task.done():
            await asyncio.wait((task,))

    async def _run(self, former: asyncio.Task[None] | None) -> None:
        if former is not None and not former.done():
            await asyncio.wait((former,))
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._rested_at_s - loop.time())
        self._last, self._next = self._next, None
        began_s = loop.time()
        try:
            await self._step()
        finally:
            now_s = loop.time()
            self._rested_at_s = now_s + min(now_s - began_s, REST_S_MAX)


def _look_at(task: asyncio.Task[None]) -> None:
    """A failure belongs to those who waited; when nobody did, it is no news to the loop."""
    if not task.cancelled():
        task.exception()
