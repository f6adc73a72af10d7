"""MQTT 3.1.1 and 5.0 control packets as values. A packet that exists has a legal shape.

A constructor raises ProtocolViolation on fields that no version allows; what depends on the version (reason
codes, properties, a password without a user name) is checked by `broker.encoding.encode` and
`broker.decoding.Decoder`.
Section numbers are those of MQTT 5; the 3.1.1 sections have the same numbers up to 3.14.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from broker.properties import NO_PROPERTIES, Properties
from broker.reason_codes import ProtocolViolation, ReasonCode, malformed, protocol_error

Version = Literal[4, 5]
V311: Final = 4
V5: Final = 5

PACKET_ID_MAX: Final = 65_535
KEEP_ALIVE_S_MAX: Final = 65_535
# Filters are cheap to send and dear to hold: 16,000 fit in one packet; a gateway sends fewer than ten.
FILTERS_PER_PACKET_MAX: Final = 64


def _check_packet_id(packet_id: int | None) -> None:
    """[MQTT-2.2.1-3]: never zero."""
    if packet_id is None or not 1 <= packet_id <= PACKET_ID_MAX:
        raise protocol_error("packet identifier is not in 1..65535")


def _check_topic(topic: str) -> None:
    """[MQTT-3.3.2-2], [MQTT-4.7.0-1]: a topic name has no wildcard."""
    if "#" in topic or "+" in topic:
        raise malformed("topic name holds a wildcard")


def _check_filter(topic_filter: str) -> None:
    """[MQTT-4.7.3-1] not empty; [MQTT-4.7.1-1, -2] a wildcard fills its level, `#` is the last one."""
    if not topic_filter:
        raise malformed("topic filter is empty")
    if "#" not in topic_filter and "+" not in topic_filter:
        return
    levels = topic_filter.split("/")
    if any(len(level) > 1 and ("#" in level or "+" in level) for level in levels) or "#" in levels[:-1]:
        raise malformed("topic filter has a misplaced wildcard")


def _check_count(count: int, least: int = 1) -> None:
    """[MQTT-3.8.3-2], [MQTT-3.10.3-2]: at least one entry; the upper bound is ours."""
    if count < least:
        raise protocol_error("packet lists no topic filter")
    if count > FILTERS_PER_PACKET_MAX:
        raise ProtocolViolation(ReasonCode.QUOTA_EXCEEDED, "packet lists too many topic filters")


@dataclass(frozen=True, slots=True)
class Will:
    """What a server would publish for a client that vanished [3.1.3.2 to 3.1.3.4]."""

    topic: str
    payload: bytes = field(default=b"", repr=False)
    qos: int = 0
    retain: bool = False
    properties: Properties = NO_PROPERTIES

    def __post_init__(self) -> None:
        if not 0 <= self.qos <= 2:
            raise malformed("will QoS is not 0, 1 or 2")
        if not self.topic:
            raise malformed("will topic is empty")
        _check_topic(self.topic)


@dataclass(frozen=True, slots=True)
class Connect:
    """[3.1] `clean_start` is Clean Session in 3.1.1. An absent user name or password is None, never empty."""

    client_id: str
    clean_start: bool = True
    keep_alive_s: int = 60
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    will: Will | None = None
    properties: Properties = NO_PROPERTIES

    def __post_init__(self) -> None:
        if not 0 <= self.keep_alive_s <= KEEP_ALIVE_S_MAX:
            raise malformed("keep alive is not in 0..65535")


@dataclass(frozen=True, slots=True)
class ConnAck:
    """[3.2] `code` is a return code of 3.1.1 (0 to 5) or a reason code of 5."""

    code: int = 0
    session_present: bool = False
    properties: Properties = NO_PROPERTIES

    def __post_init__(self) -> None:
        # [MQTT-3.2.2-6]
        if self.code and self.session_present:
            raise protocol_error("a refusal cannot have a session present")


@dataclass(frozen=True, slots=True)
class Publish:
    """[3.3] `packet_id` is None exactly for QoS 0. An empty topic needs a topic alias (MQTT 5)."""

    topic: str
    payload: bytes = field(default=b"", repr=False)
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int | None = None
    properties: Properties = NO_PROPERTIES

    def __post_init__(self) -> None:
        if self.qos == 0:
            # [MQTT-3.3.1-2], [MQTT-2.2.1-2]
            if self.dup or self.packet_id is not None:
                raise malformed("QoS 0 has neither DUP nor a packet identifier")
        elif 1 <= self.qos <= 2:
            _check_packet_id(self.packet_id)
        else:
            raise malformed("QoS is not 0, 1 or 2")  # [MQTT-3.3.1-4]
        _check_topic(self.topic)
        # [MQTT-4.7.3-1]; 3.3.2.3.4 for the alias
        if not self.topic and self.properties.topic_alias is None:
            raise protocol_error("topic name is empty")


@dataclass(frozen=True, slots=True)
class _Acknowledgement:
    """Shape of PUBACK, PUBREC, PUBREL and PUBCOMP; `code` and `properties` travel in MQTT 5 only."""

    packet_id: int
    code: int = 0
    properties: Properties = NO_PROPERTIES

    def __post_init__(self) -> None:
        _check_packet_id(self.packet_id)


@dataclass(frozen=True, slots=True)
class PubAck(_Acknowledgement):
    """[3.4] answers a QoS 1 PUBLISH."""


@dataclass(frozen=True, slots=True)
class PubRec(_Acknowledgement):
    """[3.5] first answer to a QoS 2 PUBLISH."""


@dataclass(frozen=True, slots=True)
class PubRel(_Acknowledgement):
    """[3.6] the sender of a QoS 2 PUBLISH lets go of it."""


@dataclass(frozen=True, slots=True)
class PubComp(_Acknowledgement):
    """[3.7] ends a QoS 2 exchange."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """One entry of SUBSCRIBE [3.8.3.1]; the last three fields travel in MQTT 5 only."""

    topic_filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.qos <= 2:
            raise malformed("requested QoS is not 0, 1 or 2")
        if not 0 <= self.retain_handling <= 2:
            raise protocol_error("retain handling is not 0, 1 or 2")
        _check_filter(self.topic_filter)
        # [MQTT-3.8.3-4]
        if self.no_local and self.topic_filter.startswith("$share/"):
            raise protocol_error("no local on a shared subscription")


@dataclass(frozen=True, slots=True)
class Subscribe:
    """[3.8] 1 to FILTERS_PER_PACKET_MAX subscriptions."""

    packet_id: int
    subscriptions: tuple[Subscription, ...]
    properties: Properties = NO_PROPERTIES

    def __post_init__(self) -> None:
        _check_packet_id(self.packet_id)
        _check_count(len(self.subscriptions))


@dataclass(frozen=True, slots=True)
class SubAck:
    """[3.9] one code for each filter of the SUBSCRIBE, in its order: granted QoS, or 0x80 and above."""

    packet_id: int
    codes: tuple[int, ...]
    properties: Properties = NO_PROPERTIES

    def __post_init__(self) -> None:
        _check_packet_id(self.packet_id)
        _check_count(len(self.codes))


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """[3.10] 1 to FILTERS_PER_PACKET_MAX filters."""

    packet_id: int
    topic_filters: tuple[str, ...]
    properties: Properties = NO_PROPERTIES

    def __post_init__(self) -> None:
        _check_packet_id(self.packet_id)
        _check_count(len(self.topic_filters))
        for topic_filter in self.topic_filters:
            _check_filter(topic_filter)


@dataclass(frozen=True, slots=True)
class UnsubAck:
    """[3.11] `codes` is empty in 3.1.1, one for each filter in MQTT 5."""

    packet_id: int
    codes: tuple[int, ...] = ()
    properties: Properties = NO_PROPERTIES

    def __post_init__(self) -> None:
        _check_packet_id(self.packet_id)
        _check_count(len(self.codes), least=0)


@dataclass(frozen=True, slots=True)
class PingReq:
    """[3.12]"""


@dataclass(frozen=True, slots=True)
class PingResp:
    """[3.13]"""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """[3.14] `code` and `properties` travel in MQTT 5 only; a 3.1.1 server never sends it."""

    code: int = 0
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class Auth:
    """[3.15] MQTT 5 only."""

    code: int = 0
    properties: Properties = NO_PROPERTIES


Packet = (
    Connect | ConnAck | Publish | PubAck | PubRec | PubRel | PubComp | Subscribe | SubAck
    | Unsubscribe | UnsubAck | PingReq | PingResp | Disconnect | Auth
)  # fmt: skip
