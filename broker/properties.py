"""MQTT 5 properties [section 2.2.2.2]: one table says the identifier, type and carriers of each.

A property that is absent is None (or an empty tuple). MQTT 3.1.1 packets have NO_PROPERTIES.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from broker import fields
from broker.reason_codes import ProtocolViolation, ReasonCode, malformed, protocol_error

# The carrier of a property is the packet type number of its packet [table 2-1]; 0 is free: the Will takes it.
WILL: Final = 0
CONNECT: Final = 1
CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
PUBREC: Final = 5
PUBREL: Final = 6
PUBCOMP: Final = 7
SUBSCRIBE: Final = 8
SUBACK: Final = 9
UNSUBSCRIBE: Final = 10
UNSUBACK: Final = 11
PINGREQ: Final = 12
PINGRESP: Final = 13
DISCONNECT: Final = 14
AUTH: Final = 15

# The two properties that may repeat could fill a packet with tens of thousands of objects.
REPEATS_MAX: Final = 64


@dataclass(frozen=True, slots=True, repr=False)
class Properties:
    """The properties of one packet. Raises ProtocolViolation on a value that no packet may carry."""

    payload_format_indicator: bool | None = None
    message_expiry_interval_s: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = field(default=None, repr=False)
    subscription_identifiers: tuple[int, ...] = ()
    session_expiry_interval_s: int | None = None
    assigned_client_id: str | None = None
    server_keep_alive_s: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = field(default=None, repr=False)
    request_problem_information: bool | None = None
    will_delay_interval_s: int | None = None
    request_response_information: bool | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: bool | None = None
    user_properties: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    maximum_packet_size_bytes: int | None = None
    wildcard_subscription_available: bool | None = None
    subscription_identifiers_available: bool | None = None
    shared_subscription_available: bool | None = None

    def __post_init__(self) -> None:
        # 3.1.2.11.3, 3.1.2.11.4, 3.8.2.1.2: zero is a Protocol Error
        if 0 in (self.receive_maximum, self.maximum_packet_size_bytes, *self.subscription_identifiers):
            raise protocol_error("receive maximum, maximum packet size or subscription identifier is zero")
        # [MQTT-3.3.2-8]
        if self.topic_alias == 0:
            raise ProtocolViolation(ReasonCode.TOPIC_ALIAS_INVALID, "topic alias is zero")
        # 3.2.2.3.4: only a server without QoS 2 says so
        if self.maximum_qos not in (None, 0, 1):
            raise protocol_error("maximum QoS is neither 0 nor 1")
        # [MQTT-3.3.2-14]
        if self.response_topic and ("#" in self.response_topic or "+" in self.response_topic):
            raise protocol_error("response topic holds a wildcard")
        # 3.1.2.11.10
        if self.authentication_data is not None and self.authentication_method is None:
            raise protocol_error("authentication data without a method")
        if max(len(self.user_properties), len(self.subscription_identifiers)) > REPEATS_MAX:
            raise ProtocolViolation(ReasonCode.QUOTA_EXCEEDED, "packet repeats a property too often")

    def __bool__(self) -> bool:
        """True when at least one property is given."""
        return self is not NO_PROPERTIES and self != NO_PROPERTIES

    def __repr__(self) -> str:
        # Only what is given, and of what may be secret only that it is given.
        given = (entry for entry in dataclasses.fields(self) if getattr(self, entry.name) != entry.default)
        shown = (f"{one.name}={getattr(self, one.name)!r}" if one.repr else f"{one.name}=..." for one in given)
        return f"Properties({', '.join(shown)})"


NO_PROPERTIES: Final = Properties()


class _Type(NamedTuple):
    """How the value of a property is read and written [section 1.5]."""

    read: Callable[[bytes, int], tuple[Any, int]]
    write: Callable[[Any], bytes]


class _Property(NamedTuple):
    """One row of table 2-4. `carriers` is a bit set of packet type numbers."""

    identifier: int
    name: str
    type: _Type
    carriers: int


_BYTE: Final = _Type(fields.read_byte, fields.write_byte)
_FLAG: Final = _Type(fields.read_flag, fields.write_byte)
_UINT16: Final = _Type(fields.read_uint16, fields.write_uint16)
_UINT32: Final = _Type(fields.read_uint32, fields.write_uint32)
_VARINT: Final = _Type(fields.read_varint, fields.write_varint)
_TEXT: Final = _Type(fields.read_text, fields.write_text)
_BINARY: Final = _Type(fields.read_binary, fields.write_binary)
_PAIR: Final = _Type(fields.read_pair, fields.write_pair)
_ACKS: Final = (PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK)


def _row(identifier: int, name: str, kind: _Type, *carriers: int) -> _Property:
    return _Property(identifier, name, kind, sum(1 << carrier for carrier in carriers))


_TABLE: Final = (
    _row(0x01, "payload_format_indicator", _FLAG, PUBLISH, WILL),
    _row(0x02, "message_expiry_interval_s", _UINT32, PUBLISH, WILL),
    _row(0x03, "content_type", _TEXT, PUBLISH, WILL),
    _row(0x08, "response_topic", _TEXT, PUBLISH, WILL),
    _row(0x09, "correlation_data", _BINARY, PUBLISH, WILL),
    _row(0x0B, "subscription_identifiers", _VARINT, PUBLISH, SUBSCRIBE),
    _row(0x11, "session_expiry_interval_s", _UINT32, CONNECT, CONNACK, DISCONNECT),
    _row(0x12, "assigned_client_id", _TEXT, CONNACK),
    _row(0x13, "server_keep_alive_s", _UINT16, CONNACK),
    _row(0x15, "authentication_method", _TEXT, CONNECT, CONNACK, AUTH),
    _row(0x16, "authentication_data", _BINARY, CONNECT, CONNACK, AUTH),
    _row(0x17, "request_problem_information", _FLAG, CONNECT),
    _row(0x18, "will_delay_interval_s", _UINT32, WILL),
    _row(0x19, "request_response_information", _FLAG, CONNECT),
    _row(0x1A, "response_information", _TEXT, CONNACK),
    _row(0x1C, "server_reference", _TEXT, CONNACK, DISCONNECT),
    _row(0x1F, "reason_string", _TEXT, CONNACK, *_ACKS, DISCONNECT, AUTH),
    _row(0x21, "receive_maximum", _UINT16, CONNECT, CONNACK),
    _row(0x22, "topic_alias_maximum", _UINT16, CONNECT, CONNACK),
    _row(0x23, "topic_alias", _UINT16, PUBLISH),
    _row(0x24, "maximum_qos", _BYTE, CONNACK),
    _row(0x25, "retain_available", _FLAG, CONNACK),
    _row(
        0x26, "user_properties", _PAIR,
        WILL, CONNECT, CONNACK, PUBLISH, *_ACKS, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT, AUTH,
    ),
    _row(0x27, "maximum_packet_size_bytes", _UINT32, CONNECT, CONNACK),
    _row(0x28, "wildcard_subscription_available", _FLAG, CONNACK),
    _row(0x29, "subscription_identifiers_available", _FLAG, CONNACK),
    _row(0x2A, "shared_subscription_available", _FLAG, CONNACK),
)  # fmt: skip
_BY_IDENTIFIER: Final = {row.identifier: row for row in _TABLE}
_REPEATABLE: Final = frozenset(("subscription_identifiers", "user_properties"))


def read_properties(body: bytes, at: int, carrier: int) -> tuple[Properties, int]:
    """The property length [2.2.2.1] and the properties at `at`, and the offset behind them.

    Unknown or misplaced identifier: 0x81. Twice the same one: 0x82 [2.2.2.2], except user properties and, in
    a PUBLISH, subscription identifiers.
    """
    length, at = fields.read_varint(body, at)
    if not length:
        return NO_PROPERTIES, at
    end = at + length
    if end > len(body):
        raise malformed("packet is truncated")
    section, cursor = body[:end], at
    values: dict[str, Any] = {}
    while cursor < end:
        identifier, cursor = fields.read_varint(section, cursor)
        row = _BY_IDENTIFIER.get(identifier)
        if row is None or not row.carriers >> carrier & 1:
            raise malformed("property is unknown or not allowed in this packet")
        value, cursor = row.type.read(section, cursor)
        _collect(values, row.name, value, carrier)
    return Properties(**values), end


def _collect(values: dict[str, Any], name: str, value: Any, carrier: int) -> None:
    if name not in _REPEATABLE:
        if name in values:
            raise protocol_error("property is given twice")
        values[name] = value
        return
    known: tuple[Any, ...] = values.get(name, ())
    if known and name == "subscription_identifiers" and carrier == SUBSCRIBE:
        raise protocol_error("property is given twice")
    if len(known) >= REPEATS_MAX:
        raise ProtocolViolation(ReasonCode.QUOTA_EXCEEDED, "packet repeats a property too often")
    values[name] = (*known, value)


def write_properties(properties: Properties, carrier: int) -> bytes:
    """Property length and properties; ProtocolViolation when the packet may not carry one of them."""
    if not properties:
        return b"\0"
    if carrier == SUBSCRIBE and len(properties.subscription_identifiers) > 1:
        raise protocol_error("property is given twice")
    parts = bytearray()
    for row in _TABLE:
        value = getattr(properties, row.name)
        if value is None or value == ():
            continue
        if not row.carriers >> carrier & 1:
            raise malformed("property is not allowed in this packet")
        for one in value if row.name in _REPEATABLE else (value,):
            parts.append(row.identifier)
            parts += row.type.write(one)
    return fields.write_varint(len(parts)) + bytes(parts)
