"""One connection of a device, by paho, driven by the event loop: no thread per device.

Name look-up, connect and TLS handshake block in paho, so they run in a bounded thread pool; from then on the socket
belongs to the loop. Faults are injected here, and on the way to the gate only.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from device_sim.actions import (
    Connected,
    ConnectRefused,
    Disconnected,
    Event,
    Leg,
    Message,
    Published,
    Subscribed,
    Target,
)
from device_sim.faults import Faults
from device_sim.timing import Timeouts
from device_sim.trust import Trust
from provisioner.model.names import DEFAULT_PORTS

FAREWELL_S = 2.0  # for a DISCONNECT to get out of a full socket
READS_MAX = 64  # packets per turn of the loop, so that one busy device does not starve the others


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """What all connections of a fleet share. pool: bounds how many connects and handshakes run at once."""

    pool: Executor
    trust: Trust
    timeouts: Timeouts
    protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311


class _Client(mqtt.Client):
    """paho with two faults built in, and without its leak of the socket when a TLS or WebSocket handshake fails.

    All of it needs private methods of paho, which the walk tests pin.
    """

    cut_at_byte: int | None = None
    on_cut: Callable[[], None] | None = None
    _sent = 0
    _newest_socket: socket.socket | None = None

    def connect_or_close(self, host: str, port: int, keep_alive_s: int, clean_start: bool | Literal[3]) -> None:
        try:
            self.connect(host, port, keep_alive_s, clean_start=clean_start)
        except (OSError, ValueError):
            if self._newest_socket is not None:
                self._newest_socket.close()
            raise

    def _create_socket_connection(self) -> socket.socket:
        self._newest_socket = super()._create_socket_connection()
        return self._newest_socket

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        if self._ssl_context is None:
            raise ValueError("TLS without a context")
        tcp_sock.getpeername()  # raises when the peer has reset already; wrapping would lose the descriptor then
        line = self._ssl_context.wrap_socket(tcp_sock, server_hostname=self.host, do_handshake_on_connect=False)
        self._newest_socket = line
        line.settimeout(self.connect_timeout)
        line.do_handshake()
        return line

    def _sock_send(self, buf: bytes | bytearray) -> int:
        if self.cut_at_byte is not None and self._sent + len(buf) >= self.cut_at_byte:
            super()._sock_send(buf[: self.cut_at_byte - self._sent])
            if self.on_cut is not None:
                self.on_cut()
            raise ConnectionResetError("cut")
        sent = super()._sock_send(buf)
        self._sent += sent
        return sent

    def publish_again(self, topic: str, payload: bytes, mid: int) -> None:
        """The same QoS 1 message with DUP set, as after a lost PUBACK [MQTT-3.3.1-1]."""
        self._send_publish(mid, topic.encode(), payload, 1, False, True)


class Link:
    """Use once: `connect`, then what you like, until `emit` gets ConnectRefused or Disconnected, exactly once.

    Every method and every call of `emit` belongs to the loop's thread; `emit` is never called from inside a method.
    """

    def __init__(self, options: LinkOptions, faults: Faults, emit: Callable[[Event], None]) -> None:
        self._options = options
        self._faults = faults
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._client: _Client | None = None
        self._descriptor: int | None = None
        self._is_up = self._is_leaving = self._is_over = self._is_to_gate = False
        self._cut_at_byte: int | None = None
        self._pause_s = 0.0
        self._topics: dict[int, str] = {}
        self._deadline: asyncio.TimerHandle | None = None
        self._next_keep_alive: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    def connect(self, target: Target) -> None:
        self._is_to_gate = target.leg is Leg.GATE
        if self._is_to_gate:
            self._cut_at_byte, self._pause_s = self._faults.cut_at_byte(), self._faults.pause_s()
        self._opening = self._loop.create_task(self._open(target))

    def subscribe(self, filters: tuple[str, ...]) -> None:
        if self._client is not None:
            self._client.subscribe([(each, 1) for each in filters])

    def publish(self, topic: str, payload: bytes, qos: int, *, asks: bool = False) -> None:
        if self._client is None:
            return
        try:
            info = self._client.publish(topic, payload, qos)
        except ValueError:
            self.abort()  # a delivered name that cannot stand in a topic
            return
        if qos and info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._topics[info.mid] = topic
            if asks and self._faults.duplicate():
                self._client.publish_again(topic, payload, info.mid)

    def disconnect(self) -> None:
        """In order: what was published before goes out, then DISCONNECT."""
        if self._client is None or not self._is_up:
            self.abort()
            return
        if self._is_leaving:
            return
        self._is_leaving = True
        self._client.disconnect()
        self._set_deadline(FAREWELL_S)

    def abort(self) -> None:
        """At once and without a word."""
        self._loop.call_soon(self._end, None)

    async def wait_closed(self) -> None:
        """Until it has ended and no thread of the pool works for it any more."""
        await self._ended.wait()
        if self._opening is not None:
            await self._opening

    # --- life ---------------------------------------------------------------------------------------------------

    async def _open(self, target: Target) -> None:
        try:
            client = await self._loop.run_in_executor(self._options.pool, self._dial, target)
        except (OSError, ValueError) as error:
            # ssl.SSLError and WebsocketConnectionError are OSErrors; ValueError: what cannot stand in a CONNECT.
            self._end(ConnectRefused(None, type(error).__name__))
            return
        sock = client.socket()
        if self._is_over or sock is None:
            if sock is not None:
                sock.close()
            self._end(ConnectRefused(None, "no CONNACK"))
            return
        self._client, self._descriptor = client, sock.fileno()
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_writing
        client.on_socket_unregister_write = self._on_written
        self._loop.add_reader(self._descriptor, self._readable)
        if client.want_write():
            self._on_writing(client, None, sock)
        self._set_deadline(self._options.timeouts.connack_s)
        self._keep_alive()

    def _dial(self, target: Target) -> _Client:
        """In a thread of the pool; nobody else knows the client yet."""
        parts = urlsplit(target.url)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            raise ValueError("no MQTT address")
        options, is_v5 = self._options, self._options.protocol == MQTTProtocolVersion.MQTTv5
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=target.client_id,
            clean_session=None if is_v5 else True,
            protocol=options.protocol,
            transport="websockets" if parts.scheme in ("ws", "wss") else "tcp",
            reconnect_on_failure=False,
        )
        client.username_pw_set(target.username, target.password.reveal())
        client.connect_timeout = options.timeouts.connect_s
        if parts.scheme in ("ws", "wss"):
            client.ws_set_options(path=parts.path or "/mqtt")
        if parts.scheme in ("mqtts", "wss"):
            client.tls_set_context(options.trust.context(target))
        if target.will is not None:
            client.will_set(target.will.topic, target.will.payload, target.will.qos)
        client.cut_at_byte = self._cut_at_byte
        client.on_cut = lambda: self._faults.happened("cut")
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        clean = True if is_v5 else mqtt.MQTT_CLEAN_START_FIRST_ONLY
        client.connect_or_close(parts.hostname, port, options.timeouts.keep_alive_s, clean)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_publish, client.on_message = (
            self._on_subscribe,
            self._on_publish,
            self._on_message,
        )
        return client

    def _end(self, event: Event | None) -> None:
        """event: None takes the one that fits."""
        if self._is_over:
            return
        self._is_over = True
        for timer in (self._deadline, self._next_keep_alive):
            if timer is not None:
                timer.cancel()
        if self._client is not None and (sock := self._client.socket()) is not None:
            self._forget_socket()
            sock.close()
        fitting = Disconnected() if self._is_up else ConnectRefused(None, "no CONNACK")
        self._ended.set()
        self._emit(event or fitting)

    def _set_deadline(self, in_s: float) -> None:
        """The time by which the CONNACK must be there, later the DISCONNECT be gone."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(in_s, self._end, None)

    def _keep_alive(self) -> None:
        if self._client is not None and not self._is_over:
            self._client.loop_misc()
            every_s = max(0.5, self._options.timeouts.keep_alive_s / 4)
            self._next_keep_alive = self._loop.call_later(every_s, self._keep_alive)

    # --- socket -------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        if self._client is None:
            return
        for _ in range(READS_MAX):
            self._client.loop_read()
            sock = self._client.socket()
            # Decrypted bytes wait inside the TLS socket, where the loop cannot see them.
            if sock is None or self._pause_s or not (hasattr(sock, "pending") and sock.pending()):
                break
        if self._pause_s and self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._loop.call_later(self._pause_s, self._read_on)

    def _read_on(self) -> None:
        if self._descriptor is not None and not self._is_over:
            self._loop.add_reader(self._descriptor, self._readable)
            self._readable()

    def _writable(self) -> None:
        if self._client is not None:
            self._client.loop_write()

    def _on_writing(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        if self._descriptor is not None:
            self._loop.add_writer(self._descriptor, self._writable)

    def _on_written(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        if self._descriptor is not None:
            self._loop.remove_writer(self._descriptor)

    def _on_socket_close(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        self._forget_socket()

    def _forget_socket(self) -> None:
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
            self._descriptor = None

    # --- paho's callbacks: they hold paho's lock, so each only leaves a note for the loop -----------------------

    def _later(self, event: Event) -> None:
        self._loop.call_soon(self._tell, event)

    def _tell(self, event: Event) -> None:
        if not self._is_over:
            self._emit(event)

    def _on_connect(self, client: mqtt.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._loop.call_soon(self._end, ConnectRefused(reason.value, str(reason)))
            return
        self._is_up = True
        if self._deadline is not None:
            self._deadline.cancel()
        self._later(Connected())

    def _on_disconnect(self, client: mqtt.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._loop.call_soon(self._end, None)

    def _on_subscribe(self, client: mqtt.Client, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        self._later(Subscribed(tuple(reason.value for reason in reasons)))

    def _on_publish(self, client: mqtt.Client, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        topic = self._topics.pop(mid, None)
        if topic is not None:
            self._later(Published(topic, reason.value))

    def _on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        lost = self._faults.lost_answer() if self._is_to_gate else None
        if lost == "cut" and (sock := client.socket()) is not None:
            # Closing is paho's; a socket shut down under it is what a broken line looks like.
            with socket.socket(fileno=os.dup(sock.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)
        if lost is None:
            try:
                self._later(Message(message.topic, bytes(message.payload)))
            except UnicodeDecodeError:
                return  # no topic that anybody subscribed to
