"""The protobuf wire format, as far as a Kura payload uses it: varints, fixed 32 and 64 bits, length-delimited bytes.

Groups (wire types 3 and 4) are refused. Nothing here knows a Kura field; `kura_payload` gives numbers their meaning.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

VARINT = 0
FIXED64 = 1
DELIMITED = 2
FIXED32 = 5

_VARINT_BYTES_MAX = 10
_MASK64 = (1 << 64) - 1
_FIELD_NUMBER_MAX = (1 << 29) - 1


class MalformedPayload(ValueError):
    """The bytes (or the value to be sent) are no Kura payload. The text is short and never quotes the payload."""


@dataclass(frozen=True, slots=True)
class WireField:
    """One field as it stands in `data[start:end]`; `value` is an int for a varint, else bytes."""

    number: int
    wire: int
    value: int | bytes
    start: int
    end: int


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The unsigned number at `at`, and the offset behind it. At most 10 bytes and 64 bits."""
    result = 0
    for index in range(_VARINT_BYTES_MAX):
        if at >= len(data):
            raise MalformedPayload("a number is cut short")
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if result > _MASK64:
                raise MalformedPayload("a number exceeds 64 bits")
            return result, at
    raise MalformedPayload("a number is longer than 10 bytes")


def _read_value(data: bytes, at: int, wire: int) -> tuple[int | bytes, int]:
    if wire == VARINT:
        return read_varint(data, at)
    if wire == DELIMITED:
        length, at = read_varint(data, at)
    elif wire == FIXED64:
        length = 8
    elif wire == FIXED32:
        length = 4
    else:
        raise MalformedPayload(f"wire type {wire} is not used by Kura payloads")
    end = at + length
    if end > len(data):
        raise MalformedPayload("a field runs past the end of its message")
    return data[at:end], end


def fields(data: bytes) -> Iterator[WireField]:
    """Every field in the order of the bytes; raises MalformedPayload at the first byte that cannot be read."""
    at = 0
    while at < len(data):
        start = at
        key, at = read_varint(data, at)
        number, wire = key >> 3, key & 7
        if not 0 < number <= _FIELD_NUMBER_MAX:
            raise MalformedPayload("a field number is out of range")
        value, at = _read_value(data, at, wire)
        yield WireField(number, wire, value, start, at)


def _number(field: WireField) -> int:
    if isinstance(field.value, bytes):
        raise MalformedPayload(f"field {field.number} has wire type {field.wire}, a varint was expected")
    return field.value


def octets(field: WireField, wire: int = DELIMITED) -> bytes:
    """The raw bytes of a field that must have this wire type."""
    if field.wire != wire or isinstance(field.value, int):
        raise MalformedPayload(f"field {field.number} has wire type {field.wire}, {wire} was expected")
    return field.value


def signed64(field: WireField) -> int:
    """An int64: two's complement over 64 bits."""
    number = _number(field)
    return number - (1 << 64) if number >> 63 else number


def signed32(field: WireField) -> int:
    """An int32: the low 32 bits, as protobuf parsers take it (a negative one is sent as ten bytes, some send five)."""
    number = _number(field) & 0xFFFF_FFFF
    return number - (1 << 32) if number >> 31 else number


def flag(field: WireField) -> bool:
    return _number(field) != 0


def text(field: WireField) -> str:
    try:
        return octets(field).decode()
    except UnicodeDecodeError:
        raise MalformedPayload(f"field {field.number} is not UTF-8 text") from None


def double(field: WireField) -> float:
    value: float = struct.unpack("<d", octets(field, FIXED64))[0]
    return value


def single(field: WireField) -> float:
    value: float = struct.unpack("<f", octets(field, FIXED32))[0]
    return value


def varint(value: int) -> bytes:
    """A number of -2**63 .. 2**64-1; a negative one takes ten bytes."""
    value &= _MASK64
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def write_varint(number: int, value: int) -> bytes:
    return varint(number << 3 | VARINT) + varint(value)


def write_octets(number: int, value: bytes) -> bytes:
    return varint(number << 3 | DELIMITED) + varint(len(value)) + value


def write_text(number: int, value: str) -> bytes:
    return write_octets(number, value.encode())


def write_double(number: int, value: float) -> bytes:
    return varint(number << 3 | FIXED64) + struct.pack("<d", value)


def write_single(number: int, value: float) -> bytes:
    return varint(number << 3 | FIXED32) + struct.pack("<f", value)
