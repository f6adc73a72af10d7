"""Bytes to control packets, MQTT 3.1.1 and 5.0, in any chunking. Section numbers are those of MQTT 5."""

from collections.abc import Iterator
from typing import Final

from broker.fields import read_binary, read_byte
from broker.packet_bodies import read_packet
from broker.packets import V5, V311, Packet, Version
from broker.reason_codes import ProtocolViolation, ReasonCode, malformed, protocol_error

PACKET_BYTES_MAX_BEFORE_LOGIN: Final = 4_096
PACKET_BYTES_MAX: Final = 66_560

_CONNECT: Final = 0x10
_AUTH: Final = 0xF0
# [2.1.3] The flags of every type but PUBLISH are fixed; a PUBLISH has no QoS 3 and no DUP at QoS 0.
_PUBLISHES: Final = frozenset((0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x3A, 0x3B, 0x3C, 0x3D))
_OTHERS: Final = frozenset((0x20, 0x40, 0x50, 0x62, 0x70, 0x82, 0x90, 0xA2, 0xB0, 0xC0, 0xD0, 0xE0))
_FIRST_BYTES_V311: Final = _PUBLISHES | _OTHERS | {_CONNECT}
_FIRST_BYTES_V5: Final = _FIRST_BYTES_V311 | {_AUTH}

_NAME: Final = b"MQTT"
_NAME_V31: Final = b"MQIsdp"
# Bridges set this bit of the protocol level when they connect, and fall back to the plain level when refused.
_BRIDGE_BIT: Final = 0x80


class Decoder:
    """Incremental: `feed` bytes, then take packets until `next_packet` answers None.

    A server makes Decoder(): its first packet has to be CONNECT, which also settles `version`. A client makes
    Decoder(version=...). After a ProtocolViolation the decoder is dead: it drops its bytes, swallows all further
    ones and raises the same violation again.

    `packet_bytes_max` (whole packet, fixed header included) may be changed at any time and counts from the next
    packet on. `version` is None until the CONNECT names one; after a violation it is the version to answer in,
    None if the peer speaks no MQTT that could be answered.
    """

    __slots__ = ("_broken", "_buffer", "_bytes_wanted", "packet_bytes_max", "version")

    def __init__(self, version: Version | None = None, packet_bytes_max: int = PACKET_BYTES_MAX_BEFORE_LOGIN) -> None:
        self.version = version
        self.packet_bytes_max = packet_bytes_max
        self._buffer = bytearray()
        self._bytes_wanted = 1
        self._broken: tuple[ReasonCode, str] | None = None

    @property
    def buffered_bytes(self) -> int:
        """Bytes that were fed and not yet taken as packets."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Append bytes as they came from the peer. Parses nothing."""
        if self._broken is None:
            self._buffer += data

    def next_packet(self) -> Packet | None:
        """The next whole packet; None when more bytes are needed. Raises ProtocolViolation and nothing else."""
        if self._broken is not None:
            raise ProtocolViolation(*self._broken)
        if len(self._buffer) < self._bytes_wanted:
            return None
        try:
            return self._take()
        except ProtocolViolation as violation:
            self._broken = (violation.reason_code, violation.reason)
            self._buffer.clear()
            raise

    def packets(self) -> Iterator[Packet]:
        """All packets that are whole by now."""
        while (packet := self.next_packet()) is not None:
            yield packet

    def _take(self) -> Packet | None:
        buffer = self._buffer
        first_byte = buffer[0]
        self._check_first_byte(first_byte)
        header = self._remaining_length()
        if header is None:
            self._bytes_wanted = len(buffer) + 1
            return None
        remaining_bytes, body_at = header
        end = body_at + remaining_bytes
        # From the fixed header alone, before any of the body is waited for (F-36).
        if end > self.packet_bytes_max:
            raise ProtocolViolation(ReasonCode.PACKET_TOO_LARGE, "packet is larger than allowed here")
        if len(buffer) < end:
            self._bytes_wanted = end
            return None
        body = bytes(buffer[body_at:end])
        del buffer[:end]
        self._bytes_wanted = 1
        return self._parse(first_byte, body)

    def _check_first_byte(self, first_byte: int) -> None:
        """[MQTT-3.1.0-1] CONNECT comes first; [2.1.2, 2.1.3] types and flags."""
        if self.version is None:
            if first_byte != _CONNECT:
                raise protocol_error("first packet is not CONNECT")
        elif first_byte not in (_FIRST_BYTES_V5 if self.version == V5 else _FIRST_BYTES_V311):
            raise malformed("packet type is unknown or has wrong flags")

    def _remaining_length(self) -> tuple[int, int] | None:
        """Remaining Length [2.1.4] and where the body starts; None while its bytes are incomplete.

        The shortest form is demanded where the specification does: in MQTT 5 [MQTT-1.5.5-1].
        """
        header = self._buffer[1:5]
        value = 0
        for index, byte in enumerate(header):
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                if index and not byte and self.version == V5:
                    raise malformed("remaining length is longer than needed")
                return value, index + 2
        if len(header) == 4:
            raise malformed("remaining length has no end")
        return None

    def _parse(self, first_byte: int, body: bytes) -> Packet:
        if first_byte == _CONNECT:
            return read_packet(first_byte, body, self._named_version(body))
        assert self.version is not None  # by _check_first_byte
        return read_packet(first_byte, body, self.version)

    def _named_version(self, body: bytes) -> Version:
        """[MQTT-3.1.2-1], [MQTT-3.1.2-2] 0x84 on every other protocol name or level than MQTT 4 and 5.

        Sets `version` first: an MQTT level that is not served is answered by the nearest one that is.
        """
        name, at = read_binary(body, 0)
        level, _ = read_byte(body, at)
        nearest: Version = V5 if level & ~_BRIDGE_BIT >= V5 else V311
        if name in (_NAME, _NAME_V31):
            self.version = nearest
        if name != _NAME or level != nearest:
            raise ProtocolViolation(ReasonCode.UNSUPPORTED_PROTOCOL_VERSION, "protocol name or level is not served")
        return nearest
