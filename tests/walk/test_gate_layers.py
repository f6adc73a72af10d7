"""TLS and WebSocket in front of the gate, with a real client library and with peers that break the rules (D1)."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Ping, Pong, Request, TextMessage
from wsproto.events import RejectConnection as Reject

from broker.access import Close
from broker.encoding import encode
from broker.limits import GateLimits
from broker.listener import Listener
from broker.loop import new_event_loop, run
from broker.packets import V311, Connect, PingReq, PingResp, Publish, SubAck, Subscribe, Subscription
from broker.session_settings import SessionSettings
from broker.tls import TlsFiles, server_context
from tests.walk.gate_house import (
    DEADLINE_S,
    PASSWORD,
    House,
    Peer,
    device,
    dial,
    request_topic,
    response_topic,
    running_gate,
    trusting,
    until,
    write_certificate,
)


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return write_certificate(tmp_path)


@pytest.fixture
def house(files: TlsFiles) -> Iterator[House]:
    """All four kinds of listener."""
    listeners = (
        Listener(name="plain"),
        Listener(name="tls", tls=files),
        Listener(name="ws", websocket=True),
        Listener(name="wss", tls=files, websocket=True),
    )
    with running_gate(GateLimits(session=SessionSettings(connect_deadline_s=2.0)), listeners) as running:
        yield running


def paho_walk(port: int, version: MQTTProtocolVersion, tls: ssl.SSLContext | None, websocket: bool) -> list[bytes]:
    """Connect, subscribe, ask twice, leave; the answers."""
    answers: list[bytes] = []
    subscribed, answered, left = threading.Event(), threading.Event(), threading.Event()
    client = paho.Client(
        CallbackAPIVersion.VERSION2, "paho", protocol=version, transport="websockets" if websocket else "tcp"
    )
    client.username_pw_set("fleet", PASSWORD.decode())
    if tls is not None:
        client.tls_set_context(tls)

    def on_connect(client: paho.Client, *_: Any) -> None:
        client.subscribe(response_topic("paho"), qos=1)

    def on_message(client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        answers.append(bytes(message.payload))
        if len(answers) == 2:
            answered.set()

    client.on_connect = on_connect
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = on_message
    client.on_disconnect = lambda *_: left.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        assert subscribed.wait(DEADLINE_S)
        for payload in (b"one", b"x" * 60_000):
            client.publish(request_topic("paho"), payload, qos=1)
        assert answered.wait(DEADLINE_S)
        client.disconnect()
        assert left.wait(DEADLINE_S)
    finally:
        client.loop_stop()
    return answers


@pytest.mark.parametrize("version", [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5])
@pytest.mark.parametrize("listener", ["plain", "tls", "ws", "wss"])
def test_d1_a_common_client_walks_through_every_listener(
    house: House, files: TlsFiles, listener: str, version: MQTTProtocolVersion
) -> None:
    """D1: paho, in both versions, over plain TCP, TLS, WebSocket and both; large messages included."""
    tls = trusting(files) if listener in ("tls", "wss") else None
    answers = paho_walk(house.gate.ports[listener], version, tls, listener in ("ws", "wss"))
    assert answers == [b"answer:one", b"answer:" + b"x" * 60_000]
    house.until_closed("paho", Close.LEFT)
    (login,) = house.application.logins
    assert (login.listener, login.secure, login.address) == (listener, tls is not None, "127.0.0.1")


@pytest.mark.parametrize("loop_factory", [new_event_loop, asyncio.new_event_loop])
def test_tls_versions_and_what_is_refused(
    files: TlsFiles, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """TLS 1.2 and 1.3 are served on either event loop; plain MQTT on a TLS port is cut, and in the audit."""
    with running_gate(None, [Listener(name="tls", tls=files)], loop_factory) as house:
        port = house.gate.ports["tls"]
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(files)
            context.minimum_version = context.maximum_version = version
            with Peer(port, tls=context) as peer:
                assert peer.connect("gw") == 0
                assert isinstance(peer.socket, ssl.SSLSocket)
                assert peer.socket.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
        plain = dial(port)
        plain.sendall(encode(Connect("gw"), V311))
        assert plain.recv(100)[:1] in (b"", b"\x15")
        until(lambda: len(house.application.reasons("packet.violation")) == 1, "the violation is in the audit")
        assert house.application.reasons("packet.violation")[0].startswith("tls_")


def test_tls_1_1_is_not_spoken(files: TlsFiles) -> None:
    """Nothing older than TLS 1.2, and no renegotiation."""
    context = server_context(files)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_f34_a_half_open_tls_handshake_is_dropped(house: House) -> None:
    """F-34: the deadline for CONNECT counts from the TCP connection, handshake included."""
    half = dial(house.gate.ports["tls"])
    half.sendall(b"\x16\x03\x01\x02\x00\x01")
    assert half.recv(100) == b""
    until(lambda: house.application.count("connect.timeout") == 1, "the time-out is in the audit")


def test_a_device_that_ends_tls_properly_without_disconnect_is_lost(house: House, files: TlsFiles) -> None:
    """A close_notify is the end of the connection, and not a DISCONNECT."""
    peer = Peer(house.gate.ports["tls"], tls=trusting(files))
    assert peer.connect("gw") == 0
    assert isinstance(peer.socket, ssl.SSLSocket)
    peer.socket.unwrap().close()
    house.until_closed("gw", Close.LOST)


def test_certificates_are_replaced_without_a_restart(house: House, files: TlsFiles) -> None:
    """New handshakes see the new certificate, open connections go on, and a bad pair of files changes nothing."""
    port = house.gate.ports["tls"]
    former = trusting(files)
    peer = Peer(port, tls=former)
    assert peer.connect("gw") == 0
    write_certificate(files.certificate.parent)
    assert Peer(port, tls=former).connect("early") == 0
    house.call(house.gate.reload_tls)
    with pytest.raises(ssl.SSLCertVerificationError):
        Peer(port, tls=former)
    current = trusting(files)
    assert Peer(port, tls=current).connect("late") == 0

    files.private_key.write_text("nonsense")
    with pytest.raises(ssl.SSLError):
        house.call(house.gate.reload_tls)
    assert Peer(port, tls=current).connect("later") == 0
    peer.socket.close()
    house.until_closed("gw", Close.LOST)


class WebSocketPeer:
    """A raw WebSocket connection."""

    def __init__(self, port: int, subprotocols: list[str]) -> None:
        self.socket = dial(port)
        self.protocol = WSConnection(ConnectionType.CLIENT)
        self.send(Request(host="127.0.0.1", target="/mqtt", subprotocols=subprotocols))

    def send(self, event: Event) -> None:
        self.socket.sendall(self.protocol.send(event))

    def next(self) -> Event | None:
        """The next event, None when the gate hung up."""
        while True:
            for event in self.protocol.events():
                return event
            data = self.socket.recv(65_536)
            if not data:
                return None
            self.protocol.receive_data(data)


def test_websocket_frames_may_cut_packets_anywhere(house: House) -> None:
    """[MQTT-6.0.0-2]: one byte a frame is as good; a ping is answered; a close frame ends it."""
    peer = WebSocketPeer(house.gate.ports["ws"], ["chat", "mqtt"])
    accepted = peer.next()
    assert isinstance(accepted, AcceptConnection)
    assert accepted.subprotocol == "mqtt"
    for byte in encode(Connect("gw", username="fleet", password=PASSWORD), V311):
        peer.send(BytesMessage(data=bytes((byte,))))
    peer.send(Ping(payload=b"p"))
    received = [peer.next(), peer.next()]
    assert any(isinstance(one, Pong) for one in received)
    assert any(isinstance(one, BytesMessage) and bytes(one.data) == b"\x20\x02\x00\x00" for one in received)
    peer.send(CloseConnection(code=1000))
    assert isinstance(peer.next(), CloseConnection)
    house.until_closed("gw", Close.LOST)


def test_websocket_frames_are_never_empty(house: House) -> None:
    """A message that wants no acknowledgement and gets no answer says nothing: no frame comes of it."""
    peer = WebSocketPeer(house.gate.ports["ws"], ["mqtt"])
    assert isinstance(peer.next(), AcceptConnection)
    packets = (Connect("gw", username="fleet", password=PASSWORD), Publish(request_topic("gw"), b"x"), PingReq())
    for packet in packets:
        peer.send(BytesMessage(data=encode(packet, V311)))
    said = b""
    while not said.endswith(encode(PingResp(), V311)):
        frame = peer.next()
        assert isinstance(frame, BytesMessage) and frame.data
        said += frame.data
    until(lambda: house.application.heard("received") == [("gw", "x")], "it was heard")
    peer.send(BytesMessage(data=encode(PingReq(), V311)))
    frame = peer.next()
    assert isinstance(frame, BytesMessage) and frame.data == encode(PingResp(), V311)


def test_websocket_without_the_mqtt_subprotocol_is_refused(house: House) -> None:
    """[MQTT-6.0.0-3]: whoever does not offer "mqtt" gets HTTP 400."""
    peer = WebSocketPeer(house.gate.ports["ws"], ["chat"])
    refused = peer.next()
    assert isinstance(refused, Reject)
    assert refused.status_code == 400
    until(lambda: house.application.reasons("packet.violation") == ["websocket_subprotocol"], "it is in the audit")


def test_websocket_text_frames_end_the_connection(house: House) -> None:
    """[MQTT-6.0.0-1]: MQTT travels in binary frames only; the peer is told 1003."""
    peer = WebSocketPeer(house.gate.ports["ws"], ["mqtt"])
    assert isinstance(peer.next(), AcceptConnection)
    peer.send(TextMessage(data="hello"))
    closing = peer.next()
    assert isinstance(closing, CloseConnection)
    assert closing.code == 1003


@pytest.mark.parametrize(
    "garbage",
    [
        encode(Connect("gw"), V311),
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /mqtt HTTP/1.1\r\nX: " + b"a" * 40_000,
        b"GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: \xe9\r\n\r\n",
        b"GET /mqtt HTTP/1.1\r\nHost: \xe9\r\n\r\n",
        b"GET /mqtt HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Protocol: mqtt, \xe9\r\n\r\n",
    ],
    ids=["mqtt", "http", "endless-header", "connection-not-ascii", "host-not-ascii", "subprotocol-not-ascii"],
)
def test_garbage_on_a_websocket_port_is_cut(house: House, garbage: bytes) -> None:
    """F-36, F-38: plain MQTT, plain HTTP, endless headers and headers beyond ASCII are answered at most with an error,
    and closed."""
    peer = dial(house.gate.ports["ws"])
    peer.sendall(garbage)
    answer = b""
    while data := peer.recv(65_536):
        answer += data
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    until(lambda: len(house.application.reasons("packet.violation")) == 1, "the violation is in the audit")


def test_f35_a_full_gate_answers_through_the_layers(files: TlsFiles) -> None:
    """F-35: the refusal of a full gate reaches clients behind TLS, asked or unasked."""
    limits = GateLimits(connections_max=1, turned_away_wait_s=1.5)
    with running_gate(limits, [Listener(name="plain"), Listener(name="tls", tls=files)]) as house, device(house):
        port = house.gate.ports["tls"]
        assert Peer(port, tls=trusting(files)).connect("extra") == 3
        silent = Peer(port, tls=trusting(files))
        assert silent.socket.recv(100) == b"\x20\x02\x00\x03"


def test_d1_the_gate_runs_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    """D1: uvloop is an accelerator, and its absence is no error."""
    monkeypatch.setitem(__import__("sys").modules, "uvloop", None)
    loop = new_event_loop()
    loop.close()
    assert type(loop).__module__.startswith("asyncio")

    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    assert run(answer()) == 42


def test_a_peer_that_does_not_read_is_not_buffered_without_bound(house: House) -> None:
    """F-36: a device that asks and reads no answer is not read any more at some point, and others are served."""
    stuck = Peer(house.gate.ports["plain"])
    assert stuck.connect("gw") == 0
    stuck.send(Subscribe(1, (Subscription(response_topic("gw"), 0),)))
    assert stuck.next_of(SubAck).codes == (0,)
    stuck.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        for _ in range(2_000):
            stuck.send(Publish(request_topic("gw"), bytes(60_000)))
    with device(house, "other") as other:
        assert other.ask(b"x", "other") == b"answer:x"


def test_a_peer_that_was_sent_away_and_goes_on_sending_is_cut(house: House) -> None:
    """F-36: the wait for a peer to read its refusal is no way to make the gate read for ever."""
    rude = dial(house.gate.ports["plain"])
    with pytest.raises(ConnectionError):
        for _ in range(2_000):
            rude.sendall(bytes(100_000))
