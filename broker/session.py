"""One connection of the gate as a sans-IO state machine: bytes and verbs in, events and bytes out.

The owner of the socket
1. makes Session(settings, now) when the connection is up, `now` being monotonic seconds here and everywhere;
2. passes what it reads to `receive` and acts on the events; calls `tick` at `deadline()` (which moves: ask again
   when it is reached);
3. after each call writes `take_output()`, and closes the socket once that is written if `should_close`;
4. says `connection_lost()` when the socket is gone, whoever ended it.

It should stop reading while `state` is AUTHENTICATING or its own write buffer is full; the session bounds everything
else. Verbs raise IllegalMove and change nothing when the state does not allow them: after an await, look at `state`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from broker.decoding import Decoder
from broker.packets import (
    V5,
    V311,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    Version,
)
from broker.reason_codes import (
    DISCONNECT_CODES_V5,
    PUBACK_CODES_V5,
    SUBACK_CODES_V5,
    UNSUBACK_CODES_V5,
    ProtocolViolation,
    ReasonCode,
    protocol_error,
)
from broker.session_clock import Clock
from broker.session_connect import connect_event, peer_of, violation_answer, welcome
from broker.session_events import (
    Acknowledged,
    Event,
    PeerDisconnected,
    PublishReceived,
    SubscribeReceived,
    TimedOut,
    Timer,
    UnsubscribeReceived,
    Violation,
)
from broker.session_inbox import Arrival, Inbox, Request
from broker.session_outbox import OutboundFull, Outbox
from broker.session_output import MessageTooLarge, Output
from broker.session_served import check_connect, check_publish, check_subscribe
from broker.session_settings import Refusal, SessionSettings
from broker.session_state import Move, State, moved

__all__ = ["MessageTooLarge", "OutboundFull", "Session"]

# Tuples: members are found by identity there, a set would call Enum's slow hash for each packet.
_READING: Final = (State.AWAITING_CONNECT, State.OPEN)
_ENDED: Final = (State.CLOSING, State.CLOSED)


class Session:
    """See the module's docstring for the order of calls."""

    __slots__ = ("_clock", "_decoder", "_inbox", "_outbox", "_output", "_settings", "_state")

    def __init__(self, settings: SessionSettings, now: float) -> None:
        self._settings = settings
        self._state = State.AWAITING_CONNECT
        self._decoder = Decoder(packet_bytes_max=settings.packet_bytes_max_before_login)
        self._output = Output()
        self._clock = Clock(now, settings.connect_deadline_s)
        # `accept` makes these two, since they depend on what the CONNECT says.
        self._inbox: Inbox
        self._outbox: Outbox

    @property
    def state(self) -> State:
        """Where the connection stands."""
        return self._state

    @property
    def should_close(self) -> bool:
        """True when the transport is to be closed as soon as `take_output()` is written."""
        return self._state in _ENDED

    @property
    def closed(self) -> bool:
        """True after `connection_lost`."""
        return self._state is State.CLOSED

    def take_output(self) -> bytes:
        """The bytes to send, possibly none; each is handed out once."""
        return self._output.take()

    # Bytes of the peer

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes of the peer. Never raises, whatever they are; ignored once the session is closing."""
        if self._state in _ENDED:
            return []
        self._decoder.feed(data)
        return self._read(now)

    def connection_lost(self) -> list[Event]:
        """The transport ended. PeerDisconnected(graceful=False) unless the session was closing anyway."""
        before = self._state
        self._state = moved(before, Move.LOSE)
        return [] if before is State.CLOSING else [PeerDisconnected(graceful=False)]

    def _read(self, now: float) -> list[Event]:
        """Handle what is whole, until the state says to wait; a violation is the last event."""
        events: list[Event] = []
        packets_left = self._settings.packets_per_read_max
        try:
            while self._state in _READING and (packet := self._decoder.next_packet()) is not None:
                if not packets_left:
                    raise ProtocolViolation(ReasonCode.MESSAGE_RATE_TOO_HIGH, "too many packets at once")
                packets_left -= 1
                self._clock.saw_packet(now)
                event = _HANDLERS.get(type(packet), Session._on_unexpected)(self, packet, now)
                if event is not None:
                    events.append(event)
            if (
                self._state is State.AUTHENTICATING
                and self._decoder.buffered_bytes > self._settings.pipelined_bytes_max
            ):
                raise ProtocolViolation(ReasonCode.QUOTA_EXCEEDED, "too much was sent behind the CONNECT")
        except ProtocolViolation as violation:
            events.append(self._violated(violation))
        return events

    def _violated(self, violation: ProtocolViolation) -> Violation:
        code = violation.reason_code
        if self._state is State.OPEN:
            self._output.goodbye(code if code in DISCONNECT_CODES_V5 else ReasonCode.PROTOCOL_ERROR, violation.reason)
        else:
            self._output.add(violation_answer(self._decoder.version, violation))
        self._state = moved(self._state, Move.END)
        return Violation(code, violation.reason)

    # Packets of the client, by type

    def _on_connect(self, packet: Connect, now: float) -> Event:
        """[3.1] Only once [MQTT-3.1.0-2]. The decoder has learned the version from it."""
        if self._state is not State.AWAITING_CONNECT:
            raise protocol_error("second CONNECT")
        version: Version = V5 if self._decoder.version == V5 else V311
        check_connect(packet, version)
        self._output.peer = peer_of(packet, version, self._settings)
        self._state = moved(self._state, Move.CONNECT)
        self._clock.stop()
        return connect_event(packet, version)

    def _on_publish(self, packet: Publish, now: float) -> Event | None:
        """[3.3] QoS 2 in 3.1.1 reaches the owner once; MQTT 5 was told what is not served."""
        check_publish(packet, self._output.peer.version)
        self._clock.saw_request(now)
        if packet.packet_id is not None:
            arrival = self._inbox.arrive(packet, packet.packet_id)
            if arrival is Arrival.REPEAT_RECEIVED:
                self._output.send(PubRec(packet.packet_id))
            if arrival is not Arrival.NEW:
                return None
        return PublishReceived(packet.topic, packet.payload, packet.qos, packet.retain, packet.dup, packet.packet_id)

    def _on_puback(self, packet: PubAck, now: float) -> Event | None:
        """[3.4] One for a message that is not in flight answers a repeat, and says nothing new."""
        following = self._outbox.acknowledge(packet.packet_id, now)
        if following is None:
            return None
        self._output.add(following)
        return Acknowledged(packet.packet_id, packet.code)

    def _on_pubrel(self, packet: PubRel, now: float) -> None:
        """[3.6] PUBCOMP even for an unknown one: the former PUBCOMP may be lost."""
        self._inbox.release(packet.packet_id)
        self._output.send(PubComp(packet.packet_id))

    def _on_subscribe(self, packet: Subscribe, now: float) -> Event:
        """[3.8]"""
        check_subscribe(packet)
        self._clock.saw_request(now)
        self._inbox.expect(Request.SUBSCRIBE, packet.packet_id, len(packet.subscriptions))
        return SubscribeReceived(packet.packet_id, packet.subscriptions)

    def _on_unsubscribe(self, packet: Unsubscribe, now: float) -> Event:
        """[3.10]"""
        self._clock.saw_request(now)
        self._inbox.expect(Request.UNSUBSCRIBE, packet.packet_id, len(packet.topic_filters))
        return UnsubscribeReceived(packet.packet_id, packet.topic_filters)

    def _on_pingreq(self, packet: PingReq, now: float) -> None:
        """[3.12]"""
        self._output.send(PingResp())

    def _on_disconnect(self, packet: Disconnect, now: float) -> Event:
        """[3.14] Any code but 0 asks for the Will: the peer gave up rather than left [3.14.2.1]."""
        self._state = moved(self._state, Move.END)
        return PeerDisconnected(graceful=packet.code == ReasonCode.SUCCESS)

    def _on_unexpected(self, packet: Packet, now: float) -> None:
        raise protocol_error("packet is not for a server, or not for this connection")

    # Answers and messages of the owner

    def accept(self, now: float) -> list[Event]:
        """Answer the CONNECT with success; returns the events of what the client had sent behind it."""
        self._state = moved(self._state, Move.ACCEPT)
        settings, peer = self._settings, self._output.peer
        self._inbox = Inbox(settings.receive_maximum, may_repeat=peer.version == V311)
        self._outbox = Outbox(
            min(settings.in_flight_max, peer.receive_maximum),
            settings.queue_messages_max,
            settings.unacknowledged_bytes_max,
            settings.resend_s,
            settings.resend_max if peer.version == V311 else 0,
        )
        self._decoder.packet_bytes_max = settings.packet_bytes_max
        self._clock.open(now, peer.keep_alive_s, settings.idle_s_max)
        self._output.add(welcome(peer, settings))
        return self._read(now)

    def refuse(self, kind: Refusal, reason_string: str | None = None) -> None:
        """Answer the CONNECT with a refusal and close; MQTT 5 clients that want it get the reason string."""
        self._state = moved(self._state, Move.REFUSE)
        self._output.refuse(kind, reason_string)

    def answer_subscribe(self, packet_id: int, grants: Sequence[int]) -> None:
        """SUBACK: for each filter the granted QoS (0 or 1), or a reason code >= 0x80, which 3.1.1 gets as 0x80.

        ValueError on an unknown packet id, a wrong number of grants or a code that SUBACK cannot carry.
        """
        moved(self._state, Move.TALK)
        if 2 in grants or not SUBACK_CODES_V5.issuperset(grants):
            raise ValueError("a grant is neither QoS 0, QoS 1 nor a reason code of SUBACK")
        self._inbox.answer(Request.SUBSCRIBE, packet_id, len(grants))
        if self._output.peer.version == V311:
            grants = [min(grant, ReasonCode.UNSPECIFIED_ERROR) for grant in grants]
        self._output.send(SubAck(packet_id, tuple(grants)))

    def answer_unsubscribe(self, packet_id: int, codes: Sequence[int] | None = None) -> None:
        """UNSUBACK; `codes` (MQTT 5 only) default to success. ValueError as for answer_subscribe."""
        moved(self._state, Move.TALK)
        if codes is None:
            codes = (ReasonCode.SUCCESS,) * self._inbox.filters_of(packet_id)
        if not UNSUBACK_CODES_V5.issuperset(codes):
            raise ValueError("a code is not a reason code of UNSUBACK")
        self._inbox.answer(Request.UNSUBSCRIBE, packet_id, len(codes))
        self._output.send(UnsubAck(packet_id, tuple(codes) if self._output.peer.version == V5 else ()))

    def acknowledge(self, packet_id: int, reason_code: int = 0) -> None:
        """PUBACK (QoS 1) or PUBREC (QoS 2) for a PublishReceived; 3.1.1 has no reason codes and gets the plain one.

        ValueError on an unknown packet id or a code that PUBACK cannot carry.
        """
        moved(self._state, Move.TALK)
        if reason_code not in PUBACK_CODES_V5:
            raise ValueError("not a reason code of PUBACK")
        qos = self._inbox.acknowledge(packet_id)
        code = reason_code if self._output.peer.version == V5 else 0
        self._output.send(PubAck(packet_id, code) if qos == 1 else PubRec(packet_id, code))

    def publish(self, topic: str, payload: bytes, now: float) -> int:
        """Send with QoS 1, at once or when earlier messages are acknowledged; Acknowledged will name the returned
        packet id. Raises OutboundFull or MessageTooLarge, and ValueError on a topic that is empty or has a wildcard.
        """
        moved(self._state, Move.TALK)
        packet_id = self._outbox.free_packet_id()
        frame = self._output.message(Publish(topic, payload, qos=1, packet_id=packet_id))
        self._output.add(self._outbox.put(packet_id, frame, now))
        return packet_id

    def publish_at_most_once(self, topic: str, payload: bytes) -> None:
        """Send with QoS 0: for a filter that was granted with QoS 0. Raises MessageTooLarge."""
        moved(self._state, Move.TALK)
        self._output.add(self._output.message(Publish(topic, payload)))

    def disconnect(self, reason_code: int = 0, reason_string: str | None = None) -> None:
        """End a session: an open MQTT 5 one is told why by DISCONNECT, all others just lose the connection.

        ValueError on a code that DISCONNECT cannot carry.
        """
        target = moved(self._state, Move.END)
        if reason_code not in DISCONNECT_CODES_V5:
            raise ValueError("not a reason code of DISCONNECT")
        if self._state is State.OPEN:
            self._output.goodbye(reason_code, reason_string)
        self._state = target

    # Time

    def hold(self) -> None:
        """The owner reads nothing until `go_on`: no keep-alive runs out meanwhile."""
        self._clock.hold()

    def go_on(self, now: float) -> None:
        """The owner reads again; harmless when it never stopped."""
        self._clock.go_on(now)

    def deadline(self) -> float | None:
        """When to call `tick`, or None: nothing is timed (AUTHENTICATING: the owner bounds its own check)."""
        if self._state in _ENDED:
            return None
        first = self._clock.deadline()
        resend_at = self._outbox.resend_at() if self._state is State.OPEN else None
        return min((at for at in (first, resend_at) if at is not None), default=None)

    def tick(self, now: float) -> list[Event]:
        """Run what is due at `now`; harmless when nothing is."""
        if self._state in _ENDED:
            return []
        timer = self._clock.expired(now)
        if timer is not None:
            if self._state is State.OPEN:
                self._output.goodbye(_GOODBYE_CODES[timer], None)
            self._state = moved(self._state, Move.END)
            return [TimedOut(timer)]
        if self._state is State.OPEN:
            self._output.add(self._outbox.due(now))
        return []


_GOODBYE_CODES: Final = {
    Timer.KEEP_ALIVE: ReasonCode.KEEP_ALIVE_TIMEOUT,
    Timer.IDLE: ReasonCode.ADMINISTRATIVE_ACTION,
}
_HANDLERS: Final[dict[type[Packet], Callable[[Session, Any, float], Event | None]]] = {
    Connect: Session._on_connect,
    Publish: Session._on_publish,
    PubAck: Session._on_puback,
    PubRel: Session._on_pubrel,
    Subscribe: Session._on_subscribe,
    Unsubscribe: Session._on_unsubscribe,
    PingReq: Session._on_pingreq,
    Disconnect: Session._on_disconnect,
}
