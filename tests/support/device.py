"""A device as a test drives it: one blocking socket, our own packets, and the words of the walk."""

import json
import socket
import ssl
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from broker.decoding import Decoder
from broker.encoding import encode
from broker.packets import (
    V311,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Version,
    Will,
)
from broker.properties import NO_PROPERTIES, Properties
from tests.support.websocket import WebSocketStream

DEADLINE_S = 8.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect to. ca: None for plain TCP. source: the loopback address to come from. certificate: PEM file of
    a certificate and its key, to show there."""

    port: int
    ca: Path | None = None
    host: str = "127.0.0.1"
    source: str = "127.0.0.1"
    websocket: bool = False
    certificate: Path | None = None


class Wire:
    """One connection, from ``connect`` on. Packets that were not waited for are kept in order."""

    def __init__(self, address: Address, version: Version = V311) -> None:
        self.version = version
        raw = socket.create_connection((address.host, address.port), DEADLINE_S, (address.source, 0))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.ca is not None:
            raw = _secured(raw, address.ca, address.certificate)
        self.socket: socket.socket | WebSocketStream = WebSocketStream(raw) if address.websocket else raw
        self.greeting: ConnAck | None = None
        self._decoder = Decoder(version=version, packet_bytes_max=8_000_000)
        self._kept: list[Packet] = []
        self._packet_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Vanish without a DISCONNECT."""
        self.socket.close()

    def send(self, *packets: Packet) -> None:
        self.socket.sendall(b"".join(encode(packet, self.version) for packet in packets))

    def next_id(self) -> int:
        self._packet_id = self._packet_id % 65_535 + 1
        return self._packet_id

    def connect(
        self,
        client_id: str,
        username: str | None,
        password: str | None,
        *,
        will: Will | None = None,
        clean: bool = True,
        properties: Properties = NO_PROPERTIES,
    ) -> int:
        """CONNECT, and the code of the CONNACK (whole in ``greeting``); -1 when the peer just closed."""
        secret = password.encode() if password is not None else None
        self.send(Connect(client_id, clean, 60, username, secret, will, properties))
        packet = self.next(ConnAck)
        self.greeting = packet if isinstance(packet, ConnAck) else None
        return self.greeting.code if self.greeting else -1

    def subscribe(self, *filters: str) -> tuple[int, ...]:
        """The codes of the SUBACK; empty when the peer closed."""
        id = self.next_id()
        self.send(Subscribe(id, tuple(Subscription(each, 1) for each in filters)))
        packet = self.next(SubAck)
        return packet.codes if isinstance(packet, SubAck) else ()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, dup: bool = False, wait: bool = True) -> int:
        """QoS 1. The code of the PUBACK (0 in 3.1.1), -1 when the peer closed; 0 at once without ``wait``."""
        self.send(Publish(topic, payload, qos=1, retain=retain, dup=dup, packet_id=self.next_id()))
        if not wait:
            return 0
        packet = self.next(PubAck)
        return packet.code if isinstance(packet, PubAck) else -1

    def message(self, timeout_s: float = DEADLINE_S, *, acknowledge: bool = True) -> Publish | None:
        """The next message, acknowledged; None when none comes in time or the peer closed."""
        packet = self.next(Publish, timeout_s=timeout_s)
        if not isinstance(packet, Publish):
            return None
        if acknowledge and packet.packet_id is not None:
            self.send(PubAck(packet.packet_id))
        return packet

    def next(self, *kinds: type[Any], timeout_s: float = DEADLINE_S) -> Packet | None:
        """The next packet of these kinds (of any, without); None at the deadline or once the peer closed."""
        until_s = time.monotonic() + timeout_s
        while True:
            for index, packet in enumerate(self._kept):
                if not kinds or isinstance(packet, kinds):
                    return self._kept.pop(index)
            if not self._read(until_s - time.monotonic()):
                return None

    def heard_until_own(self, topic: str) -> list[tuple[str, bytes]]:
        """What came before a message that it sends to itself on that topic now; fails when the peer closed."""
        self.publish(topic, b"", wait=False)
        messages: list[tuple[str, bytes]] = []
        while (message := self.message()) is not None and message.topic != topic:
            messages.append((message.topic, message.payload))
        assert message is not None, "the connection is gone"
        return messages

    def heard(self) -> list[Publish]:
        """Every message that came before the answer to a PINGREQ that is sent now; fails when the peer closed."""
        self.send(PingReq())
        assert self.next(PingResp) is not None, "the connection is gone"
        messages = [packet for packet in self._kept if isinstance(packet, Publish)]
        self._kept = [packet for packet in self._kept if not isinstance(packet, Publish)]
        return messages

    def is_cut(self, timeout_s: float = DEADLINE_S) -> bool:
        """Whether the peer closes within the time; what it still says is dropped."""
        until_s = time.monotonic() + timeout_s
        while (left_s := until_s - time.monotonic()) > 0:
            if not self._read(left_s) and time.monotonic() < until_s:
                return True
        return False

    def leave(self) -> None:
        self.send(Disconnect())
        self.close()

    def _read(self, timeout_s: float) -> bool:
        """False when nothing came in time, or nothing can come any more."""
        if timeout_s <= 0:
            return False
        self.socket.settimeout(timeout_s)
        try:
            data = self.socket.recv(65_536)
        except (TimeoutError, OSError):
            return False
        self._decoder.feed(data)
        self._kept += self._decoder.packets()
        return bool(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What an administrator wrote into the device."""

    client_id: str
    username: str
    password: str
    activation_key: str | None = None


class JsonDevice:
    """A device of the native dialect on one connection to the gate, already connected and subscribed."""

    def __init__(self, gate: Address, credentials: Credentials, version: Version = V311) -> None:
        self.credentials, self.gate = credentials, gate
        self.wire = Wire(gate, version)
        self.base = f"prov/v1/{credentials.client_id}"
        code = self.wire.connect(credentials.client_id, credentials.username, credentials.password)
        if code != 0:
            self.wire.close()
            raise ConnectionRefusedError(f"CONNACK {code}")
        codes = self.wire.subscribe(f"{self.base}/response")
        if codes != (1,):
            self.wire.close()
            raise ConnectionAbortedError(f"SUBACK {codes}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.wire.close()

    def ask(self, message_id: str = "m-1", **changes: Any) -> dict[str, Any]:
        """Publish a provision message and return the answer; changes: fields to add, or None to leave one out."""
        answer = json.loads(self.ask_raw(self.payload(message_id, **changes)))
        assert isinstance(answer, dict)
        return answer

    def payload(self, message_id: str = "m-1", **changes: Any) -> bytes:
        key = {"activation_key": self.credentials.activation_key} if self.credentials.activation_key else {}
        body = {"request_id": message_id, **key, "device": {"serial_number": "SN-1"}, **changes}
        return json.dumps({name: value for name, value in body.items() if value is not None}).encode()

    def ask_raw(self, payload: bytes) -> bytes:
        """Publish these bytes and return the answer's; fails when none comes."""
        self.wire.publish(f"{self.base}/request", payload)
        message = self.wire.message()
        assert message is not None, "no answer came"
        assert message.topic == f"{self.base}/response"
        assert not message.retain
        return message.payload

    def acknowledge(self, message_id: str = "m-1", result: str = "applied") -> int:
        return self.wire.publish(f"{self.base}/ack", json.dumps({"request_id": message_id, "result": result}).encode())


def connect_to_account(answer: Mapping[str, Any], address: Address, *, client_id: str | None = None) -> Wire:
    """A connection to the account broker with the answer's credentials, greeted once; raises when refused."""
    wire = Wire(address)
    own = client_id or str(answer["client_id"])
    try:
        code = wire.connect(own, str(answer["username"]), str(answer["password"]))
        if code != 0:
            raise ConnectionRefusedError(f"CONNACK {code}")
        wire.publish(f"{answer['account']}/{own}/hello", b"here I am")
    except OSError:
        wire.close()
        raise
    return wire


def _secured(raw: socket.socket, ca: Path, certificate: Path | None) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        context.load_cert_chain(certificate)
    try:
        return context.wrap_socket(raw, server_hostname="localhost")
    except OSError as error:
        # A reset just before the handshake is raised out of a socket that Python has made, and leaves open.
        for frame, _ in traceback.walk_tb(error.__traceback__):
            for each in frame.f_locals.values():
                if isinstance(each, socket.socket):
                    each.close()
        raise
