"""Change feeds of one process: every audit row after a seq, then each new one as it becomes durable."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from provisioner.model.audit import AuditEvent


class Feeds:
    """Lives on one event loop. page: durable rows with a greater seq, some at a time, in order."""

    def __init__(self, page: Callable[[int], Awaitable[Sequence[AuditEvent]]]) -> None:
        self._page = page
        self._news: set[asyncio.Event] = set()
        self._closed = False

    def wake(self) -> None:
        """There may be new rows."""
        for news in self._news:
            news.set()

    def close(self) -> None:
        """End every feed."""
        self._closed = True
        self.wake()

    async def follow(self, after: int) -> AsyncIterator[AuditEvent]:
        news = asyncio.Event()
        self._news.add(news)
        try:
            while not self._closed:
                news.clear()
                for event in await self._page(after):
                    after = event.seq
                    news.set()
                    yield event
                await news.wait()
        finally:
            self._news.discard(news)
