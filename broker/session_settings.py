"""Limits of one session, and the refusals of a CONNECT in both versions' codes."""

from dataclasses import dataclass
from enum import Enum

from broker.decoding import PACKET_BYTES_MAX, PACKET_BYTES_MAX_BEFORE_LOGIN
from broker.packets import KEEP_ALIVE_S_MAX, PACKET_ID_MAX
from broker.reason_codes import ReasonCode


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Every bound of a session. ValueError names the field that is out of range."""

    connect_deadline_s: float = 10.0
    """From construction to a whole CONNECT (F-34)."""
    packet_bytes_max_before_login: int = PACKET_BYTES_MAX_BEFORE_LOGIN
    packet_bytes_max: int = PACKET_BYTES_MAX
    """Announced in MQTT 5 as Maximum Packet Size."""
    pipelined_bytes_max: int = 16_384
    """What a client may send behind its CONNECT before it was accepted."""
    packets_per_read_max: int = 256
    """Packets in one `receive` or `accept`; bounds the list of events that one read can blow up to."""
    keep_alive_s_max: int = 300
    """MQTT 5: imposed on who asks for none or for more. A 3.1.1 client cannot be told; `idle_s_max` ends it."""
    idle_s_max: float = 300.0
    """Without PUBLISH, SUBSCRIBE or UNSUBSCRIBE; a PINGREQ does not count."""
    receive_maximum: int = 20
    """PUBLISHes of QoS 1 and 2 that may be unanswered, and as many SUBSCRIBEs and UNSUBSCRIBEs. Announced in MQTT 5."""
    in_flight_max: int = 8
    """Our QoS 1 messages without their PUBACK; a smaller Receive Maximum of the client wins."""
    queue_messages_max: int = 16
    """Our messages that wait for a free place in flight."""
    unacknowledged_bytes_max: int = 524_288
    """Topics and payloads in flight and waiting, together."""
    resend_s: float = 5.0
    """3.1.1 only: how long to wait for a PUBACK before sending again with DUP."""
    resend_max: int = 5
    wildcard_subscription_available: bool = True
    """Announced in MQTT 5; which filters are granted is the owner's decision in either case."""

    def __post_init__(self) -> None:
        bounds: tuple[tuple[str, float, float], ...] = (
            ("connect_deadline_s", 0.001, 3_600),
            ("packet_bytes_max_before_login", 16, self.packet_bytes_max),
            ("packet_bytes_max", 16, 268_435_460),
            ("pipelined_bytes_max", 0, 268_435_460),
            ("packets_per_read_max", 1, 1_000_000),
            ("keep_alive_s_max", 1, KEEP_ALIVE_S_MAX),
            ("idle_s_max", 0.001, 86_400),
            ("receive_maximum", 1, PACKET_ID_MAX),
            ("in_flight_max", 1, 1_000),
            ("queue_messages_max", 0, 1_000),
            ("unacknowledged_bytes_max", 1, 268_435_460),
            ("resend_s", 0.001, 3_600),
            ("resend_max", 0, 1_000),
        )
        for name, least, most in bounds:
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is not in {least:g}..{most:g}")


class Refusal(Enum):
    """Why a CONNECT is refused: (return code of 3.1.1 [3.2.2.3], reason code of 5 [3.2.2.2]).

    A wrong password and a missing right are one kind, so that nobody learns which names exist (F-20).
    """

    NOT_AUTHORISED = (5, ReasonCode.NOT_AUTHORIZED)
    CLIENT_ID_NOT_VALID = (2, ReasonCode.CLIENT_IDENTIFIER_NOT_VALID)
    UNSUPPORTED_VERSION = (1, ReasonCode.UNSUPPORTED_PROTOCOL_VERSION)
    SERVER_UNAVAILABLE = (3, ReasonCode.SERVER_UNAVAILABLE)
    SERVER_BUSY = (3, ReasonCode.SERVER_BUSY)
    BANNED = (3, ReasonCode.BANNED)
    RATE_EXCEEDED = (3, ReasonCode.CONNECTION_RATE_EXCEEDED)
    QUOTA_EXCEEDED = (3, ReasonCode.QUOTA_EXCEEDED)

    @property
    def code_v311(self) -> int:
        """CONNACK return code."""
        return self.value[0]

    @property
    def code_v5(self) -> ReasonCode:
        """CONNACK reason code."""
        return self.value[1]
