"""One connection of the gate as a sans-IO state machine: bytes and verbs in, events and bytes out.

The owner of the socket
1. makes Session(settings, now) when the connection is up, `now` being monotonic seconds here and everywhere;
2. passes what it reads to `receive` and acts on the events; calls `tick` at `deadline()` (which moves: ask again
   when it is reached);
3. after each call writes `take_output()`, and closes the socket once that is written if `should_close`;
4. says `connection_lost()` when the socket is gone, whoever ended it.

It should stop reading while `state` is AUTHENTICATING or its own write buffer is full; the session bounds
everything else. Verbs raise IllegalMove and change nothing when the state does not allow them: after an await, look
at `state` first.
"""

from collections.abc import Sequence

from broker.session_events import Event
from broker.session_settings import Refusal, SessionSettings
from broker.session_state import State


class OutboundFull(Exception):
    """`publish` found no place left in flight or in the queue; nothing was sent or kept."""


class MessageTooLarge(Exception):
    """`publish` met the client's Maximum Packet Size [MQTT-3.1.2-24]; nothing was sent or kept."""

    def __init__(self, packet_bytes: int, packet_bytes_max: int) -> None:
        super().__init__(f"packet of {packet_bytes} bytes, the client takes {packet_bytes_max}")
        self.packet_bytes = packet_bytes
        self.packet_bytes_max = packet_bytes_max


class Session:
    """See the module's docstring for the order of calls."""

    def __init__(self, settings: SessionSettings, now: float) -> None:
        raise NotImplementedError

    @property
    def state(self) -> State:
        """Where the connection stands."""
        raise NotImplementedError

    @property
    def should_close(self) -> bool:
        """True when the transport is to be closed as soon as `take_output()` is written."""
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        """True after `connection_lost`."""
        raise NotImplementedError

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes of the peer. Never raises, whatever they are; ignored once the session is closing."""
        raise NotImplementedError

    def take_output(self) -> bytes:
        """The bytes to send, possibly none; each is handed out once."""
        raise NotImplementedError

    def deadline(self) -> float | None:
        """When to call `tick`, or None: nothing is timed (AUTHENTICATING: the owner bounds its own check)."""
        raise NotImplementedError

    def tick(self, now: float) -> list[Event]:
        """Run what is due at `now`; harmless when nothing is."""
        raise NotImplementedError

    def connection_lost(self) -> list[Event]:
        """The transport ended. PeerDisconnected(graceful=False) unless the session was closing anyway."""
        raise NotImplementedError

    def accept(self, now: float) -> list[Event]:
        """Answer the CONNECT with success; returns the events of what the client had sent behind it."""
        raise NotImplementedError

    def refuse(self, kind: Refusal, reason_string: str | None = None) -> None:
        """Answer the CONNECT with a refusal and close; MQTT 5 clients that want it get the reason string."""
        raise NotImplementedError

    def answer_subscribe(self, packet_id: int, grants: Sequence[int]) -> None:
        """SUBACK: for each filter the granted QoS (0 or 1), or a reason code >= 0x80, which 3.1.1 gets as 0x80.

        ValueError on an unknown packet id, a wrong number of grants or a code that SUBACK cannot carry.
        """
        raise NotImplementedError

    def answer_unsubscribe(self, packet_id: int, codes: Sequence[int] | None = None) -> None:
        """UNSUBACK; `codes` (MQTT 5 only) default to success. ValueError as for answer_subscribe."""
        raise NotImplementedError

    def acknowledge(self, packet_id: int, reason_code: int = 0) -> None:
        """PUBACK (QoS 1) or PUBREC (QoS 2) for a PublishReceived; 3.1.1 has no reason codes and gets the plain one.

        ValueError on an unknown packet id or a code that PUBACK cannot carry.
        """
        raise NotImplementedError

    def publish(self, topic: str, payload: bytes, now: float) -> int:
        """Send with QoS 1, at once or when earlier messages are acknowledged; Acknowledged will name the returned
        packet id. Raises OutboundFull or MessageTooLarge.
        """
        raise NotImplementedError

    def publish_at_most_once(self, topic: str, payload: bytes) -> None:
        """Send with QoS 0: for a filter that was granted with QoS 0. Raises MessageTooLarge."""
        raise NotImplementedError

    def disconnect(self, reason_code: int = 0, reason_string: str | None = None) -> None:
        """End an open session: MQTT 5 is told why by DISCONNECT, 3.1.1 just loses the connection."""
        raise NotImplementedError
