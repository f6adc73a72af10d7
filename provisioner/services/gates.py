"""What the gates on one store say to each other: who is there, which device came where, whom each is answering.

All of it is said by signals, which are hints and may get lost with the store. What has to hold for certain is settled
by the records: a grant names the connection that it is being told to, and every gate follows the audit log.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from provisioner.model.errors import Unavailable
from provisioner.model.ports import Shared

log = logging.getLogger(__name__)

HEARTBEAT_S = 0.5
SILENT_S = 4.0  # after that a gate counts as gone
GATHER_S = 0.01  # what is said meanwhile goes out as one signal
ANSWER_S = 1.0
AGAIN_S = 0.5
WAITING_MAX = 10_000
_SIGNAL_BYTES_MAX = 7_000

Word = Sequence[Any]


class Door(Protocol):
    """What is done at our own gate because of what another one said."""

    def overtake(self, identity: str, older: Container[str], address: str) -> None: ...
    def is_engaged(self, identity: str, id: str) -> bool: ...
    def lock_out(self, address: str, username: str, client_id: str) -> None: ...
    def be_one_of(self, gates: int) -> None: ...


@dataclass(slots=True)
class _Other:
    """A gate that was heard: when last, what it is called and how many connections it has."""

    at_s: float
    name: str = ""
    connections: int = 0


class Gates:
    """``run`` says and hears; all else never blocks. id: of this process, drawn anew at each start."""

    def __init__(self, shared: Shared, id: str, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """name: for people."""
        self._shared, self.id, self.name, self._clock = shared, id, name, clock
        self._door: Door | None = None
        self._connections: Callable[[], int] = int
        self._elsewhere: Callable[[str, str], None] = _nobody
        self._heeds: Callable[[Word], None] = _nothing
        self._unheeded: dict[int, tuple[set[str], asyncio.Event]] = {}
        self._waiting: deque[Word] = deque(maxlen=WAITING_MAX)
        self._said = asyncio.Event()
        self._heard: dict[str, _Other] = {}
        self._since_s: float | None = None  # when we began to listen
        self._open: dict[str, str] = {}  # connection -> identity
        self._announced: dict[str, set[str]] = {}  # identity -> connections that all gates have heard of
        self._questions: dict[int, asyncio.Future[bool]] = {}
        self._numbers = itertools.count(1)
        self._leases: dict[str, int] = {}

    def attend(self, door: Door, connections: Callable[[], int], elsewhere: Callable[[str, str], None]) -> None:
        """door: our gate. elsewhere: is told of identity and address whenever a device came to another gate."""
        self._door, self._connections, self._elsewhere = door, connections, elsewhere

    def heed(self, heeds: Callable[[Word], None]) -> None:
        """Who is told what another gate made known."""
        self._heeds = heeds

    async def make_known(self, *word: Any) -> None:
        """Returns when every other gate that is there has heeded it; a second later if one of them does not."""
        others = {id for id in self._heard if id != self.id and self._may_live(id)}
        if not others:
            return
        number, done = next(self._numbers), asyncio.Event()
        self._unheeded[number] = others, done
        self._say("known", number, *word)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    await done.wait()
        finally:
            del self._unheeded[number]

    def mark(self, connection: str) -> str:
        """What names a connection of ours to every gate."""
        return f"{self.id}/{connection}"

    def arrived(self, identity: str, connection: str, address: str) -> None:
        """A device was let in here: older connections of it at other gates have to go."""
        self._open[connection] = identity
        self._say("arrived", identity, connection, address)

    def left(self, connection: str) -> None:
        identity = self._open.pop(connection, None)
        announced = self._announced.get(identity or "")
        if identity is not None and announced is not None:
            announced.discard(connection)
            if not announced:
                del self._announced[identity]

    def locked_out(self, address: str, username: str, client_id: str) -> None:
        """Too many failed logins in a row were heard here."""
        self._say("locked", address, username, client_id)

    async def is_answering(self, mark: str, identity: str) -> bool:
        """Whether the connection of that mark is being answered at another gate just now. A gate that does not reply
        and is not heard any more is gone. Raises Unavailable when the other gates cannot be asked."""
        gate, _, connection = mark.partition("/")
        if gate == self.id or not self._may_live(gate):
            return False
        asked_s, number = self._clock(), next(self._numbers)
        answer = self._questions[number] = asyncio.get_running_loop().create_future()
        try:
            self._say("ask", gate, number, identity, connection)
            async with asyncio.timeout(ANSWER_S):
                verdict: bool = await answer
                return verdict
        except TimeoutError:
            if not self._is_heard_since(self.id, asked_s):
                raise Unavailable("the other gates cannot be asked") from None
            return self._is_heard_since(gate, asked_s)
        finally:
            del self._questions[number]

    async def lead(self, lease: str, seconds: float) -> int | None:
        """The fencing number, when it is this gate that does for all of them what the lease is for. Raises
        Unavailable."""
        fence = await self._shared.acquire(lease, self.id, seconds)
        if fence is not None:
            self._leases[lease] = fence
        return fence

    async def leads(self, lease: str, fence: int, seconds: float) -> bool:
        """Whether it still is. Raises Unavailable."""
        return await self._shared.renew(lease, fence, seconds)

    def living(self) -> Sequence[Mapping[str, Any]]:
        """Every gate that is there, this one among them, by name."""
        others = [other for id, other in self._heard.items() if id != self.id and self._may_live(id)]
        known = [(other.name, other.connections) for other in others] + [(self.name, self._connections())]
        return [{"name": name, "connections": connections} for name, connections in sorted(known)]

    async def run(self) -> None:
        """Until cancelled; then it takes its leave of the others."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                group.create_task(self._speak())
                group.create_task(self._beat())
        finally:
            with contextlib.suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(AGAIN_S):
                    await self._shared.notify(json.dumps([self.id, ["gone"]]))
                    for lease, fence in self._leases.items():
                        await self._shared.release(lease, fence)

    def _say(self, *word: Any) -> None:
        self._waiting.append(word)
        self._said.set()

    async def _beat(self) -> None:
        while True:
            self._say("here", self.name, self._connections())
            self._count()
            await asyncio.sleep(HEARTBEAT_S)

    async def _speak(self) -> None:
        while True:
            await self._said.wait()
            await asyncio.sleep(GATHER_S)
            self._said.clear()
            while self._waiting:
                words = self._some()
                try:
                    if words:
                        await self._shared.notify(json.dumps([self.id, *words]))
                except Unavailable as error:
                    log.debug("signals wait: %s", error)
                    self._waiting.extendleft(reversed(words))
                    await asyncio.sleep(AGAIN_S)

    def _some(self) -> list[Word]:
        """As many as one signal carries, in order; none of a connection that has left already, for by now its device
        may be at another gate."""
        words, left = list[Word](), _SIGNAL_BYTES_MAX
        while self._waiting and ((left := left - len(json.dumps(self._waiting[0])) - 2) > 0 or not words):
            word = self._waiting.popleft()
            if word[0] != "arrived" or word[2] in self._open:
                words.append(word)
        return words

    async def _listen(self) -> None:
        while True:
            try:
                async for signal in self._shared.signals():
                    self._since_s = self._clock() if self._since_s is None else self._since_s
                    if signal is not None:
                        self._hear(signal)
                return
            except Unavailable as error:
                log.warning("the other gates are not heard: %s", error)
                await asyncio.sleep(AGAIN_S)

    def _hear(self, signal: str) -> None:
        try:
            said = json.loads(signal)
        except ValueError:
            return  # of another program on the same database
        match said:
            case [str(gate), *words]:
                other = self._heard.setdefault(gate, _Other(0.0))
                other.at_s = self._clock()
                for word in words:
                    self._heed(gate, other, word)

    def _heed(self, gate: str, other: _Other, word: Word) -> None:
        match word:
            case ["here", name, connections]:
                other.name, other.connections = name, connections
            case ["gone"]:
                other.at_s = self._clock() - SILENT_S
            case ["arrived", identity, connection, address]:
                self._heed_arrival(gate, identity, connection, address)
            case ["locked", address, username, client_id] if gate != self.id and self._door:
                self._door.lock_out(address, username, client_id)
            case ["ask", self.id, number, identity, connection] if self._door:
                self._say("reply", gate, number, self._door.is_engaged(identity, connection))
            case ["known", number, *known] if gate != self.id:
                self._heeds(known)
                self._say("heeded", gate, number)
            case ["heeded", self.id, number] if number in self._unheeded:
                left, done = self._unheeded[number]
                left.discard(gate)
                if not left:
                    done.set()
            case ["reply", self.id, number, verdict]:
                question = self._questions.get(number)
                if question is not None and not question.done():
                    question.set_result(bool(verdict))

    def _heed_arrival(self, gate: str, identity: str, connection: str, address: str) -> None:
        """All gates hear all arrivals in the same order, so that of two that came at once each knows the newer one:
        whoever was not heard of yet when another arrival is heard is newer than that."""
        if gate != self.id:
            if self._door is not None:
                self._door.overtake(identity, frozenset(self._announced.get(identity, ())), address)
            self._elsewhere(identity, address)
        elif connection in self._open:
            self._announced.setdefault(identity, set()).add(connection)

    def _count(self) -> None:
        if self._door is not None and self._may_live(self.id):  # who hears nothing knows no number
            others = [id for id in self._heard if id != self.id and self._may_live(id)]
            self._door.be_one_of(1 + len(others))
            for id in [id for id, other in self._heard.items() if self._clock() - other.at_s > 60 * SILENT_S]:
                del self._heard[id]

    def _may_live(self, gate: str) -> bool:
        """One that was never heard may be there as long as we have not listened for long."""
        other = self._heard.get(gate)
        at_s = other.at_s if other is not None else self._since_s
        return at_s is None or self._clock() - at_s < SILENT_S

    def _is_heard_since(self, gate: str, at_s: float) -> bool:
        other = self._heard.get(gate)
        return other is not None and other.at_s >= at_s


def _nobody(identity: str, address: str) -> None:
    """Nobody asks where else devices come."""


def _nothing(word: Word) -> None:
    """Nobody asks what other gates know."""
