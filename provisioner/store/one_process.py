"""``Shared`` for a store that one process alone has open (tinydb, sqlite): its own messages and leases, in memory."""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from provisioner.model.errors import InvalidInput, Problem, Unavailable
from provisioner.store.fanout import Fanout

MESSAGE_BYTES_MAX = 7_900  # what PostgreSQL carries, so that nothing works here that fails there


def check_message(message: str) -> None:
    """Raises InvalidInput for what no store carries to another process."""
    size = len(message.encode("utf-8", "surrogatepass"))
    if not 0 < size <= MESSAGE_BYTES_MAX or "\0" in message or any("\ud800" <= c <= "\udfff" for c in message):
        rule = f"must be text of 1 to {MESSAGE_BYTES_MAX:,} bytes without NUL"
        raise InvalidInput([Problem("message", rule, f"text of {size} bytes")])


@dataclass(frozen=True, slots=True)
class _Lease:
    holder: str
    fence: int
    until_s: float


class OneProcess:
    """clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._fanout = Fanout()
        self._leases: dict[str, _Lease] = {}  # one entry a name, of which the program has a handful
        self._fence = 0
        self._closed = False

    async def notify(self, message: str) -> None:
        check_message(message)
        self._check_open()
        self._fanout.send(message)

    def signals(self) -> AsyncIterator[str | None]:
        return self._fanout.listen()

    async def acquire(self, name: str, holder: str, seconds: float) -> int | None:
        self._check_open()
        held = self._held(name)
        if held is None:
            self._fence += 1
            held = _Lease(holder, self._fence, 0.0)
        elif held.holder != holder:
            return None
        self._leases[name] = _Lease(holder, held.fence, self._clock() + seconds)
        return held.fence

    async def renew(self, name: str, fence: int, seconds: float) -> bool:
        self._check_open()
        held = self._held(name)
        if held is None or held.fence != fence:
            return False
        self._leases[name] = _Lease(held.holder, fence, self._clock() + seconds)
        return True

    async def release(self, name: str, fence: int) -> None:
        self._check_open()
        held = self._held(name)
        if held is not None and held.fence == fence:
            del self._leases[name]

    async def close(self) -> None:
        """Ends the iterations of ``signals``; after it every verb raises Unavailable. Closing twice is harmless."""
        self._closed = True
        self._fanout.close()

    def _held(self, name: str) -> _Lease | None:
        lease = self._leases.get(name)
        return lease if lease is not None and self._clock() < lease.until_s else None

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")
