"""One device on a live link: carries out what the device wants, tells it what happened, and keeps its record."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from device_sim.actions import (
    Action,
    Connect,
    ConnectRefused,
    Disconnect,
    Disconnected,
    Event,
    Log,
    Persist,
    Publish,
    Subscribe,
    Target,
)
from device_sim.faults import Faults
from device_sim.gateway import Gateway, Step
from device_sim.link import Link, LinkOptions
from device_sim.state import DeviceState, Outcome, Phase

EVENTS_KEPT = 64


class Slots:
    """At most `limit` devices on their walk at once; the others get their turn in the order in which they came."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: deque[Callable[[], bool]] = deque()

    def take(self, go: Callable[[], bool]) -> None:
        """Calls go, now or later; it says whether the turn is still wanted."""
        if not self._free:
            self._waiting.append(go)
        elif go():
            self._free -= 1

    def give(self) -> None:
        while self._waiting:
            if self._waiting.popleft()():
                return
        self._free += 1


@dataclass(slots=True)
class Record:
    """What one device went through. walk_s: from its first connect to connected, None if it never came there."""

    answers: Counter[str] = field(default_factory=Counter)
    events: deque[Log] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    started_s: float | None = None
    walk_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """stay_s: how long a connected device stays, None until `close`. save, observe: called on the loop's thread."""

    link: LinkOptions
    slots: Slots
    expect: tuple[Outcome, ...] = (Outcome.CONNECTED,)
    stay_s: float | None = None
    save: Callable[[DeviceState], None] = lambda state: None
    observe: Callable[[str, Log], None] = lambda client_id, log: None


class DeviceRunner:
    """`finished` is set when the device is where it is expected, or can get no further by itself. failure: what kept
    its state from being saved, which ended it there."""

    def __init__(self, device: Gateway, options: RunnerOptions, faults: Faults) -> None:
        self.device = device
        self.faults = faults
        self.record = Record()
        self.finished = asyncio.Event()
        self.failure: OSError | None = None
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._has_slot = self._is_off = False

    def start(self) -> None:
        self._perform(self.device.start(self._loop.time()))

    async def close(self) -> None:
        """Power off, in order: DISCONNECT when there is a connection."""
        link = self._link
        self._switch_off()
        if link is not None:
            await link.wait_closed()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, ConnectRefused | Disconnected):
            self._link = None
        if not self._is_off:
            self._perform(self.device.receive(event, self._loop.time()))

    def _on_timer(self) -> None:
        self._perform(self.device.tick(self._loop.time()))

    def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Connect(target):
                    self._connect(target)
                case Persist(state):
                    if not self._save(state):
                        return
                case Log():
                    self._note(action)
                case _ if self._link is None:
                    pass  # the line broke meanwhile; the device is about to hear of it
                case Subscribe(filters):
                    self._link.subscribe(filters)
                case Publish(topic, payload, qos, asks):
                    self._link.publish(topic, payload, qos, asks=asks)
                case Disconnect():
                    self._link.disconnect()
        self._settle()

    def _save(self, state: DeviceState) -> bool:
        """A device that cannot remember goes no further: what it does next must be on its disk before."""
        try:
            self._options.save(state)
        except OSError as error:
            self.failure = error
            self.finished.set()
            self._switch_off()
        return self.failure is None

    def _connect(self, target: Target) -> None:
        if self._has_slot:
            self._open(target)
        else:
            self._options.slots.take(lambda: self._begin(target))

    def _begin(self, target: Target) -> bool:
        """False when it was switched off while it waited for its turn."""
        if self._is_off:
            return False
        self._has_slot = True
        self._open(target)
        return True

    def _open(self, target: Target) -> None:
        if self.record.started_s is None:
            self.record.started_s = self._loop.time()
        self._link = Link(self._options.link, self.faults, self._on_event)
        self._link.connect(target)

    def _note(self, log: Log) -> None:
        self.record.events.append(log)
        if log.event == "RES":
            self.record.answers[log.detail.partition(":")[0]] += 1
        self._options.observe(self.device.state.client_id, log)

    def _settle(self) -> None:
        """After every turn: the next timer, the slot, and whether this was it."""
        if self._timer is not None:
            self._timer.cancel()
        due_s = self.device.due_s
        self._timer = None if due_s is None else self._loop.call_at(due_s, self._on_timer)
        if self.device.step in (Step.OFFLINE, Step.HOME):
            self._return_slot()
        if not self.finished.is_set() and (self.device.is_over or self.device.outcome in self._options.expect):
            self._finish()

    def _finish(self) -> None:
        self.finished.set()
        if self.device.state.phase is not Phase.CONNECTED:
            self._switch_off()
            return
        if self.record.started_s is not None:
            self.record.walk_s = self._loop.time() - self.record.started_s
        if self._options.stay_s is not None:
            self._loop.call_later(self._options.stay_s, self._switch_off)

    def _switch_off(self) -> None:
        self._is_off = True
        if self._timer is not None:
            self._timer.cancel()
        if self._link is not None:
            self._link.disconnect()
        self._return_slot()

    def _return_slot(self) -> None:
        if self._has_slot:
            self._has_slot = False
            self._options.slots.give()
