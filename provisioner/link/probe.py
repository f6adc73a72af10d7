"""One MQTT 3.1.1 connection that tries what it may not: blocking, for a thread and never for the event loop."""

import ssl
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

from provisioner.model.names import DEFAULT_PORTS
from provisioner.model.secret import Secret
from provisioner.mqtt_client import Client

PATIENCE_S = 3.0  # for an answer that a broker owes
KEEP_ALIVE_S = 60
_LOOK_S = 0.025
_FOR_ITSELF = b"PROXY UNKNOWN\r\n"  # what a proxy says in front of its own health checks


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where a listener is. tls: None for plain. path: of the WebSocket, None for MQTT without one.

    proxied: a connection begins with a PROXY header there."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    path: str | None = None
    proxied: bool = False


@dataclass(frozen=True, slots=True)
class Login:
    """tls: shows the device's certificate, in the place of the door's; None where passwords are what counts."""

    username: str
    password: Secret
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Will:
    topic: str
    payload: bytes
    retain: bool


def door_of(url: str, tls: ssl.SSLContext) -> Door:
    """The listener behind an endpoint that devices are given (EC-18)."""
    parts = urlsplit(url)
    return Door(
        host=parts.hostname or "",
        port=parts.port or DEFAULT_PORTS[parts.scheme],
        tls=tls if parts.scheme in ("mqtts", "wss") else None,
        path=(parts.path or "/mqtt") if parts.scheme in ("ws", "wss") else None,
    )


def trusting(pems: Iterable[str], *, by_name: bool, shown: tuple[str, Secret] | None = None) -> ssl.SSLContext:
    """Trusts these certificates, a server's own among them. by_name: checks the host name, and trusts as well what
    this host trusts; without it the server is known by its certificate alone. shown: our certificate and its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = by_name
    if by_name:
        context.load_default_certs()
    context.load_verify_locations(cadata="\n".join(pems))
    if shown is not None:
        _show(context, *shown)
    return context


def _show(context: ssl.SSLContext, certificate: str, key: Secret) -> None:
    """By way of files, for ``ssl`` reads nothing else; in a folder of ours alone, and gone at once."""
    with tempfile.TemporaryDirectory() as folder:
        both = Path(folder) / "both.pem"
        both.touch(0o600)
        both.write_text(certificate + key.reveal(), "ascii")
        context.load_cert_chain(both)


class Probe:
    """``connect`` first. Whatever a broker does to it ends in an answer: False, or ``is_open`` no more.

    until_s: monotonic time beyond which nothing is waited for."""

    def __init__(
        self,
        door: Door,
        client_id: str,
        login: Login | None,
        until_s: float,
        *,
        clean: bool = True,
        will: Will | None = None,
    ) -> None:
        """login: None comes without."""
        self._door, self._until_s = door, until_s
        self._verdict: str | None = None  # of the CONNACK; empty when it lets in
        self._answered: dict[int, bool] = {}
        self._heard: list[bytes] = []
        self.failure = ""
        self._client = self._made(client_id, clean, login.tls if login else None)
        if login is not None:
            self._client.username_pw_set(login.username, login.password.reveal())
        if will is not None:
            self._client.will_set(will.topic, will.payload, 1, will.retain)

    @property
    def is_open(self) -> bool:
        return self._verdict == "" and self._client.socket() is not None

    @property
    def answered(self) -> bool:
        """There was a CONNACK, whatever it said."""
        return self._verdict is not None

    def connect(self) -> bool:
        """Whether it was let in; ``failure`` says why not."""
        try:
            self._client.connect(self._door.host, self._door.port, KEEP_ALIVE_S)
        except (OSError, ValueError) as error:  # of TLS, of a WebSocket and of names that resolve to nothing, too
            self._client.drop()
            self.failure = _reason(error)
            return False
        self._wait(lambda: self._verdict is not None)
        if self._verdict == "":
            return True
        self.failure = self._verdict or "no CONNACK"
        self.vanish()
        return False

    def subscribe(self, topic_filter: str) -> bool:
        """Whether it was granted, with QoS 1."""
        try:
            _, number = self._client.subscribe(topic_filter, qos=1)
        except ValueError:
            return False
        return self._await_answer(number)

    def unsubscribe(self, topic_filter: str) -> None:
        _, number = self._client.unsubscribe(topic_filter)
        self._await_answer(number)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """QoS 1; a PUBACK proves nothing and is not waited for."""
        self._client.publish(topic, payload, 1, retain)

    def await_payload(self, payload: bytes) -> bool:
        """Whether it comes; it is taken with the others."""
        return self._wait(lambda: payload in self._heard)

    def listen(self, for_s: float) -> None:
        until_s = time.monotonic() + for_s
        while self.is_open and (left_s := until_s - time.monotonic()) > 0:
            self._pump(left_s)

    def take(self) -> list[bytes]:
        """The payloads that came since the last time, in order."""
        heard, self._heard = self._heard, []
        return heard

    def leave(self) -> None:
        """What was published before goes out, then DISCONNECT."""
        if self.is_open:
            self._client.leave()
        self._client.drop()

    def vanish(self) -> None:
        """Without a word: where a broker publishes the Will."""
        self._client.drop()

    def _made(self, client_id: str, clean: bool, own: ssl.SSLContext | None) -> Client:
        client = Client(
            client_id,
            clean=clean,
            tls=(own or self._door.tls) if self._door.tls is not None else None,
            websocket_path=self._door.path,
            comes_back=False,
            preamble=_FOR_ITSELF if self._door.proxied else b"",
        )
        client.connect_timeout = PATIENCE_S
        client.max_inflight_messages_set(200)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _await_answer(self, number: int | None) -> bool:
        return number is not None and self._wait(lambda: number in self._answered) and self._answered.pop(number)

    def _wait(self, done: Callable[[], bool]) -> bool:
        """Read until it is done; False when it is not in time, or cannot be any more."""
        until_s = min(time.monotonic() + PATIENCE_S, self._until_s)
        while not done():
            left_s = until_s - time.monotonic()
            if left_s <= 0 or self._client.socket() is None:
                return False
            self._pump(left_s)
        return True

    def _pump(self, wait_s: float) -> None:
        self._client.turn(min(wait_s, _LOOK_S))

    def _on_connect(self, client: mqtt.Client, data: Any, flags: Any, code: Any, properties: Any) -> None:
        self._verdict = str(code) if code.is_failure else ""

    def _on_subscribe(self, client: mqtt.Client, data: Any, number: int, codes: Any, properties: Any) -> None:
        self._answered[number] = not any(code.is_failure for code in codes)

    def _on_message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        self._heard.append(bytes(message.payload))


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
