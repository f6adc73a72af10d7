"""The body of one whole control packet to its value. Section numbers are those of MQTT 5.

Everything raises ProtocolViolation: truncated bodies, bytes left over, reason codes that the packet may not carry.
"""

from collections.abc import Callable
from typing import Final

from broker import properties as carrier
from broker import reason_codes
from broker.fields import read_binary, read_byte, read_text, read_uint16
from broker.packets import (
    FILTERS_PER_PACKET_MAX,
    V5,
    Auth,
    ConnAck,
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
    Subscription,
    UnsubAck,
    Unsubscribe,
    Version,
    Will,
)
from broker.properties import NO_PROPERTIES, Properties, read_properties
from broker.reason_codes import ProtocolViolation, ReasonCode, malformed, protocol_error

_Reader = Callable[[int, bytes, Version], Packet]


def read_packet(first_byte: int, body: bytes, version: Version) -> Packet:
    """`first_byte` has been checked against [2.1.2, 2.1.3]: a known type with legal flags."""
    return _READERS[first_byte >> 4](first_byte, body, version)


def _properties(body: bytes, at: int, packet_type: int, version: Version) -> tuple[Properties, int]:
    if version == V5:
        return read_properties(body, at, packet_type)
    return NO_PROPERTIES, at


def _check_end(body: bytes, at: int) -> None:
    if at != len(body):
        raise malformed("bytes are left over behind the packet")


def _check_code(code: int, allowed: frozenset[int]) -> None:
    if code not in allowed:
        raise protocol_error("reason code is not one of this packet")


def _connect(first_byte: int, body: bytes, version: Version) -> Connect:
    """[3.1] The protocol name and level were checked before."""
    flags, at = read_byte(body, 7)
    keep_alive_s, at = read_uint16(body, at)
    _check_connect_flags(flags, version)
    properties, at = _properties(body, at, carrier.CONNECT, version)
    client_id, at = read_text(body, at)
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None
    if flags & 0x04:
        will, at = _will(flags, body, at, version)
    if flags & 0x80:
        username, at = read_text(body, at)
    if flags & 0x40:
        password, at = read_binary(body, at)
    _check_end(body, at)
    return Connect(client_id, bool(flags & 0x02), keep_alive_s, username, password, will, properties)


def _check_connect_flags(flags: int, version: Version) -> None:
    if flags & 0x01:
        raise malformed("reserved CONNECT flag is set")  # [MQTT-3.1.2-3]
    if flags & 0x38 and not flags & 0x04:
        raise malformed("will QoS or retain without a will")  # [MQTT-3.1.2-11], [MQTT-3.1.2-13]
    if flags & 0xC0 == 0x40 and version != V5:
        raise malformed("password without a user name")  # [MQTT-3.1.2-22] of 3.1.1


def _will(flags: int, body: bytes, at: int, version: Version) -> tuple[Will, int]:
    """[3.1.3.2 to 3.1.3.4]"""
    properties, at = _properties(body, at, carrier.WILL, version)
    topic, at = read_text(body, at)
    payload, at = read_binary(body, at)
    return Will(topic, payload, flags >> 3 & 3, bool(flags & 0x20), properties), at


def _connack(first_byte: int, body: bytes, version: Version) -> ConnAck:
    """[3.2]"""
    flags, at = read_byte(body, 0)
    code, at = read_byte(body, at)
    if flags > 1:
        raise malformed("reserved CONNACK flag is set")  # [MQTT-3.2.2-1]
    _check_code(code, reason_codes.CONNACK_CODES_V5 if version == V5 else reason_codes.CONNACK_CODES_V311)
    properties, at = _properties(body, at, carrier.CONNACK, version)
    _check_end(body, at)
    return ConnAck(code, flags == 1, properties)


def _publish(first_byte: int, body: bytes, version: Version) -> Publish:
    """[3.3]"""
    topic, at = read_text(body, 0)
    qos = first_byte >> 1 & 3
    packet_id: int | None = None
    if qos:
        packet_id, at = read_uint16(body, at)
    properties = NO_PROPERTIES
    if version == V5:
        properties, at = read_properties(body, at, carrier.PUBLISH)
    elif not topic:
        raise malformed("topic name is empty")  # [MQTT-4.7.3-1]
    return Publish(topic, body[at:], qos, bool(first_byte & 1), bool(first_byte & 8), packet_id, properties)


def _acknowledgement(
    value: type[PubAck | PubRec | PubRel | PubComp], packet_type: int, allowed_v5: frozenset[int]
) -> _Reader:
    """[3.4 to 3.7] In MQTT 5 the reason code and the properties may be left out [3.4.2.1]."""

    def read(first_byte: int, body: bytes, version: Version) -> PubAck | PubRec | PubRel | PubComp:
        packet_id, at = read_uint16(body, 0)
        if len(body) == 2:
            return value(packet_id)
        if version != V5:
            raise malformed("bytes are left over behind the packet")
        code, properties = _code_and_properties(body, at, packet_type)
        _check_code(code, allowed_v5)
        return value(packet_id, code, properties)

    return read


def _code_and_properties(body: bytes, at: int, packet_type: int) -> tuple[int, Properties]:
    """The end of a packet, where both the properties and the code before them may be left out."""
    if at == len(body):
        return 0, NO_PROPERTIES
    code, at = read_byte(body, at)
    if at == len(body):
        return code, NO_PROPERTIES
    properties, at = read_properties(body, at, packet_type)
    _check_end(body, at)
    return code, properties


def _check_room(entries: int) -> None:
    """Before each further entry, so that a packet of 64 KiB does not become 16,000 objects first."""
    if entries >= FILTERS_PER_PACKET_MAX:
        raise ProtocolViolation(ReasonCode.QUOTA_EXCEEDED, "packet lists too many topic filters")


def _subscribe(first_byte: int, body: bytes, version: Version) -> Subscribe:
    """[3.8]"""
    packet_id, at = read_uint16(body, 0)
    properties, at = _properties(body, at, carrier.SUBSCRIBE, version)
    reserved = 0xC0 if version == V5 else 0xFC
    subscriptions: list[Subscription] = []
    while at < len(body):
        _check_room(len(subscriptions))
        topic_filter, at = read_text(body, at)
        options, at = read_byte(body, at)
        if options & reserved:
            raise malformed("reserved subscription option is set")  # [MQTT-3.8.3-5]
        if options < 3:
            subscriptions.append(Subscription(topic_filter, options))
        else:
            subscriptions.append(
                Subscription(topic_filter, options & 3, bool(options & 4), bool(options & 8), options >> 4)
            )
    return Subscribe(packet_id, tuple(subscriptions), properties)


def _suback(first_byte: int, body: bytes, version: Version) -> SubAck:
    """[3.9]"""
    packet_id, at = read_uint16(body, 0)
    properties, at = _properties(body, at, carrier.SUBACK, version)
    allowed = reason_codes.SUBACK_CODES_V5 if version == V5 else reason_codes.SUBACK_CODES_V311
    return SubAck(packet_id, _codes(body, at, allowed), properties)


def _codes(body: bytes, at: int, allowed: frozenset[int]) -> tuple[int, ...]:
    codes = tuple(body[at : at + FILTERS_PER_PACKET_MAX + 1])
    if not allowed.issuperset(codes):
        raise protocol_error("reason code is not one of this packet")
    return codes


def _unsubscribe(first_byte: int, body: bytes, version: Version) -> Unsubscribe:
    """[3.10]"""
    packet_id, at = read_uint16(body, 0)
    properties, at = _properties(body, at, carrier.UNSUBSCRIBE, version)
    topic_filters: list[str] = []
    while at < len(body):
        _check_room(len(topic_filters))
        topic_filter, at = read_text(body, at)
        topic_filters.append(topic_filter)
    return Unsubscribe(packet_id, tuple(topic_filters), properties)


def _unsuback(first_byte: int, body: bytes, version: Version) -> UnsubAck:
    """[3.11]"""
    packet_id, at = read_uint16(body, 0)
    if version != V5:
        _check_end(body, at)
        return UnsubAck(packet_id)
    properties, at = read_properties(body, at, carrier.UNSUBACK)
    codes = _codes(body, at, reason_codes.UNSUBACK_CODES_V5)
    if not codes:
        raise protocol_error("UNSUBACK lists no reason code")
    return UnsubAck(packet_id, codes, properties)


def _pingreq(first_byte: int, body: bytes, version: Version) -> PingReq:
    """[3.12]"""
    _check_end(body, 0)
    return PingReq()


def _pingresp(first_byte: int, body: bytes, version: Version) -> PingResp:
    """[3.13]"""
    _check_end(body, 0)
    return PingResp()


def _disconnect(first_byte: int, body: bytes, version: Version) -> Disconnect:
    """[3.14]"""
    if version != V5:
        _check_end(body, 0)
        return Disconnect()
    code, properties = _code_and_properties(body, 0, carrier.DISCONNECT)
    _check_code(code, reason_codes.DISCONNECT_CODES_V5)
    return Disconnect(code, properties)


def _auth(first_byte: int, body: bytes, version: Version) -> Auth:
    """[3.15]"""
    code, properties = _code_and_properties(body, 0, carrier.AUTH)
    _check_code(code, reason_codes.AUTH_CODES_V5)
    return Auth(code, properties)


_READERS: Final[dict[int, _Reader]] = {
    carrier.CONNECT: _connect,
    carrier.CONNACK: _connack,
    carrier.PUBLISH: _publish,
    carrier.PUBACK: _acknowledgement(PubAck, carrier.PUBACK, reason_codes.PUBACK_CODES_V5),
    carrier.PUBREC: _acknowledgement(PubRec, carrier.PUBREC, reason_codes.PUBACK_CODES_V5),
    carrier.PUBREL: _acknowledgement(PubRel, carrier.PUBREL, reason_codes.PUBREL_CODES_V5),
    carrier.PUBCOMP: _acknowledgement(PubComp, carrier.PUBCOMP, reason_codes.PUBREL_CODES_V5),
    carrier.SUBSCRIBE: _subscribe,
    carrier.SUBACK: _suback,
    carrier.UNSUBSCRIBE: _unsubscribe,
    carrier.UNSUBACK: _unsuback,
    carrier.PINGREQ: _pingreq,
    carrier.PINGRESP: _pingresp,
    carrier.DISCONNECT: _disconnect,
    carrier.AUTH: _auth,
}
