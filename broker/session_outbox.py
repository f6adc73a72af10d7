"""Our QoS 1 messages on one connection: in flight, waiting, sent again. Holds encoded packets only, and bounded."""

from dataclasses import dataclass
from typing import Final

from broker.packets import PACKET_ID_MAX

_DUP: Final = 0x08


class OutboundFull(Exception):
    """No place is left in flight or in the queue; nothing was sent or kept."""


@dataclass(slots=True)
class _Sent:
    frame: bytes
    resend_at: float
    resends: int = 0


class Outbox:
    """`in_flight_max` is already the smaller of ours and the client's Receive Maximum [MQTT-3.3.4-9]."""

    __slots__ = (
        "_bytes_held", "_bytes_max", "_in_flight", "_in_flight_max", "_last_packet_id", "_messages_max",
        "_resend_max", "_resend_s", "_waiting",
    )  # fmt: skip

    def __init__(
        self, in_flight_max: int, queue_messages_max: int, bytes_max: int, resend_s: float, resend_max: int
    ) -> None:
        """`resend_max` has to be 0 for MQTT 5, which forbids to send again on a live connection [MQTT-4.4.0-1]."""
        self._in_flight_max = in_flight_max
        self._messages_max = in_flight_max + queue_messages_max
        self._bytes_max = bytes_max
        self._resend_s = resend_s
        self._resend_max = resend_max
        self._last_packet_id = 0
        self._bytes_held = 0
        self._in_flight: dict[int, _Sent] = {}
        self._waiting: dict[int, bytes] = {}

    def free_packet_id(self) -> int:
        """An identifier that no message of ours uses [MQTT-2.2.1-4]. The bound on messages keeps most of them free."""
        packet_id = self._last_packet_id % PACKET_ID_MAX + 1
        while packet_id in self._in_flight or packet_id in self._waiting:
            packet_id = packet_id % PACKET_ID_MAX + 1
        return packet_id

    def put(self, packet_id: int, frame: bytes, now: float) -> bytes:
        """Keep the encoded PUBLISH; returns what is to be sent now: the packet, or nothing while it has to wait."""
        messages = len(self._in_flight) + len(self._waiting)
        if messages >= self._messages_max or self._bytes_held + len(frame) > self._bytes_max:
            raise OutboundFull
        self._last_packet_id = packet_id
        self._bytes_held += len(frame)
        if len(self._in_flight) < self._in_flight_max:
            self._in_flight[packet_id] = _Sent(frame, now + self._resend_s)
            return frame
        self._waiting[packet_id] = frame
        return b""

    def acknowledge(self, packet_id: int, now: float) -> bytes | None:
        """PUBACK: the next waiting packet, to be sent now, or nothing; None if the identifier is not in flight."""
        sent = self._in_flight.pop(packet_id, None)
        if sent is None:
            return None
        self._bytes_held -= len(sent.frame)
        if not self._waiting:
            return b""
        next_id = next(iter(self._waiting))
        frame = self._waiting.pop(next_id)
        self._in_flight[next_id] = _Sent(frame, now + self._resend_s)
        return frame

    def resend_at(self) -> float | None:
        """When `due` has something."""
        return min((sent.resend_at for sent in self._in_flight.values() if self._may_resend(sent)), default=None)

    def due(self, now: float) -> bytes:
        """The packets whose PUBACK is overdue, in their first order [4.6], with DUP [MQTT-3.3.1-1]."""
        output = bytearray()
        for sent in self._in_flight.values():
            if self._may_resend(sent) and now >= sent.resend_at:
                sent.resends += 1
                sent.resend_at = now + self._resend_s
                output.append(sent.frame[0] | _DUP)
                output += sent.frame[1:]
        return bytes(output)

    def _may_resend(self, sent: _Sent) -> bool:
        return sent.resends < self._resend_max
