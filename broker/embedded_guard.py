"""The door of the evaluation broker: what a peer must pass, and keep to, before amqtt sees a byte of it.

One CONNECT within a deadline, a login, one live connection for each session, then packets that are looked at one
by one. Knows nothing of amqtt: it hands each admitted `Connection` to a `serve` coroutine and ends with it.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, Protocol, TypeVar

from broker.decoding import Decoder
from broker.encoding import encode
from broker.packets import (
    V5,
    V311,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    Subscribe,
    Unsubscribe,
)
from broker.reason_codes import ProtocolViolation, ReasonCode

_log = logging.getLogger(__name__)

# CONNACK return codes [MQTT 3.1.1, 3.2.2.3].
_VERSION_REFUSED: Final = 1
_IDENTIFIER_REFUSED: Final = 2
_NOT_AUTHORIZED: Final = 5
_CONNACK_FIRST_BYTE: Final = 0x20
_READ_BYTES: Final = 65_536
_STOP_S: Final = 5.0
_FROM_CLIENT: Final = (Publish, PubAck, PubRec, PubRel, PubComp, Subscribe, Unsubscribe, PingReq, Disconnect)


class Rights(Protocol):
    """What one admitted connection may do. ``home`` names its session: the newest connection of a home wins."""

    @property
    def home(self) -> str: ...
    def may_publish(self, topic: str) -> bool: ...
    def may_subscribe(self, topic_filter: str) -> bool: ...


R = TypeVar("R", bound=Rights)

Admit = Callable[[str, bytes, str, str | None], Awaitable[R | None]]
"""(username, password, client id, address of the peer or None) -> its rights, or None to refuse."""

Seen = Callable[[R, str | None, bool, bool], None]
"""(rights, address, connected, lost without a word): after CONNACK, and when the session's last connection ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLimits:
    """``unsent_bytes_max``: a peer that reads so slowly that more than this waits for it is cut."""

    connect_s: float = 3.0
    connect_bytes_max: int = 8_192
    packet_bytes_max: int = 1_048_576
    unsent_bytes_max: int = 4_194_304
    connections_max: int = 1_000


class Connection(Generic[R]):
    """An admitted peer. ``read`` gives only bytes of whole, legal packets; anything else ends the connection."""

    def __init__(
        self,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        decoder: Decoder,
        connect: Connect,
        rights: R,
        limits: GuardLimits,
        greeted: Callable[["Connection[R]"], None],
    ) -> None:
        self._reader, self._writer = streams
        self._decoder = decoder
        self._decoder.packet_bytes_max = limits.packet_bytes_max
        self._limits = limits
        self._greeted = greeted
        self._answered = False
        # [MQTT-3.1.2-24]: one and a half times the keep alive; zero turns it off.
        self._idle_s = connect.keep_alive_s * 1.5 or None
        self._ready = bytearray(encode(_for_the_broker(connect, rights.home), V311))
        self._left = False
        self._awaited = asyncio.Event()
        self._shut = asyncio.Event()
        self.rights = rights
        self.address = _address(self._writer)
        self.announced = False  # somebody was told that this session is connected
        self.lost = True  # when it ends, unless it said so or was kicked
        self.ended = asyncio.Event()

    @property
    def open(self) -> bool:
        return not self._shut.is_set()

    def expect_packets(self) -> None:
        """Let ``read`` go on behind the CONNECT; until then it waits, even when the peer has gone."""
        self._awaited.set()

    async def read(self, n: int) -> bytes:
        """``n`` bytes; fewer only when nothing follows. Starts with the CONNECT that was admitted."""
        while len(self._ready) < n:
            packet = await self._next_packet()
            if packet is None:
                break
            self._ready += encode(packet, V311)
        taken = bytes(self._ready[:n])
        del self._ready[:n]
        return taken

    def write(self, data: bytes) -> None:
        """Send one whole packet. Never waits; see ``unsent_bytes_max``."""
        if not self.open:
            return
        self._writer.write(data)
        if self._writer.transport.get_write_buffer_size() > self._limits.unsent_bytes_max:
            self.cut("reads too slowly")
        elif not self._answered:
            self._answered = True
            if data[0] == _CONNACK_FIRST_BYTE and data[3] == 0:
                self._greeted(self)

    def close(self) -> None:
        """Let what was written go out, then close."""
        self._shut.set()
        self._writer.close()

    def cut(self, reason: str) -> None:
        """Close at once, from now on nothing is read, sent or allowed."""
        if self.open:
            _log.debug("%s is cut: %s", self.rights.home, reason)
        self._shut.set()
        self._writer.transport.abort()

    async def _next_packet(self) -> Packet | None:
        await self._awaited.wait()
        if self._left:
            # An end of stream right behind DISCONNECT would make amqtt send the Will [MQTT-3.1.2-10].
            await self._shut.wait()
            return None
        try:
            async with asyncio.timeout(self._idle_s):
                packet = await _receive(self._reader, self._decoder)
        except (TimeoutError, ProtocolViolation) as error:
            self.cut(str(error) or "keep alive ran out")
            return None
        if packet is None or not self.open:
            return None
        if not isinstance(packet, _FROM_CLIENT):
            self.cut("packet is not for a server, or a second CONNECT")  # [MQTT-3.1.0-2]
            return None
        self._left = isinstance(packet, Disconnect)
        self.lost = not self._left
        if isinstance(packet, Publish) and packet.retain and not self.rights.may_publish(packet.topic):
            return replace(packet, retain=False)
        return packet


class Guard(Generic[R]):
    """Accepts peers, admits or refuses them, and knows the live connections by their home."""

    def __init__(
        self, serve: Callable[[Connection[R]], Awaitable[None]], admit: Admit[R], seen: Seen[R], limits: GuardLimits
    ) -> None:
        self._serve = serve
        self._admit = admit
        self._seen = seen
        self._limits = limits
        self._live: dict[str, Connection[R]] = {}
        self._peers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> tuple[str, int]:
        """Serve; returns the address bound. port 0: any free one."""
        handshake_s = self._limits.connect_s if tls else None
        self._server = await asyncio.start_server(
            self._accepted,
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=handshake_s,
            ssl_shutdown_timeout=handshake_s,
            backlog=1_024,
        )
        bound = self._server.sockets[0].getsockname()
        return str(bound[0]), int(bound[1])

    async def stop(self) -> None:
        """Refuse new peers, cut the present ones and wait until all of them are gone."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._live.values()):
            connection.cut("the broker stops")
        for writer in self._peers.values():
            writer.transport.abort()
        if self._peers:
            _, stuck = await asyncio.wait(tuple(self._peers), timeout=_STOP_S)
            for task in stuck:
                task.cancel()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    def rights(self, home: str | None) -> R | None:
        """Those of the live connection; None from the moment that it was cut."""
        connection = self._live.get(home or "")
        return connection.rights if connection is not None and connection.open else None

    def connections(self) -> Sequence[R]:
        return [connection.rights for connection in self._live.values() if connection.open]

    def kick(self, home: str) -> bool:
        connection = self._live.get(home)
        if connection is None or not connection.open:
            return False
        connection.lost = False
        connection.cut("kicked")
        return True

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # start_server runs this in a task of its own
        if len(self._peers) >= self._limits.connections_max:
            writer.transport.abort()
            return
        self._peers[task] = writer
        try:
            connection = await self._admitted(reader, writer)
            if connection is not None:
                await self._served(connection)
        except Exception as error:
            _log.error("a connection ended with %s", type(error).__name__)  # its text may quote a packet
        finally:
            del self._peers[task]
            writer.close()

    async def _admitted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Connection[R] | None:
        decoder = Decoder(packet_bytes_max=self._limits.connect_bytes_max)
        try:
            async with asyncio.timeout(self._limits.connect_s):
                connect = await _receive(reader, decoder)
        except TimeoutError:
            writer.transport.abort()
            return None
        except ProtocolViolation as violation:
            if violation.reason_code is ReasonCode.UNSUPPORTED_PROTOCOL_VERSION and decoder.version is not None:
                writer.write(_version_refusal(decoder))
            else:
                # Closing in order would read on until the peer closes TLS too, whatever it still pours in (F-36).
                writer.transport.abort()
            return None
        if not isinstance(connect, Connect):
            return None
        if decoder.version != V311:
            writer.write(_version_refusal(decoder))
            return None
        rights = await self._login(connect, _address(writer))
        if isinstance(rights, int):
            writer.write(encode(ConnAck(rights), V311))
            return None
        return Connection((reader, writer), decoder, connect, rights, self._limits, self._greeted)

    async def _login(self, connect: Connect, address: str | None) -> R | int:
        """The rights, or the return code of the refusal; the same one whatever was wrong with the login."""
        if not connect.client_id:
            return _IDENTIFIER_REFUSED
        if not connect.username or not connect.password:
            return _NOT_AUTHORIZED
        rights = await self._admit(connect.username, connect.password, connect.client_id, address)
        # The Will is published without a further look at the rights, so it is held to them here.
        if rights is None or (connect.will is not None and not rights.may_publish(connect.will.topic)):
            return _NOT_AUTHORIZED
        return rights

    async def _served(self, connection: Connection[R]) -> None:
        """Take the session over from an older connection [MQTT-3.1.4-2], then serve until the end."""
        home = connection.rights.home
        older = self._live.get(home)
        self._live[home] = connection  # at once: whoever logs in next takes over from this one
        try:
            if older is not None:
                connection.announced = older.announced
                older.cut("taken over")
                async with asyncio.timeout(self._limits.connect_s):
                    await older.ended.wait()
            if connection.open:
                await self._serve(connection)
        finally:
            connection.close()
            connection.ended.set()
            # The loser of a take-over says nothing: the device is still there (kapua#2219).
            if self._live.get(home) is connection:
                del self._live[home]
                if connection.announced:
                    self._report(connection, connected=False)

    def _greeted(self, connection: Connection[R]) -> None:
        connection.announced = True
        self._report(connection, connected=True)

    def _report(self, connection: Connection[R], *, connected: bool) -> None:
        try:
            self._seen(connection.rights, connection.address, connected, not connected and connection.lost)
        except Exception:
            _log.exception("a sighting of %s was not taken", connection.rights.home)


async def _receive(reader: asyncio.StreamReader, decoder: Decoder) -> Packet | None:
    """The next packet, None at the end of the stream. Raises ProtocolViolation."""
    while (packet := decoder.next_packet()) is None:
        try:
            data = await reader.read(_READ_BYTES)
        except OSError:  # a reset, or a broken TLS record: an end like any other
            return None
        if not data:
            return None
        decoder.feed(data)
    return packet


def _for_the_broker(connect: Connect, home: str) -> Connect:
    """What amqtt gets to see: no password, a session of one connection only, and keep alive left to us.

    ``home`` stands in for the client id, because two accounts may use the same one.
    """
    return replace(connect, client_id=home, password=None, clean_start=True, keep_alive_s=0)


def _version_refusal(decoder: Decoder) -> bytes:
    if decoder.version == V5:
        return encode(ConnAck(ReasonCode.UNSUPPORTED_PROTOCOL_VERSION), V5)
    return encode(ConnAck(_VERSION_REFUSED), V311)


def _address(writer: asyncio.StreamWriter) -> str | None:
    peer = writer.get_extra_info("peername")
    return str(peer[0]) if peer else None
