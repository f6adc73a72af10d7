"""MQTT over WebSocket as a layer: the server side of section 6 of both MQTT versions, on wsproto."""

from wsproto import WSConnection
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from broker.layers import LayerBroken

SUBPROTOCOL = "mqtt"
_NORMAL_CLOSURE = 1000  # RFC 6455 7.4.1
_UNSUPPORTED_DATA = 1003


class WebSocketLayer:
    """See ``Layer``. Frames carry MQTT bytes in any cut [MQTT-6.0.0-2]; a text frame ends it [MQTT-6.0.0-1]."""

    __slots__ = ("_is_ended", "_output", "_websocket")

    def __init__(self) -> None:
        self._websocket = WSConnection(ConnectionType.SERVER)
        self._output = bytearray()
        self._is_ended = False

    @property
    def is_ready(self) -> bool:
        return self._websocket.state is ConnectionState.OPEN

    @property
    def is_ended(self) -> bool:
        return self._is_ended

    def receive(self, data: bytes) -> bytes:
        inner = bytearray()
        try:
            self._websocket.receive_data(data)
            for event in self._websocket.events():
                self._take(event, inner)
        except RemoteProtocolError as error:
            if error.event_hint is not None:
                self._output += self._websocket.send(error.event_hint)
            self._is_ended = True
            raise LayerBroken("websocket_malformed") from None
        except UnicodeError:  # wsproto lets it out for a header that is not ASCII
            self._is_ended = True
            raise LayerBroken("websocket_malformed") from None
        except LocalProtocolError:
            self._is_ended = True
            raise LayerBroken("websocket_closed") from None
        return bytes(inner)

    def send(self, data: bytes) -> None:
        if self.is_ready:
            self._output += self._websocket.send(BytesMessage(data=data))

    def end(self) -> None:
        if self.is_ready:
            self._output += self._websocket.send(CloseConnection(code=_NORMAL_CLOSURE))
        self._is_ended = True

    def take_output(self) -> bytes:
        output = bytes(self._output)
        self._output.clear()
        return output

    def _take(self, event: object, inner: bytearray) -> None:
        match event:
            case BytesMessage():
                inner += event.data
            case Request():
                self._upgrade(event)
            case Ping():
                self._output += self._websocket.send(event.response())
            case CloseConnection():
                if self._websocket.state is ConnectionState.REMOTE_CLOSING:
                    self._output += self._websocket.send(event.response())
                self._is_ended = True
            case TextMessage():
                self._output += self._websocket.send(CloseConnection(code=_UNSUPPORTED_DATA))
                self._is_ended = True
                raise LayerBroken("websocket_text")
            case _:
                return  # a pong: nothing waits for it

    def _upgrade(self, request: Request) -> None:
        """The client offers "mqtt" and is told so [MQTT-6.0.0-3, -4]; without it there is nothing to talk about."""
        if SUBPROTOCOL not in request.subprotocols:
            self._output += self._websocket.send(RejectConnection(status_code=400))
            self._is_ended = True
            raise LayerBroken("websocket_subprotocol")
        self._output += self._websocket.send(AcceptConnection(subprotocol=SUBPROTOCOL))
