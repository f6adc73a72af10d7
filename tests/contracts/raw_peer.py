"""A raw MQTT peer and a started evaluation broker, for tests that send what no client library would."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from broker.decoding import Decoder
from broker.embedded import EmbeddedBroker
from broker.embedded_guard import GuardLimits
from broker.encoding import encode
from broker.packets import V311, ConnAck, Connect, Packet, Version
from provisioner.account_brokers.embedded import DeviceLogin
from provisioner.model.topics import DeviceTopics

DEADLINE_S: Final = 8.0


class Peer:
    """One raw connection."""

    def __init__(self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], version: Version) -> None:
        self._reader, self.writer = streams
        self._decoder = Decoder(version=version, packet_bytes_max=1_000_000)

    def send(self, *packets: Packet) -> None:
        self.writer.write(b"".join(encode(packet, V311) for packet in packets))

    async def next(self) -> Packet | None:
        """The next packet of the server, None when it hung up."""
        async with asyncio.timeout(DEADLINE_S):
            while (packet := self._decoder.next_packet()) is None:
                try:
                    data = await self._reader.read(65_536)
                except ConnectionError:
                    return None
                if not data:
                    return None
                self._decoder.feed(data)
        return packet

    async def hung_up(self) -> bool:
        """True once the server hung up; what it sent before is dropped."""
        while await self.next() is not None:
            pass
        return True


def login(client_id: str = "gw1", password: bytes = b"right", **more: Any) -> Connect:
    return Connect(client_id, username="user", password=password, **more)


class Scene:
    """A broker that admits everybody with the password ``right``, what it reported, and its peers.

    reports: (home, connected) in order."""

    def __init__(self, limits: GuardLimits | None = None) -> None:
        self.server: EmbeddedBroker[DeviceLogin] = EmbeddedBroker(port=0, limits=limits)
        self.reports: list[tuple[str, bool]] = []
        self._reported = asyncio.Event()
        self._peers: list[Peer] = []

    async def admit(self, username: str, password: bytes, client_id: str, address: str | None) -> DeviceLogin | None:
        return DeviceLogin(username, DeviceTopics("acme", client_id)) if password == b"right" else None

    def seen(self, rights: DeviceLogin, address: str | None, connected: bool, lost: bool) -> None:
        self.reports.append((rights.home, connected))
        self._reported.set()

    async def peer(self, version: Version = V311, address: tuple[str, int] | None = None) -> Peer:
        peer = Peer(await asyncio.open_connection(*(address or self.server.address)), version)
        self._peers.append(peer)
        return peer

    async def admitted(self, client_id: str = "gw1", address: tuple[str, int] | None = None, **more: Any) -> Peer:
        peer = await self.peer(address=address)
        peer.send(login(client_id, **more))
        assert await peer.next() == ConnAck(0)
        return peer

    async def until_reports(self, *expected: bool) -> None:
        """Wait until exactly these were reported."""
        async with asyncio.timeout(DEADLINE_S):
            while [connected for _, connected in self.reports] != list(expected):
                self._reported.clear()
                await self._reported.wait()

    async def close_peers(self) -> None:
        for peer in self._peers:
            peer.writer.close()
        for peer in self._peers:
            try:
                await peer.writer.wait_closed()
            except ConnectionError:
                continue


@asynccontextmanager
async def started(limits: GuardLimits | None = None) -> AsyncIterator[Scene]:
    scene = Scene(limits)
    await scene.server.start(scene.admit, scene.seen)
    try:
        yield scene
    finally:
        await scene.close_peers()
        await scene.server.stop()


def plays(scenario: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run an async test on a loop of its own."""

    async def play() -> None:
        await scenario()

    def run() -> None:
        asyncio.run(play())

    run.__name__, run.__doc__, run.__module__ = scenario.__name__, scenario.__doc__, scenario.__module__
    return run
