"""Control packets to bytes, MQTT 3.1.1 and 5.0, both directions. Section numbers are those of MQTT 5."""

from collections.abc import Callable
from typing import Any, Final

from broker import properties as carrier
from broker import reason_codes
from broker.fields import write_binary, write_byte, write_text, write_uint16, write_varint
from broker.packets import (
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
    UnsubAck,
    Unsubscribe,
    Version,
    Will,
)
from broker.properties import Properties, write_properties
from broker.reason_codes import malformed, protocol_error


def encode(packet: Packet, version: Version) -> bytes:
    """The bytes of one packet.

    Raises ProtocolViolation when `version` cannot carry it: a property or reason code that does not exist there,
    AUTH in 3.1.1, a 3.1.1 password without a user name [MQTT-3.1.2-22], a field or packet that is too long.
    """
    return _ENCODERS[type(packet)](packet, version)


def _frame(first_byte: int, *parts: bytes) -> bytes:
    """Fixed header [2.1] and body."""
    body = b"".join(parts)
    return bytes((first_byte,)) + write_varint(len(body)) + body


def _properties(properties: Properties, packet_type: int, version: Version) -> bytes:
    if version == V5:
        return write_properties(properties, packet_type)
    if properties:
        raise malformed("MQTT 3.1.1 has no properties")
    return b""


def _check_codes(codes: tuple[int, ...], allowed: frozenset[int]) -> None:
    if not allowed.issuperset(codes):
        raise protocol_error("reason code is not one of this packet")


def _connect(packet: Connect, version: Version) -> bytes:
    """[3.1]"""
    if packet.password is not None and packet.username is None and version != V5:
        raise malformed("password without a user name")
    flags = packet.clean_start << 1
    tail = [write_text(packet.client_id)]
    if packet.will is not None:
        flags |= 0x04 | packet.will.qos << 3 | packet.will.retain << 5
        tail.append(_will(packet.will, version))
    if packet.username is not None:
        flags |= 0x80
        tail.append(write_text(packet.username))
    if packet.password is not None:
        flags |= 0x40
        tail.append(write_binary(packet.password))
    head = b"\x00\x04MQTT" + bytes((version, flags)) + write_uint16(packet.keep_alive_s)
    return _frame(0x10, head, _properties(packet.properties, carrier.CONNECT, version), *tail)


def _will(will: Will, version: Version) -> bytes:
    """[3.1.3.2 to 3.1.3.4]"""
    properties = _properties(will.properties, carrier.WILL, version)
    return properties + write_text(will.topic) + write_binary(will.payload)


def _connack(packet: ConnAck, version: Version) -> bytes:
    """[3.2]"""
    allowed = reason_codes.CONNACK_CODES_V5 if version == V5 else reason_codes.CONNACK_CODES_V311
    _check_codes((packet.code,), allowed)
    head = bytes((packet.session_present, packet.code))
    return _frame(0x20, head, _properties(packet.properties, carrier.CONNACK, version))


def _publish(packet: Publish, version: Version) -> bytes:
    """[3.3]"""
    if not packet.topic and version != V5:
        raise malformed("topic name is empty")
    first_byte = 0x30 | packet.dup << 3 | packet.qos << 1 | packet.retain
    packet_id = b"" if packet.packet_id is None else packet.packet_id.to_bytes(2, "big")
    properties = _properties(packet.properties, carrier.PUBLISH, version)
    return _frame(first_byte, write_text(packet.topic), packet_id, properties, packet.payload)


def _acknowledgement(
    first_byte: int, allowed_v5: frozenset[int]
) -> Callable[[PubAck | PubRec | PubRel | PubComp, Version], bytes]:
    """[3.4 to 3.7] The reason code and the properties are left out when they say nothing [3.4.2.1]."""
    packet_type = first_byte >> 4
    plain = bytes((first_byte, 2))

    def write(packet: PubAck | PubRec | PubRel | PubComp, version: Version) -> bytes:
        packet_id = packet.packet_id.to_bytes(2, "big")
        if not packet.code and not packet.properties:
            return plain + packet_id
        if version != V5:
            raise malformed("MQTT 3.1.1 acknowledges without a reason code or properties")
        _check_codes((packet.code,), allowed_v5)
        if not packet.properties:
            return _frame(first_byte, packet_id, bytes((packet.code,)))
        return _frame(first_byte, packet_id, bytes((packet.code,)), write_properties(packet.properties, packet_type))

    return write


def _subscribe(packet: Subscribe, version: Version) -> bytes:
    """[3.8] QoS alone fills the options byte in 3.1.1."""
    parts = [packet.packet_id.to_bytes(2, "big"), _properties(packet.properties, carrier.SUBSCRIBE, version)]
    for one in packet.subscriptions:
        options = one.no_local << 2 | one.retain_as_published << 3 | one.retain_handling << 4
        if options and version != V5:
            raise malformed("MQTT 3.1.1 has no subscription options")
        parts.append(write_text(one.topic_filter) + write_byte(options | one.qos))
    return _frame(0x82, *parts)


def _suback(packet: SubAck, version: Version) -> bytes:
    """[3.9]"""
    _check_codes(packet.codes, reason_codes.SUBACK_CODES_V5 if version == V5 else reason_codes.SUBACK_CODES_V311)
    properties = _properties(packet.properties, carrier.SUBACK, version)
    return _frame(0x90, packet.packet_id.to_bytes(2, "big"), properties, bytes(packet.codes))


def _unsubscribe(packet: Unsubscribe, version: Version) -> bytes:
    """[3.10]"""
    properties = _properties(packet.properties, carrier.UNSUBSCRIBE, version)
    filters = (write_text(topic_filter) for topic_filter in packet.topic_filters)
    return _frame(0xA2, packet.packet_id.to_bytes(2, "big"), properties, *filters)


def _unsuback(packet: UnsubAck, version: Version) -> bytes:
    """[3.11] 3.1.1 has no codes, MQTT 5 at least one."""
    if bool(packet.codes) != (version == V5):
        raise malformed("UNSUBACK has codes in MQTT 5, and only there")
    _check_codes(packet.codes, reason_codes.UNSUBACK_CODES_V5)
    properties = _properties(packet.properties, carrier.UNSUBACK, version)
    return _frame(0xB0, packet.packet_id.to_bytes(2, "big"), properties, bytes(packet.codes))


def _pingreq(packet: PingReq, version: Version) -> bytes:
    """[3.12]"""
    return b"\xc0\x00"


def _pingresp(packet: PingResp, version: Version) -> bytes:
    """[3.13]"""
    return b"\xd0\x00"


def _reason_only(packet: Disconnect | Auth, packet_type: int, allowed: frozenset[int]) -> bytes:
    """[3.14.2, 3.15.2] Nothing at all when it would say success without properties."""
    _check_codes((packet.code,), allowed)
    if packet.properties:
        return _frame(packet_type << 4, bytes((packet.code,)), write_properties(packet.properties, packet_type))
    return _frame(packet_type << 4, bytes((packet.code,)) if packet.code else b"")


def _disconnect(packet: Disconnect, version: Version) -> bytes:
    """[3.14]"""
    if version != V5:
        if packet.code or packet.properties:
            raise malformed("MQTT 3.1.1 disconnects without a reason code or properties")
        return b"\xe0\x00"
    return _reason_only(packet, carrier.DISCONNECT, reason_codes.DISCONNECT_CODES_V5)


def _auth(packet: Auth, version: Version) -> bytes:
    """[3.15]"""
    if version != V5:
        raise malformed("MQTT 3.1.1 has no AUTH")
    return _reason_only(packet, carrier.AUTH, reason_codes.AUTH_CODES_V5)


_ENCODERS: Final[dict[type[Packet], Callable[[Any, Version], bytes]]] = {
    Connect: _connect,
    ConnAck: _connack,
    Publish: _publish,
    PubAck: _acknowledgement(0x40, reason_codes.PUBACK_CODES_V5),
    PubRec: _acknowledgement(0x50, reason_codes.PUBACK_CODES_V5),
    PubRel: _acknowledgement(0x62, reason_codes.PUBREL_CODES_V5),
    PubComp: _acknowledgement(0x70, reason_codes.PUBREL_CODES_V5),
    Subscribe: _subscribe,
    SubAck: _suback,
    Unsubscribe: _unsubscribe,
    UnsubAck: _unsuback,
    PingReq: _pingreq,
    PingResp: _pingresp,
    Disconnect: _disconnect,
    Auth: _auth,
}
