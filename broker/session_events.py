"""What a session tells its owner: everything that it does not settle by itself."""

from dataclasses import dataclass, field
from enum import Enum

from broker.packets import Subscription, Version
from broker.reason_codes import ReasonCode


@dataclass(frozen=True, slots=True)
class WillAnnounced:
    """The Will of a CONNECT. Its payload is dropped: the gate delivers no Will to anybody (F-01)."""

    topic: str
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True)
class ConnectReceived:
    """A well-formed CONNECT waits for `accept` or `refuse`.

    Absent user name or password: None; given but empty: "" or b"". A 3.1.1 password without a user name never
    comes this far (a Violation: [MQTT-3.1.2-22] of 3.1.1); in MQTT 5 it is legal and seen here. `client_id` is
    never empty.
    """

    version: Version
    client_id: str
    username: str | None
    password: bytes | None = field(repr=False)
    clean_start: bool
    keep_alive_s: int
    will: WillAnnounced | None


@dataclass(frozen=True, slots=True)
class SubscribeReceived:
    """Waits for `answer_subscribe` with one grant for each subscription, in this order."""

    packet_id: int
    subscriptions: tuple[Subscription, ...]


@dataclass(frozen=True, slots=True)
class UnsubscribeReceived:
    """Waits for `answer_unsubscribe`."""

    packet_id: int
    topic_filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PublishReceived:
    """A message of the client. QoS 1 and 2 wait for `acknowledge`; QoS 0 has packet_id None and no answer.

    `dup` is the sender's own claim (F-26): the message may have been seen on an earlier connection. `retain` can
    be True on 3.1.1 only, and the owner decides (F-07); MQTT 5 is told Retain Available 0 and violates by it.
    """

    topic: str
    payload: bytes = field(repr=False)
    qos: int
    retain: bool
    dup: bool
    packet_id: int | None


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The client took a message of ours. `reason_code` >= 0x80 (MQTT 5 only): took and refused it."""

    packet_id: int
    reason_code: int


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    """The peer is gone. `graceful`: it said DISCONNECT with reason code 0. Otherwise another broker would publish its
    Will: the transport ended without DISCONNECT, or an MQTT 5 client gave another code [3.14.2.1].
    """

    graceful: bool


@dataclass(frozen=True, slots=True)
class Violation:
    """The peer broke the protocol; it was answered as far as the protocol allows, and the session is closing.

    `reason` names the rule and quotes no input, so that it may be logged.
    """

    reason_code: ReasonCode
    reason: str


class Timer(Enum):
    """Which limit ran out."""

    CONNECT = "connect"
    KEEP_ALIVE = "keep_alive"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class TimedOut:
    """A timer ended the session; it is closing."""

    timer: Timer


Event = (
    ConnectReceived | SubscribeReceived | UnsubscribeReceived | PublishReceived
    | Acknowledged | PeerDisconnected | Violation | TimedOut
)  # fmt: skip
