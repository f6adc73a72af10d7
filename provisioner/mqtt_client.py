"""The MQTT client of every connection that the service makes: paho, made fit for a process that holds a fleet.

paho waits by ``select``, which takes no descriptor beyond 1,023; a service that serves devices has those. It leaves
Nagle's algorithm on, which costs 44 ms an exchange here, and the socket open when a handshake fails; it comes back in
step with everybody else (F-31), and cannot leave while it waits. All of this is changed by private methods of paho;
tests/contracts/test_service_client.py pins each.
"""

import contextlib
import random
import select
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

_IS_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL
_WAKINGS_AT_ONCE = 10_000
_chance = random.SystemRandom()  # of its own: what others draw does not depend on when a broker is away


class _Line(Protocol):
    def fileno(self) -> int: ...


class Client(mqtt.Client):
    """paho's client; ``turn`` is one step of its network loop, ``leave`` and ``drop`` are its ends."""

    _newest: socket.socket | None = None

    def __init__(
        self,
        client_id: str,
        *,
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
        clean: bool | None = None,
        tls: ssl.SSLContext | None = None,
        websocket_path: str | None = None,
        comes_back: bool = True,
        manual_ack: bool = False,
        preamble: bytes = b"",
    ) -> None:
        """clean: None in MQTT 5, where each connect says it. tls: as it is, with its own rules about names.
        preamble: said before anything else, TLS included."""
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean,
            protocol=protocol,
            transport="tcp" if websocket_path is None else "websockets",
            reconnect_on_failure=comes_back,
            manual_ack=manual_ack,
        )
        self._preamble, self._is_leaving = preamble, threading.Event()
        if tls is not None:
            self.tls_set_context(tls)
        if websocket_path is not None:
            self.ws_set_options(path=websocket_path)

    def turn(self, wait_s: float) -> MQTTErrorCode:
        """Wait for the network at most so long, then read, write and look after the keep-alive."""
        return self._loop(wait_s)

    def leave(self) -> None:
        """Send what waits and DISCONNECT, and end the network thread if there is one. Blocks."""
        self._is_leaving.set()
        self.disconnect()
        self.loop_stop()
        self.drop()

    def drop(self) -> None:
        """Close without a DISCONNECT. Not while a network thread runs."""
        self._reset_sockets()
        if self._newest is not None:
            self._newest.close()

    def reconnect(self) -> MQTTErrorCode:
        try:
            return super().reconnect()
        except (OSError, ValueError):
            if self._newest is not None:
                self._newest.close()
            raise

    def _loop(self, timeout: float = 1.0) -> MQTTErrorCode:
        line, waker = self._sock, self._sockpairR
        if line is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        held_back = getattr(line, "pending", lambda: 0)() > 0  # by the TLS layer, where ``poll`` does not see it
        try:
            happened = _poll(line, waker, 0.0 if held_back else timeout, wants_write=self.want_write())
        except (ValueError, OSError):  # another thread closed it just now
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        if held_back or happened.get(line.fileno(), 0) & _IS_READABLE:
            code = self.loop_read()
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS or self._sock is None:
                return code
        is_woken = waker is not None and waker.fileno() in happened
        if waker is not None and is_woken:
            with contextlib.suppress(BlockingIOError):
                waker.recv(_WAKINGS_AT_ONCE)
        if is_woken or happened.get(line.fileno(), 0) & select.POLLOUT:
            code = self.loop_write()
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS or self._sock is None:
                return code
        return self.loop_misc()

    def _reconnect_wait(self) -> None:
        with self._reconnect_delay_mutex:
            former_s = self._reconnect_delay
            longest_s = self._reconnect_min_delay if former_s is None else former_s * 2
            self._reconnect_delay = longest_s = min(longest_s, self._reconnect_max_delay)
        self._is_leaving.wait(_chance.uniform(0, longest_s))

    def _create_socket_connection(self) -> socket.socket:
        self._newest = super()._create_socket_connection()
        self._newest.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._newest.sendall(self._preamble)
        return self._newest

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        if self._ssl_context is None:
            raise ValueError("TLS without a context")
        tcp_sock.getpeername()  # raises when the peer has reset already; wrapping would lose the descriptor then
        line = self._ssl_context.wrap_socket(tcp_sock, server_hostname=self.host, do_handshake_on_connect=False)
        self._newest = line
        line.settimeout(self.connect_timeout)
        line.do_handshake()
        return line


def _poll(line: _Line, waker: _Line | None, wait_s: float, *, wants_write: bool) -> Mapping[int, int]:
    """What happened, by descriptor. waker: gets a byte from a thread that has put something into the queue."""
    ready = select.poll()
    ready.register(line.fileno(), select.POLLIN | (select.POLLOUT if wants_write else 0))
    if waker is not None:
        ready.register(waker.fileno(), select.POLLIN)
    return dict(ready.poll(wait_s * 1_000))
