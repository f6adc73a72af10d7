"""Bytes to control packets, MQTT 3.1.1 and 5.0, in any chunking. Section numbers are those of MQTT 5."""

from collections.abc import Iterator
from typing import Final

from broker.packets import Packet, Version

PACKET_BYTES_MAX_BEFORE_LOGIN: Final = 4_096
PACKET_BYTES_MAX: Final = 66_560


class Decoder:
    """Incremental: `feed` bytes, then take packets until `next_packet` answers None.

    A server makes Decoder(): its first packet has to be CONNECT, which also settles `version`. A client makes
    Decoder(version=...). After a ProtocolViolation the decoder is dead: it drops its bytes, swallows all further
    ones and raises the same violation again.

    `packet_bytes_max` (whole packet, fixed header included) may be changed at any time and counts from the next
    packet on. `version` is None until the CONNECT names one; after a violation it is the version to answer in,
    None if the peer speaks no MQTT that could be answered.
    """

    def __init__(
        self, version: Version | None = None, packet_bytes_max: int = PACKET_BYTES_MAX_BEFORE_LOGIN
    ) -> None:
        self.version = version
        self.packet_bytes_max = packet_bytes_max

    @property
    def buffered_bytes(self) -> int:
        """Bytes that were fed and not yet taken as packets."""
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Append bytes as they came from the peer. Parses nothing."""
        raise NotImplementedError

    def next_packet(self) -> Packet | None:
        """The next whole packet; None when more bytes are needed. Raises ProtocolViolation and nothing else."""
        raise NotImplementedError

    def packets(self) -> Iterator[Packet]:
        """All packets that are whole by now."""
        while (packet := self.next_packet()) is not None:
            yield packet
