"""The time-outs of one session. All times are monotonic seconds that the caller passes in."""

from math import inf, isinf
from typing import Final

from broker.session_events import Timer

# [MQTT-3.1.2-24] of 3.1.1, [MQTT-3.1.2-22] of 5
KEEP_ALIVE_FACTOR: Final = 1.5


class Clock:
    """Runs the CONNECT deadline from the start, nothing after `stop`, keep-alive and idle time from `open` on."""

    __slots__ = ("_connect_at", "_idle_s", "_is_deaf", "_keep_alive_s", "_packet_at", "_request_at")

    def __init__(self, now: float, connect_deadline_s: float) -> None:
        self._connect_at = now + connect_deadline_s
        self._keep_alive_s = self._idle_s = inf
        self._packet_at = self._request_at = now
        self._is_deaf = False

    def stop(self) -> None:
        """A CONNECT came; how long to check it is the owner's affair."""
        self._connect_at = inf

    def open(self, now: float, keep_alive_s: int, idle_s: float) -> None:
        """The CONNECT was accepted. Keep-alive 0 means none [3.1.2.10]."""
        self._keep_alive_s = keep_alive_s * KEEP_ALIVE_FACTOR if keep_alive_s else inf
        self._idle_s = idle_s
        self._packet_at = self._request_at = now

    def hold(self) -> None:
        """Nothing is read: the silence is not the peer's."""
        self._is_deaf = True

    def go_on(self, now: float) -> None:
        """What it said meanwhile is about to be read."""
        if self._is_deaf:
            self._is_deaf, self._packet_at = False, now

    def saw_packet(self, now: float) -> None:
        """Any whole packet keeps the connection alive; bytes of one do not."""
        self._packet_at = now

    def saw_request(self, now: float) -> None:
        """PUBLISH, SUBSCRIBE and UNSUBSCRIBE also keep it from being idle."""
        self._request_at = now

    def deadline(self) -> float | None:
        """When the first time-out is due, None if none runs."""
        first = min(self._connect_at, self._silent_at, self._request_at + self._idle_s)
        return None if isinf(first) else first

    def expired(self, now: float) -> Timer | None:
        """A time-out that is due."""
        if now >= self._connect_at:
            return Timer.CONNECT
        if now >= self._silent_at:
            return Timer.KEEP_ALIVE
        if now >= self._request_at + self._idle_s:
            return Timer.IDLE
        return None

    @property
    def _silent_at(self) -> float:
        return inf if self._is_deaf else self._packet_at + self._keep_alive_s
