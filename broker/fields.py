"""The data types that MQTT packets are made of [MQTT 5 section 1.5], read from and written to bytes.

Every `read_*` takes the bytes of one packet and an offset, and returns the value and the offset behind it.
"""

from typing import Final

from broker.reason_codes import malformed, protocol_error

TEXT_BYTES_MAX: Final = 65_535
VARINT_MAX: Final = 268_435_455
VARINT_BYTES_MAX: Final = 4


def read_byte(body: bytes, at: int) -> tuple[int, int]:
    """One byte."""
    if at >= len(body):
        raise malformed("packet is truncated")
    return body[at], at + 1


def read_uint16(body: bytes, at: int) -> tuple[int, int]:
    """Two Byte Integer [1.5.2]."""
    if at + 2 > len(body):
        raise malformed("packet is truncated")
    return body[at] << 8 | body[at + 1], at + 2


def read_uint32(body: bytes, at: int) -> tuple[int, int]:
    """Four Byte Integer [1.5.3]."""
    if at + 4 > len(body):
        raise malformed("packet is truncated")
    return int.from_bytes(body[at : at + 4], "big"), at + 4


def read_varint(body: bytes, at: int) -> tuple[int, int]:
    """Variable Byte Integer [1.5.5] of at most four bytes, in its shortest form [MQTT-1.5.5-1]."""
    value = 0
    for index in range(VARINT_BYTES_MAX):
        byte, at = read_byte(body, at)
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if index and not byte:
                raise malformed("variable byte integer is longer than needed")
            return value, at
    raise malformed("variable byte integer has no end")


def read_binary(body: bytes, at: int) -> tuple[bytes, int]:
    """Binary Data [1.5.6]: a length of two bytes, then that many bytes."""
    start = at + 2
    if start > len(body):
        raise malformed("packet is truncated")
    end = start + (body[at] << 8 | body[at + 1])
    if end > len(body):
        raise malformed("packet is truncated")
    return body[start:end], end


def read_text(body: bytes, at: int) -> tuple[str, int]:
    """UTF-8 Encoded String [1.5.4]: no surrogates, no NUL [MQTT-1.5.4-1, -2]; U+FEFF stays [MQTT-1.5.4-3]."""
    raw, end = read_binary(body, at)
    text: str | None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = None  # raised below, outside this block: the decode error holds the raw bytes, maybe a secret
    if text is None:
        raise malformed("string is not UTF-8")
    if "\0" in text:
        raise malformed("string holds NUL")
    return text, end


def read_flag(body: bytes, at: int) -> tuple[bool, int]:
    """A byte property that may be 0 or 1 only."""
    byte, at = read_byte(body, at)
    if byte > 1:
        raise protocol_error("flag property is neither 0 nor 1")
    return byte == 1, at


def read_pair(body: bytes, at: int) -> tuple[tuple[str, str], int]:
    """UTF-8 String Pair [1.5.7]."""
    name, at = read_text(body, at)
    value, at = read_text(body, at)
    return (name, value), at


def write_byte(value: int) -> bytes:
    """One byte, 0 to 255."""
    return write_uint(value, 1)


def write_uint16(value: int) -> bytes:
    """Two Byte Integer."""
    return write_uint(value, 2)


def write_uint32(value: int) -> bytes:
    """Four Byte Integer."""
    return write_uint(value, 4)


def write_uint(value: int, width_bytes: int) -> bytes:
    """Unsigned, big-endian; ProtocolViolation when the value does not fit."""
    if not 0 <= value < 1 << 8 * width_bytes:
        raise malformed(f"integer does not fit {width_bytes} bytes")
    return value.to_bytes(width_bytes, "big")


def write_varint(value: int) -> bytes:
    """Variable Byte Integer in its shortest form."""
    if 0 <= value < 0x80:
        return _ONE_BYTE[value]
    if not 0 <= value <= VARINT_MAX:
        raise malformed("variable byte integer does not fit four bytes")
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def write_binary(value: bytes) -> bytes:
    """Binary Data; ProtocolViolation above 65,535 bytes."""
    if len(value) > TEXT_BYTES_MAX:
        raise malformed("field is longer than 65535 bytes")
    return len(value).to_bytes(2, "big") + value


def write_text(value: str) -> bytes:
    """UTF-8 Encoded String; ProtocolViolation on NUL, a lone surrogate or more than 65,535 bytes."""
    raw = value.encode(errors="surrogatepass")
    if "\0" in value or (len(raw) != len(value) and any("\ud800" <= letter <= "\udfff" for letter in value)):
        raise malformed("string holds NUL or a surrogate")
    return write_binary(raw)


def write_pair(value: tuple[str, str]) -> bytes:
    """UTF-8 String Pair."""
    return write_text(value[0]) + write_text(value[1])


_ONE_BYTE: Final = tuple(bytes((value,)) for value in range(0x80))
