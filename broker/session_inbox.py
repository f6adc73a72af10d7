"""Packet identifiers that the client has in use: what it may send, and what it is still owed.

One space of identifiers serves PUBLISH, SUBSCRIBE and UNSUBSCRIBE [MQTT-2.2.1-3]. Both kinds are bounded.
"""

from enum import Enum

from broker.packets import Publish
from broker.reason_codes import ProtocolViolation, ReasonCode, protocol_error


class Request(Enum):
    """What `Inbox.expect` waits for an answer to."""

    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"


class _Stage(Enum):
    """Of an inbound PUBLISH [4.3.2, 4.3.3]; it leaves the inbox by PUBACK, or by PUBREL at QoS 2."""

    UNANSWERED = "unanswered"
    RECEIVED = "received"


class Arrival(Enum):
    """What an inbound PUBLISH of QoS 1 or 2 is to the owner."""

    NEW = "new"
    REPEAT_UNANSWERED = "repeat_unanswered"
    REPEAT_RECEIVED = "repeat_received"


class Inbox:
    """Raises ProtocolViolation on what the client does wrong, ValueError on a wrong answer of the owner."""

    __slots__ = ("_may_repeat", "_publishes", "_receive_maximum", "_requests")

    def __init__(self, receive_maximum: int, may_repeat: bool) -> None:
        """`may_repeat`: 3.1.1 clients may send a PUBLISH again, with DUP, on the same connection. MQTT 5 clients
        must not [MQTT-4.4.0-1]."""
        self._receive_maximum = receive_maximum
        self._may_repeat = may_repeat
        self._publishes: dict[int, tuple[int, _Stage]] = {}
        self._requests: dict[int, tuple[Request, int]] = {}

    def arrive(self, packet: Publish, packet_id: int) -> Arrival:
        """A PUBLISH of QoS 1 or 2. 0x93 when more than the receive maximum are unanswered [MQTT-3.3.4-7]."""
        known = self._publishes.get(packet_id)
        if known is not None:
            if not (self._may_repeat and packet.dup and known[0] == packet.qos):
                raise protocol_error("packet identifier is in use")
            return Arrival.REPEAT_RECEIVED if known[1] is _Stage.RECEIVED else Arrival.REPEAT_UNANSWERED
        if packet_id in self._requests:
            raise protocol_error("packet identifier is in use")
        if len(self._publishes) >= self._receive_maximum:
            raise ProtocolViolation(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED, "too many unanswered PUBLISH packets")
        self._publishes[packet_id] = (packet.qos, _Stage.UNANSWERED)
        return Arrival.NEW

    def acknowledge(self, packet_id: int) -> int:
        """The owner took the PUBLISH; returns its QoS."""
        qos, stage = self._publishes.get(packet_id, (0, _Stage.RECEIVED))
        if stage is not _Stage.UNANSWERED:
            raise ValueError("no PUBLISH with this packet id waits for its acknowledgement")
        if qos == 1:
            del self._publishes[packet_id]
        else:
            self._publishes[packet_id] = (qos, _Stage.RECEIVED)
        return qos

    def release(self, packet_id: int) -> None:
        """PUBREL [4.3.3]. An unknown one is a repeat whose PUBCOMP was lost, and harmless."""
        qos, stage = self._publishes.get(packet_id, (2, _Stage.RECEIVED))
        if qos != 2 or stage is not _Stage.RECEIVED:
            raise protocol_error("PUBREL without a PUBREC before it")
        self._publishes.pop(packet_id, None)

    def expect(self, request: Request, packet_id: int, filters: int) -> None:
        """A SUBSCRIBE or UNSUBSCRIBE with so many filters came."""
        if packet_id in self._requests or packet_id in self._publishes:
            raise protocol_error("packet identifier is in use")
        if len(self._requests) >= self._receive_maximum:
            raise ProtocolViolation(ReasonCode.QUOTA_EXCEEDED, "too many unanswered requests")
        self._requests[packet_id] = (request, filters)

    def answer(self, request: Request, packet_id: int, filters: int) -> None:
        """The owner answers one, with so many codes."""
        if self._requests.get(packet_id) != (request, filters):
            raise ValueError(f"no {request.value} with this packet id and number of filters waits for an answer")
        del self._requests[packet_id]

    def filters_of(self, packet_id: int) -> int:
        """How many filters the waiting request has; 0 if there is none."""
        return self._requests.get(packet_id, (Request.UNSUBSCRIBE, 0))[1]
