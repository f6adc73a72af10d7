"""Where a gate listens, and what stands between its sockets and MQTT there."""

import os
import socket
import ssl
from dataclasses import dataclass

from broker.layers import Layer, Stack
from broker.proxies import Preface, Proxies
from broker.tls import TlsFiles, TlsLayer, reload_context, server_context
from broker.websocket import WebSocketLayer

BACKLOG = 4_096  # with 100, two thousand devices that arrive at once lose SYNs and wait a second each


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """``port`` 0: any free one, see ``Gate.ports``. ``tls`` None: not encrypted. ``name`` reaches ``Login.listener``.

    shared_port: several processes listen on the same port, and the kernel spreads the connections (SO_REUSEPORT).
    proxies: networks of the proxies that devices come through, in CIDR notation. Then each connection has to begin
    with a PROXY header, in front of TLS and WebSocket, and nobody else may connect. None: devices come by themselves.
    """

    name: str
    host: str = "127.0.0.1"
    port: int = 0
    tls: TlsFiles | None = None
    websocket: bool = False
    shared_port: bool = False
    proxies: tuple[str, ...] | None = None


def why_not_opened(error: OSError | UnicodeError) -> str:
    """In the words of the system, without the address, which is in some and not in others."""
    if isinstance(error, UnicodeError):
        return "no host has such a name"
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or type(error).__name__
    return os.strerror(error.errno)


class Entrance:
    """A listener with its TLS context. Raises ssl.SSLError or OSError when the certificate cannot be used, ValueError
    when ``proxies`` are no networks."""

    __slots__ = ("_context", "_proxies", "listener")

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self._proxies = None if listener.proxies is None else Proxies(listener.proxies)
        self._context: ssl.SSLContext | None = None
        if listener.tls is not None:
            self._context = server_context(listener.tls)

    def stack(self) -> Stack | None:
        """The layers of one new socket, None for plain MQTT."""
        layers: list[Layer] = []
        if self._context is not None:
            layers.append(TlsLayer(self._context))
        if self.listener.websocket:
            layers.append(WebSocketLayer())
        return Stack(layers) if layers else None

    def preface(self) -> Preface | None:
        """What one new socket has to begin with; None where it is MQTT or a layer."""
        return None if self._proxies is None else Preface(self._proxies)

    def reload_tls(self) -> None:
        """Read the files again; raises and keeps the former certificate when they are no pair."""
        if self._context is not None and self.listener.tls is not None:
            reload_context(self._context, self.listener.tls)
