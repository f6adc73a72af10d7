"""A socket whose bytes travel in WebSocket frames, for a device that speaks MQTT over WebSocket."""

import socket

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Request


class WebSocketStream:
    """What ``Wire`` needs of a socket; an end of the WebSocket reads as an end of the stream."""

    def __init__(self, raw: socket.socket) -> None:
        self._socket, self._frames = raw, WSConnection(ConnectionType.CLIENT)
        self._socket.sendall(self._frames.send(Request(host="localhost", target="/mqtt", subprotocols=["mqtt"])))
        self._unread = bytearray()
        self._is_ended = self._is_accepted = False
        while not self._is_accepted:
            self._take(self._socket.recv(65_536))
            if self._is_ended:
                raise ConnectionRefusedError("the upgrade was refused")

    def sendall(self, data: bytes) -> None:
        """Raises OSError when the peer has ended the WebSocket, as a socket would."""
        if self._is_ended:
            raise BrokenPipeError("the peer has closed")
        self._socket.sendall(self._frames.send(BytesMessage(data=data)))

    def recv(self, size: int) -> bytes:
        """At most ``size`` bytes; b"" at the end."""
        while not self._unread and not self._is_ended:
            self._take(self._socket.recv(65_536))
        taken = bytes(self._unread[:size])
        del self._unread[:size]
        return taken

    def settimeout(self, timeout_s: float | None) -> None:
        self._socket.settimeout(timeout_s)

    def close(self) -> None:
        """Without a closing handshake, as a device that loses its line."""
        self._socket.close()

    def _take(self, data: bytes) -> None:
        if not data:
            self._is_ended = True
            return
        self._frames.receive_data(data)
        for event in self._frames.events():
            match event:
                case AcceptConnection():
                    self._is_accepted = True
                case BytesMessage():
                    self._unread += event.data
                case CloseConnection():
                    self._is_ended = True
