"""What may stand between the socket and the MQTT session: TLS, WebSocket, both or nothing. Sans-IO."""

from collections.abc import Sequence
from typing import Protocol


class LayerBroken(Exception):
    """The peer broke the layer's protocol. ``reason`` is a code that quotes no input."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Layer(Protocol):
    """Bytes of the outer side in, bytes of the inner side out, and the other way round."""

    @property
    def is_ready(self) -> bool:
        """Its handshake is over, so that ``send`` may be used."""

    @property
    def is_ended(self) -> bool:
        """The peer said goodbye on this layer; nothing more will come."""

    def receive(self, data: bytes) -> bytes:
        """Raises LayerBroken; ``take_output`` may have something to send after it nevertheless."""

    def send(self, data: bytes) -> None: ...

    def end(self) -> None:
        """Say goodbye, if the layer got far enough for it."""

    def take_output(self) -> bytes:
        """Bytes for the outer side; each is handed out once."""


class Stack:
    """Layers from the socket inwards. With none of them bytes pass as they are."""

    __slots__ = ("_layers", "_output")

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = tuple(layers)
        self._output = bytearray()

    @property
    def is_ready(self) -> bool:
        return all(layer.is_ready for layer in self._layers)

    @property
    def is_ended(self) -> bool:
        return any(layer.is_ended for layer in self._layers)

    def receive(self, data: bytes) -> bytes:
        """What the innermost layer yields. Raises LayerBroken."""
        try:
            for layer in self._layers:
                data = layer.receive(data)
                if not data:
                    break
        finally:
            self._collect()
        return data

    def send(self, data: bytes) -> None:
        if not self._layers:
            self._output += data
            return
        self._layers[-1].send(data)
        self._collect()

    def end(self) -> None:
        """Goodbye on every layer, from the inside outwards."""
        for depth in range(len(self._layers), 0, -1):
            self._layers[depth - 1].end()
            self._collect(depth)

    def take_output(self) -> bytes:
        """Bytes for the socket; each is handed out once."""
        output = bytes(self._output)
        self._output.clear()
        return output

    def _collect(self, depth: int | None = None) -> None:
        """Carry what the layers want to send outwards, through the layers outside of each."""
        layers = self._layers[:depth]
        for position in range(len(layers) - 1, -1, -1):
            output = layers[position].take_output()
            if not output:
                continue
            if position:
                layers[position - 1].send(output)
            else:
                self._output += output
