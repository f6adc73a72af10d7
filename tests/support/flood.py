"""Strangers who keep coming: connections opened at a steady rate by a thread of their own."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.support.device import Address


class Flood:
    """``per_s`` new connections; each says what ``words`` gives for its number and stays until it is sent away.

    ``told``: the fourth byte of what it was answered (the code of a CONNACK), -1 when it was closed without one."""

    def __init__(
        self, gate: Address, per_s: float, words: Callable[[int], bytes], source: Callable[[int], str], stay_s: float
    ) -> None:
        self.told: Counter[int] = Counter()
        self.opened = 0
        self._gate, self._per_s, self._words, self._source, self._stay_s = gate, per_s, words, source, stay_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    async def _run(self) -> None:
        began_s = time.monotonic()
        tasks: list[asyncio.Task[None]] = []
        while not self._ended.is_set():
            due = int((time.monotonic() - began_s) * self._per_s)
            tasks += [asyncio.create_task(self._one(number)) for number in range(self.opened, due)]
            self.opened = len(tasks)
            await asyncio.sleep(0.005)
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, number: int) -> None:
        code = -1
        try:
            reader, writer = await asyncio.open_connection(
                self._gate.host, self._gate.port, local_addr=(self._source(number), 0)
            )
        except OSError:
            self.told[code] += 1
            return
        try:
            async with asyncio.timeout(self._stay_s):
                writer.write(self._words(number))
                answer = await reader.read(4)
                code = answer[3] if len(answer) == 4 else -1
                await reader.read()
        except (OSError, TimeoutError):
            pass
        finally:
            self.told[code] += 1
            writer.close()
