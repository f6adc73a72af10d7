"""One accepted socket on the event loop: bytes through its layers, back-pressure, and an end that the peer can read."""

import asyncio
import contextlib
from typing import Protocol, cast

from broker.layers import LayerBroken, Stack
from broker.proxies import Preface
from broker.proxy_header import ProxyHeaderBroken

WRITE_BUFFER_BYTES_MAX = 65_536  # of unsent bytes; above it the peer is not read any more
LINGER_BYTES_MAX = 1_048_576  # that a peer may still send after it was sent away


class WireOwner(Protocol):
    """Who hears of what happens on a wire. After ``wire_lost`` nothing more comes."""

    def wire_up(self, address: str) -> None: ...

    def wire_named(self, address: str) -> None:
        """The proxy at the other end speaks for this address; before anything that came from there."""

    def bytes_received(self, data: bytes) -> None: ...

    def wire_broken(self, reason: str) -> None:
        """The protocol of a layer or of the PROXY header was broken; ``reason`` is a code."""

    def wire_lost(self) -> None:
        """The peer said goodbye on a layer, or the socket is gone, whoever ended it; may come twice."""


class Wire(asyncio.Protocol):
    """``stack`` is None for plain TCP; ``preface`` is None where no proxy stands in front."""

    __slots__ = (
        "_closing",
        "_full",
        "_held",
        "_linger_bytes",
        "_linger_timer",
        "_loop",
        "_owner",
        "_preface",
        "_stack",
        "_transport",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, stack: Stack | None, owner: WireOwner, preface: Preface | None = None
    ) -> None:
        self._loop = loop
        self._stack = stack
        self._preface = preface
        self._owner: WireOwner | None = owner
        self._transport: asyncio.Transport | None = None
        self._linger_bytes = 0
        self._linger_timer: asyncio.TimerHandle | None = None
        self._held = False
        self._full = False
        self._closing = False

    @property
    def can_write(self) -> bool:
        """The handshakes of the layers are over, and so is nothing else yet."""
        return not self._closing and self._preface is None and (self._stack is None or self._stack.is_ready)

    def write(self, data: bytes) -> None:
        if not data or self._transport is None or self._closing or self._preface is not None:
            return
        if self._stack is None:
            self._transport.write(data)
        else:
            self._stack.send(data)
            self._emit()

    def hold(self) -> None:
        """Stop reading until ``resume``: what the peer sends waits in the kernel."""
        self._held = True
        self._steer()

    def resume(self) -> None:
        if self._held:
            self._held = False
            self._steer()

    def close(self, linger_s: float, *, wait_for_peer: bool) -> None:
        """Send what is written, then close; linger_s bounds it. wait_for_peer: let it read that first, since
        closing a socket with unread input resets it and takes the last answer away (RFC 1122 4.2.2.13)."""
        transport = self._transport
        if transport is None or self._closing:
            return
        if self._stack is not None:
            self._stack.end()
            self._emit()
        self._closing = True
        if wait_for_peer and not transport.is_closing():
            with contextlib.suppress(OSError):  # asyncio's own loop raises it when the peer has just reset
                transport.write_eof()
            self._steer()
        else:
            transport.close()
            if not transport.get_write_buffer_size():
                return
        self._linger_timer = self._loop.call_later(linger_s, transport.abort)

    def abort(self) -> None:
        """Close now, whatever is unsent."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since the transports of uvloop are no subclasses.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        peer = transport.get_extra_info("peername")
        address = peer[0] if peer else ""
        if self._owner is not None:
            self._owner.wire_up(address)
        if self._preface is not None:
            self._check_proxy(self._preface, address)

    def data_received(self, data: bytes) -> None:
        if self._closing or self._owner is None:
            self._discard(data)
            return
        if self._preface is not None:
            data = self._receive_preface(self._preface, self._owner, data)
            if not data:
                return
        if self._stack is None:
            self._owner.bytes_received(data)
        else:
            self._receive_layered(self._stack, self._owner, data)

    def eof_received(self) -> None:
        if self._owner is not None and not self._closing:
            self._owner.wire_lost()

    def connection_lost(self, exc: Exception | None) -> None:
        owner, self._owner, self._transport = self._owner, None, None
        self._closing = True
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        if owner is not None:
            owner.wire_lost()

    def pause_writing(self) -> None:
        self._full = True
        self._steer()

    def resume_writing(self) -> None:
        self._full = False
        self._steer()

    def _check_proxy(self, preface: Preface, address: str) -> None:
        """No address: the peer reset before it was accepted, as health checks do."""
        if not address:
            self.abort()
        elif self._owner is not None and not self._closing and not preface.trusts(address):
            self._owner.wire_broken("proxy_untrusted")

    def _receive_preface(self, preface: Preface, owner: WireOwner, data: bytes) -> bytes:
        """What stands behind the header; nothing while that is not whole."""
        try:
            read = preface.feed(data)
        except ProxyHeaderBroken as broken:
            owner.wire_broken(broken.reason)
            return b""
        if read is None:
            return b""
        header, rest = read
        self._preface = None
        if header.source is not None:
            owner.wire_named(header.source)
        return rest

    def _receive_layered(self, stack: Stack, owner: WireOwner, data: bytes) -> None:
        try:
            inner = stack.receive(data)
        except LayerBroken as broken:
            self._emit()
            owner.wire_broken(broken.reason)
            return
        self._emit()
        if inner:
            owner.bytes_received(inner)
        if stack.is_ended and not self._closing:
            owner.wire_lost()

    def _discard(self, data: bytes) -> None:
        self._linger_bytes += len(data)
        if self._linger_bytes > LINGER_BYTES_MAX and self._transport is not None:
            self._transport.abort()

    def _emit(self) -> None:
        if self._stack is not None and self._transport is not None:
            output = self._stack.take_output()
            if output:
                self._transport.write(output)

    def _steer(self) -> None:
        """Read exactly when nobody minds; a closing wire reads on to see the peer's end."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._closing or not (self._held or self._full):
            transport.resume_reading()
        else:
            transport.pause_reading()
