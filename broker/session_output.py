"""The bytes for one peer: no packet is larger than it takes, reason strings go only to who wants them."""

from broker.encoding import encode
from broker.packets import V5, V311, Disconnect, Packet, Publish
from broker.properties import Properties
from broker.session_connect import Peer, refusal
from broker.session_settings import Refusal


class MessageTooLarge(Exception):
    """The client's Maximum Packet Size does not allow the message [MQTT-3.1.2-24]; nothing was sent or kept."""

    def __init__(self, packet_bytes: int, packet_bytes_max: int) -> None:
        super().__init__(f"packet of {packet_bytes} bytes, the client takes {packet_bytes_max}")
        self.packet_bytes = packet_bytes
        self.packet_bytes_max = packet_bytes_max


class Output:
    """Collects encoded packets until `take`. `peer` is known once the CONNECT came."""

    __slots__ = ("_frames", "peer")

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self.peer = Peer(V311)

    def take(self) -> bytes:
        """Each byte once."""
        frames = b"".join(self._frames)
        self._frames.clear()
        return frames

    def add(self, frame: bytes) -> None:
        """A packet above the client's maximum is dropped as if it were sent [MQTT-3.1.2-25]."""
        if self._fits(frame):
            self._frames.append(frame)

    def send(self, packet: Packet) -> None:
        """Encode and add."""
        self.add(encode(packet, self.peer.version))

    def message(self, packet: Publish) -> bytes:
        """The encoded PUBLISH, not added yet. Raises MessageTooLarge."""
        frame = encode(packet, self.peer.version)
        limit = self.peer.packet_bytes_max
        if limit is not None and len(frame) > limit:
            raise MessageTooLarge(len(frame), limit)
        return frame

    def refuse(self, kind: Refusal, reason_string: str | None) -> None:
        """CONNACK."""
        worded = refusal(self.peer.version, kind, reason_string if self.peer.wants_reasons else None)
        self.add(worded if self._fits(worded) else refusal(self.peer.version, kind, None))

    def goodbye(self, reason_code: int, reason_string: str | None) -> None:
        """DISCONNECT in MQTT 5; a 3.1.1 server has none [3.14 of 3.1.1]."""
        if self.peer.version == V311:
            return
        plain = Disconnect(reason_code)
        if reason_string is None or not self.peer.wants_reasons:
            self.send(plain)
            return
        worded = encode(Disconnect(reason_code, Properties(reason_string=reason_string)), V5)
        # [MQTT-3.14.2-3] the reason string goes before the packet becomes too large
        self.add(worded if self._fits(worded) else encode(plain, V5))

    def _fits(self, frame: bytes) -> bool:
        limit = self.peer.packet_bytes_max
        return limit is None or len(frame) <= limit
