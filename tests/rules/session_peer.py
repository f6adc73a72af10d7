"""The client side of a sans-IO session: encodes what a device sends, decodes what the gate answers."""

from broker.decoding import PACKET_BYTES_MAX, Decoder
from broker.encoding import encode
from broker.packets import V311, Connect, Packet, Version
from broker.session import Session
from broker.session_events import ConnectReceived, Event
from broker.session_settings import SessionSettings
from broker.session_state import State

SETTINGS = SessionSettings()


class SessionPeer:
    """One session and the device at its other end; `now` is the time that every call passes on."""

    def __init__(self, version: Version = V311, settings: SessionSettings = SETTINGS) -> None:
        self.version = version
        self.now = 1_000.0
        self.session = Session(settings, self.now)
        self._decoder = Decoder(version, PACKET_BYTES_MAX)

    def send(self, *packets: Packet) -> list[Event]:
        """What the session makes of the packets, sent in one piece."""
        return self.session.receive(b"".join(encode(packet, self.version) for packet in packets), self.now)

    def answers(self) -> list[Packet]:
        """What the session has sent since the last call."""
        self._decoder.feed(self.session.take_output())
        return list(self._decoder.packets())

    def tick_at_deadline(self) -> list[Event]:
        """Let time pass to the next deadline, check that nothing is due just before it, and tick."""
        deadline = self.session.deadline()
        assert deadline is not None
        assert self.session.tick(deadline - 0.001) == []
        self.now = deadline
        return self.session.tick(deadline)


def opened(
    version: Version = V311, connect: Connect | None = None, settings: SessionSettings = SETTINGS
) -> SessionPeer:
    """A session whose CONNECT was accepted; the CONNACK is already taken."""
    peer = SessionPeer(version, settings)
    (event,) = peer.send(connect or Connect("dev", username="u", password=b"p"))
    assert isinstance(event, ConnectReceived)
    assert peer.session.accept(peer.now) == []
    assert peer.session.state is State.OPEN
    peer.answers()
    return peer
