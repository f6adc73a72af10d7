"""Messages to all who listen within one process; one that does not keep up loses some, and is told so."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

MESSAGES_MAX = 1_000  # that wait for one listener


class Fanout:
    """Lives on one event loop. None in the place of a message: some may have been missed."""

    def __init__(self) -> None:
        self._boxes: set[_Box] = set()
        self._closed = False

    def send(self, message: str | None) -> None:
        for box in self._boxes:
            box.put(message)

    def close(self) -> None:
        """End every iteration, once it has given what waits."""
        self._closed = True
        for box in self._boxes:
            box.news.set()

    async def listen(self) -> AsyncIterator[str | None]:
        box = _Box()
        self._boxes.add(box)
        try:
            while True:
                while box.waiting:
                    yield box.waiting.popleft()
                if self._closed:
                    return
                box.news.clear()
                await box.news.wait()
        finally:
            self._boxes.discard(box)


class _Box:
    def __init__(self) -> None:
        self.waiting: deque[str | None] = deque()
        self.news = asyncio.Event()

    def put(self, message: str | None) -> None:
        if len(self.waiting) >= MESSAGES_MAX:
            self.waiting.clear()
            message = None
        self.waiting.append(message)
        self.news.set()
