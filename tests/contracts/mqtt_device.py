"""A device of the contract suites: paho-mqtt over a real socket, driven by blocking calls with deadlines."""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

SOON_S: Final = 10.0  # on a busy machine
ACCEPTED: Final = "Success"


def until(holds: Callable[[], bool], within_s: float = SOON_S) -> bool:
    """Whether ``holds`` became true in time; asks again every 5 ms."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


class Device:
    """One connection, never made again by itself. ``received``: (topic, payload, retain) in order of arrival."""

    def __init__(
        self,
        address: tuple[str, int],
        client_id: str,
        username: str | None = None,
        password: str | None = None,
        ca_file: Path | None = None,
        will: tuple[str, bytes, bool] | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self._address = address
        self._answers: dict[int, list[ReasonCode]] = {}
        self._verdict: str | None = None
        self.received: list[tuple[str, bytes, bool]] = []
        self.left = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, reconnect_on_failure=False)
        if username is not None or password is not None:
            self._client.username_pw_set(username, password)
        if ca_file is not None:
            own = (None, None) if certificate is None else (str(certificate[0]), str(certificate[1]))
            self._client.tls_set(str(ca_file), *own)
        if will is not None:
            self._client.will_set(will[0], will[1], qos=1, retain=will[2])
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def connect(self) -> str:
        """paho's name of the return code, ``closed`` when the server hung up without one."""
        try:
            self._client.connect(*self._address, keepalive=30)
        except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
            return "closed"  # refused within the handshake
        self._client.loop_start()
        assert until(lambda: self._verdict is not None), "the server neither answered nor hung up"
        return str(self._verdict)

    def admitted(self) -> Self:
        assert self.connect() == ACCEPTED
        return self

    def subscribe(self, topic_filter: str, qos: int = 1) -> bool:
        """Whether it was granted; a server that hangs up instead has refused too."""
        _, number = self._client.subscribe(topic_filter, qos)
        assert until(lambda: number in self._answers or self.left.is_set()), "no SUBACK"
        return number in self._answers and not self._answers[number][0].is_failure

    def publish(self, topic: str, payload: bytes = b"x", retain: bool = False, qos: int = 1) -> None:
        """Returns when it was acknowledged, or the server hung up."""
        sent = self._client.publish(topic, payload, qos=qos, retain=retain)
        if sent.rc == mqtt.MQTT_ERR_NO_CONN:  # it hung up before this was sent
            assert self.left.wait(SOON_S)
            return
        assert until(lambda: sent.is_published() or self.left.is_set()), "no PUBACK"

    def got(self, topic: str, payload: bytes) -> bool:
        """Wait for that message."""
        return until(lambda: any(message[:2] == (topic, payload) for message in self.received))

    def vanish(self) -> None:
        """End the connection without DISCONNECT: the Will is due."""
        sock = self._client.socket()
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_RDWR)
        assert self.left.wait(SOON_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        if (sock := self._client.socket()) is not None:  # its thread ended before it saw the server close
            sock.close()

    def _on_connect(self, client: Any, data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        self._verdict = code.getName()

    def _on_disconnect(self, client: Any, data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        self._verdict = self._verdict or "closed"
        self.left.set()

    def _on_subscribe(self, client: Any, data: Any, number: int, codes: list[ReasonCode], properties: Any) -> None:
        self._answers[number] = codes

    def _on_message(self, client: Any, data: Any, message: mqtt.MQTTMessage) -> None:
        self.received.append((message.topic, bytes(message.payload), message.retain))
