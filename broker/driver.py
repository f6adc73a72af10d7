"""Drives one MQTT session over one wire: its events in order and one at a time, its timers, its end."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, Final

from broker.access import Close
from broker.hall import Hall, logger
from broker.listener import Entrance
from broker.reason_codes import ReasonCode
from broker.session import Session
from broker.session_events import Event, PeerDisconnected, TimedOut, Timer, Violation
from broker.wire import Wire

Step = Coroutine[Any, Any, None]

# A timer that comes later than this says that the loop was held up, by its work or by the machine.
_LATE_S: Final = 0.2
_POSTPONED_MAX: Final = 20

_ENDINGS: Final = (PeerDisconnected, Violation, TimedOut)
_PEER_WENT: Final = frozenset((Close.LEFT, Close.LOST))
_TIMEOUTS: Final = {Timer.CONNECT: Close.IDLE, Timer.KEEP_ALIVE: Close.KEEP_ALIVE, Timer.IDLE: Close.IDLE}
_GOODBYES: Final = {
    Close.TAKEN_OVER: ReasonCode.SESSION_TAKEN_OVER,
    Close.REVOKED: ReasonCode.NOT_AUTHORIZED,
    Close.ADMINISTRATIVE: ReasonCode.ADMINISTRATIVE_ACTION,
    Close.OVERLOADED: ReasonCode.SERVER_BUSY,
    Close.SHUTTING_DOWN: ReasonCode.SERVER_SHUTTING_DOWN,
    Close.VIOLATION: ReasonCode.MESSAGE_RATE_TOO_HIGH,
    Close.FAILED: ReasonCode.UNSPECIFIED_ERROR,
}


class SessionDriver(ABC):
    """The half of a connection that knows the event loop; what events mean is its subclass's."""

    __slots__ = (
        "_flush_due", "_hall", "_postponed", "_pump", "_queue", "_reason", "_session", "_timer", "_timer_at_s", "_wire",
        "address",
    )  # fmt: skip

    def __init__(self, hall: Hall, entrance: Entrance) -> None:
        self._hall = hall
        self._wire = Wire(hall.loop, entrance.stack(), self, entrance.preface())
        self.address = ""
        self._session = Session(hall.limits.session, hall.clock())
        self._queue: list[Event] = []
        self._pump: asyncio.Task[None] | None = None
        self._flush_due = False
        self._reason: Close | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._postponed = 0

    @abstractmethod
    def wire_up(self, address: str) -> None: ...

    @abstractmethod
    def _handle(self, event: Event) -> Step | None:
        """Settle it, or say what has to be awaited for it. An ending never comes here."""

    @abstractmethod
    def _deadline(self) -> float | None:
        """When ``_on_time`` is due."""

    @abstractmethod
    def _on_time(self, now: float) -> None: ...

    @abstractmethod
    def _on_ended(self, reason: Close) -> None:
        """Once, as soon as the session is over."""

    @abstractmethod
    def _on_rest(self) -> None:
        """Nothing is being awaited any more."""

    @abstractmethod
    def _observe(self, action: str, reason: str) -> None: ...

    @property
    def protocol(self) -> asyncio.Protocol:
        """What the event loop talks to."""
        return self._wire

    @property
    def _is_dismissed(self) -> bool:
        """Ended by us, not by its peer: what it said and was not handled yet counts no more."""
        return self._reason is not None and self._reason not in _PEER_WENT

    def close(self, reason: Close) -> None:
        """Tell an MQTT 5 peer why, and close; nothing more is handled."""
        if not self._session.should_close:
            self._session.disconnect(_GOODBYES.get(reason, ReasonCode.SUCCESS))
            self._end(reason)

    def vanish(self, reason: Close) -> None:
        """Close at once, without a word."""
        self.close(reason)
        self._wire.abort()

    def bytes_received(self, data: bytes) -> None:
        self._take(self._session.receive(data, self._hall.clock()))

    def wire_named(self, address: str) -> None:
        self.address = address

    def wire_broken(self, reason: str) -> None:
        self._observe("packet.violation", reason)
        self.close(Close.VIOLATION)

    def wire_lost(self) -> None:
        if not self._session.closed:
            self._take(self._session.connection_lost())
            self._on_wire_lost()

    @abstractmethod
    def _on_wire_lost(self) -> None: ...

    def _take(self, events: list[Event]) -> None:
        """In order; what comes while an earlier one is being awaited waits, and so does the peer."""
        for event in events:
            if isinstance(event, _ENDINGS):
                self._ended_by(event)
            elif self._pump is not None:
                self._queue.append(event)
                self._hold()
            elif (step := self._handle(event)) is not None:
                self._pump = self._hall.loop.create_task(self._run(step))
                self._hall.tasks.add(self._pump)
        self._flush()

    async def _run(self, step: Step) -> None:
        try:
            await step
            while self._queue:
                following = self._handle(self._queue.pop(0))
                if following is not None:
                    await following
        except Exception as error:
            # The type only: a message or a traceback could quote the payload.
            logger.error("the application failed on a message: %s", type(error).__name__)
            self._observe("application.failed", type(error).__name__)
            self.close(Close.FAILED)
        finally:
            self._rest()

    def _rest(self) -> None:
        if self._pump is not None:
            self._hall.tasks.discard(self._pump)
            self._pump = None
        self._flush()
        self._wire.resume()
        self._session.go_on(self._hall.clock())
        self._arm()
        self._on_rest()

    def _hold(self) -> None:
        """The peer waits until nothing is being awaited any more."""
        self._wire.hold()
        self._session.hold()

    def _ended_by(self, event: Event) -> None:
        """The peer or a timer ended the session: it is closing by itself."""
        match event:
            case Violation(_, reason):
                self._observe("packet.violation", reason)
                self._end(Close.VIOLATION)
            case TimedOut(timer):
                if timer is Timer.CONNECT:
                    self._observe("connect.timeout", "no_connect")
                self._end(_TIMEOUTS[timer])
            case PeerDisconnected(graceful):
                self._end(Close.LEFT if graceful else Close.LOST)

    def _end(self, reason: Close) -> None:
        """The session is closing: send its last words and let go. What the peer said before it went still counts."""
        self._flush()
        self._wire.close(self._hall.limits.linger_s, wait_for_peer=reason not in _PEER_WENT)
        if self._reason is not None:
            return
        self._reason = reason
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_dismissed:
            self._queue.clear()
        self._on_ended(reason)

    def _arm(self) -> None:
        """Ask for ``_on_time`` unless it comes early enough already."""
        at_s = self._deadline()
        if at_s is None or self._reason is not None:
            return
        if self._timer is not None:
            if self._timer_at_s <= at_s:
                return
            self._timer.cancel()
        self._call_at(at_s)

    def _wake(self) -> None:
        """What came while the loop was held up is read before its sender is judged; that has an end."""
        self._timer = None
        now = self._hall.clock()
        if now - self._timer_at_s > _LATE_S and self._postponed < _POSTPONED_MAX:
            self._postponed += 1
            self._call_at(now + _LATE_S)
            return
        self._postponed = 0
        self._on_time(now)
        self._arm()

    def _call_at(self, at_s: float) -> None:
        self._timer_at_s = at_s
        self._timer = self._hall.loop.call_later(max(0.0, at_s - self._hall.clock()), self._wake)

    def _tick(self, now: float) -> None:
        self._take(self._session.tick(now))

    def _flush_soon(self) -> None:
        """Once for all that is said in this turn of the loop."""
        if not self._flush_due:
            self._flush_due = True
            self._hall.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        output = self._session.take_output()
        if output:
            self._wire.write(output)
