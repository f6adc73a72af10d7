"""Where a gate listens, and what stands between its sockets and MQTT there."""

import ssl
from dataclasses import dataclass

from broker.layers import Layer, Stack
from broker.tls import TlsFiles, TlsLayer, reload_context, server_context
from broker.websocket import WebSocketLayer

BACKLOG = 4_096  # with 100, two thousand devices that arrive at once lose SYNs and wait a second each


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """``port`` 0: any free one, see ``Gate.ports``. ``tls`` None: not encrypted. ``name`` reaches ``Login.listener``.

    shared_port: several processes listen on the same port, and the kernel spreads the connections (SO_REUSEPORT).
    """

    name: str
    host: str = "127.0.0.1"
    port: int = 0
    tls: TlsFiles | None = None
    websocket: bool = False
    shared_port: bool = False


class Entrance:
    """A listener with its TLS context. Raises ssl.SSLError or OSError when the certificate cannot be used."""

    __slots__ = ("_context", "listener")

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
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

    def reload_tls(self) -> None:
        """Read the files again; raises and keeps the former certificate when they are no pair."""
        if self._context is not None and self.listener.tls is not None:
            reload_context(self._context, self.listener.tls)
