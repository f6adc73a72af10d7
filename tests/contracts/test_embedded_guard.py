"""The evaluation broker against peers that do not keep to the protocol: amqtt's defects stay closed (D2)."""

import asyncio
import time
from typing import Final

import pytest

from broker.decoding import Decoder
from broker.embedded import EmbeddedBroker
from broker.embedded_guard import Connection, Guard, GuardLimits
from broker.encoding import encode
from broker.packets import (
    V5,
    V311,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Will,
)
from provisioner.account_brokers.embedded import DeviceLogin
from provisioner.model.topics import DeviceTopics
from tests.contracts.raw_peer import Scene, login, plays, started

ACCEPTED: Final = b"\x20\x02\x00\x00"


@pytest.mark.parametrize("sent", [b"", b"\x10\x20\x00\x04MQ", b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\x7f"])
def test_no_connect_no_connection(sent: bytes) -> None:
    """brokers 1.2 item 8: silence, half a CONNECT, garbage and a huge one end at the deadline or before."""

    async def scenario() -> None:
        async with started(GuardLimits(connect_s=0.2)) as scene:
            peer = await scene.peer()
            began = time.monotonic()
            peer.writer.write(sent)
            assert await peer.next() is None
            assert time.monotonic() - began < 2
            assert scene.reports == []

    asyncio.run(scenario())


@plays
async def test_mqtt_5_is_refused_in_its_own_words() -> None:
    """amqtt leaves a version 5 client without an answer; it gets CONNACK 0x84."""
    async with started() as scene:
        peer = await scene.peer(V5)
        peer.writer.write(encode(login(), V5))
        assert await peer.next() == ConnAck(0x84)
        assert await peer.next() is None


@plays
async def test_mqtt_31_is_refused_with_1() -> None:
    """[MQTT-3.1.2-2]: a level that is not served is answered with return code 1."""
    async with started() as scene:
        peer = await scene.peer()
        peer.writer.write(b"\x10\x11\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x03gw1")
        assert await peer.next() == ConnAck(1)
        assert await peer.next() is None


@plays
async def test_an_empty_client_id_is_refused_with_2() -> None:
    """[MQTT-3.1.3-9]: nobody gets a client id made up for it here."""
    async with started() as scene:
        peer = await scene.peer()
        peer.send(login(""))
        assert await peer.next() == ConnAck(2)


@pytest.mark.parametrize(("username", "password"), [(None, None), ("", b"right"), ("user", None), ("user", b"")])
def test_a_login_with_nothing_in_it_is_never_asked_about(username: str | None, password: bytes | None) -> None:
    """F-11: without a username or a password the answer is 5, even if everybody else were let in."""

    async def anybody(username: str, password: bytes, client_id: str, address: str | None) -> DeviceLogin:
        return DeviceLogin(username, DeviceTopics("acme", client_id))

    async def scenario() -> None:
        scene = Scene()
        await scene.server.start(anybody, scene.seen)
        peer = await scene.peer()
        peer.send(Connect("gw1", username=username, password=password))
        assert await peer.next() == ConnAck(5)
        await scene.close_peers()
        await scene.server.stop()

    asyncio.run(scenario())


@plays
async def test_a_session_ends_with_its_connection() -> None:
    """Clean session off is answered with no session present [MQTT-3.2.2-3]; nothing is queued for the absent."""
    async with started() as scene:
        first = await scene.admitted(clean_start=False)
        first.send(Subscribe(1, (Subscription("acme/gw1/#", 1),)))
        assert await first.next() == SubAck(1, (1,))
        first.send(Disconnect())
        await scene.until_reports(True, False)
        second = await scene.admitted(clean_start=False)  # its CONNACK has no session present
        second.send(Publish("acme/gw1/x", b"unheard"), PingReq())
        assert await second.next() == PingResp()


@plays
async def test_refused_logins_leave_no_session() -> None:
    """brokers 1.2 items 1 to 3: amqtt never hears of a login that failed, and the holder keeps its subscription."""
    async with started() as scene:
        holder = await scene.admitted()
        holder.send(Subscribe(1, (Subscription("acme/gw1/#", 1),)))
        assert await holder.next() == SubAck(1, (1,))
        for number in range(30):
            peer = await scene.peer()
            peer.send(login("gw1" if number % 2 else f"gw{number}", b"wrong", clean_start=number % 3 == 0))
            assert await peer.next() == ConnAck(5)
        assert scene.server._amqtt is not None
        assert list(scene.server._amqtt.sessions) == ["acme/gw1"]
        assert scene.server._amqtt.sessions["acme/gw1"][0].password is None
        holder.send(Publish("acme/gw1/x", b"heard"))
        heard = await holder.next()
        assert isinstance(heard, Publish)
        assert heard.payload == b"heard"


@plays
async def test_a_connect_in_pieces_and_packets_behind_it() -> None:
    """Bytes may come one at a time, and a client may send on before its CONNACK [MQTT-3.1.4-5]."""
    async with started() as scene:
        peer = await scene.peer()
        for byte in encode(login(), V311) + encode(PingReq(), V311):
            peer.writer.write(bytes((byte,)))
            await peer.writer.drain()
        assert await peer.next() == ConnAck(0)
        assert await peer.next() == PingResp()


@plays
async def test_keep_alive_is_enforced() -> None:
    """brokers 1.2 item 9, [MQTT-3.1.2-24]: silence of 1.5 keep alives ends it; a ping starts the time anew."""
    async with started() as scene:
        peer = await scene.admitted(keep_alive_s=1)
        await asyncio.sleep(0.8)
        began = time.monotonic()
        peer.send(PingReq())
        assert await peer.next() == PingResp()
        assert await peer.next() is None
        assert 1.4 < time.monotonic() - began < 5
        await scene.until_reports(True, False)


@pytest.mark.parametrize(
    "sent",
    [
        encode(Publish("acme/gw1/x", bytes(2_000)), V311),
        b"\x30\xff\xff\xff\x7f",
        encode(login(), V311),
        encode(ConnAck(0), V311),
        encode(SubAck(1, (0,)), V311),
        b"\x30\x05\x00\x03a/#",
        b"\x82\x03\x00\x01\x00",
        b"\xf0\x00",
    ],
    ids=["too large", "large to come", "second CONNECT", "CONNACK", "SUBACK", "wildcard topic", "cut short", "AUTH"],
)
def test_a_violation_ends_the_connection(sent: bytes) -> None:
    """brokers 1.2 item 10, [MQTT-3.1.0-2], [MQTT-4.8.0-1]: illegal packets end it and never reach amqtt."""

    async def scenario() -> None:
        async with started(GuardLimits(packet_bytes_max=1_000)) as scene:
            peer = await scene.admitted()
            peer.writer.write(sent)
            assert await peer.next() is None
            await scene.until_reports(True, False)

    asyncio.run(scenario())


@pytest.mark.parametrize("topic", ["$SYS/broker/x", "$EDC/acme/gw2/MQTT/BIRTH", "$", "acme/gw2/x"])
def test_a_forbidden_publish_does_not_deafen_the_connection(topic: str) -> None:
    """brokers 1.2 item 6: after a publish to a foreign `$` topic the connection works on, and nothing was passed on."""

    async def scenario() -> None:
        async with started() as scene:
            peer = await scene.admitted()
            peer.send(Subscribe(1, (Subscription("acme/gw1/#", 0), Subscription(topic, 0))))
            assert await peer.next() == SubAck(1, (0, 0x80))
            peer.send(Publish(topic, b"no", qos=1, packet_id=7, retain=True), Publish("acme/gw1/x", b"yes"))
            assert await peer.next() == PubAck(7)
            assert await peer.next() == Publish("acme/gw1/x", b"yes")
            assert scene.server._amqtt is not None
            assert scene.server._amqtt.retained_messages == {}

    asyncio.run(scenario())


@plays
async def test_the_retain_flag_of_a_foreign_topic_is_stripped() -> None:
    """F-07: amqtt does not even see it; on an own topic it stays."""
    passed: list[Packet] = []

    async def serve(connection: Connection[DeviceLogin]) -> None:
        connection.write(ACCEPTED)
        connection.expect_packets()
        decoder = Decoder(packet_bytes_max=1_000)
        while data := await connection.read(1):
            decoder.feed(data)
            passed.extend(decoder.packets())

    scene = Scene()
    guard = Guard(serve, scene.admit, scene.seen, GuardLimits())
    peer = await scene.admitted(address=await guard.listen("127.0.0.1", 0, None))
    peer.send(Publish("acme/gw2/x", b"1", retain=True), Publish("acme/gw1/x", b"2", retain=True))
    peer.writer.close()
    await scene.until_reports(True, False)
    assert passed[1:] == [Publish("acme/gw2/x", b"1"), Publish("acme/gw1/x", b"2", retain=True)]
    await scene.close_peers()
    await guard.stop()


@plays
async def test_too_many_connections_are_turned_away() -> None:
    """brokers 1.2 item 11: the excess peer is closed at once instead of waiting without an answer."""
    async with started(GuardLimits(connections_max=2)) as scene:
        first = await scene.admitted("gw1")
        await scene.admitted("gw2")
        excess = await scene.peer()
        excess.send(login("gw3"))
        assert await excess.next() is None
        first.writer.close()
        await scene.until_reports(True, True, False)
        await scene.admitted("gw3")


@plays
async def test_a_peer_that_does_not_read_is_cut() -> None:
    """brokers 1.2 item 15: what waits for a slow reader is bounded."""
    async with started(GuardLimits(unsent_bytes_max=100_000)) as scene:
        peer = await scene.admitted()
        peer.send(Subscribe(1, (Subscription("acme/gw1/#", 0),)))
        load = encode(Publish("acme/gw1/x", bytes(100_000)), V311)
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(8):
                while True:
                    peer.writer.write(load)
                    await peer.writer.drain()
        await scene.until_reports(True, False)


@plays
async def test_a_clean_goodbye_sends_no_will() -> None:
    """[MQTT-3.1.2-10]: DISCONNECT drops the Will, even when the socket closes right behind it."""
    async with started() as scene:
        for number in range(1, 21):
            peer = await scene.admitted(will=Will("acme/gw1/will", b"gone", retain=True))
            peer.send(Disconnect())
            peer.writer.close()
            await scene.until_reports(*[True, False] * number)
        assert scene.server._amqtt is not None
        assert scene.server._amqtt.retained_messages == {}


@plays
async def test_of_many_at_once_the_newest_stays() -> None:
    """brokers 1.2 item 12, [MQTT-3.1.4-2]: twenty logins in one moment leave one connection, the last admitted."""
    async with started() as scene:
        peers = [await scene.peer() for _ in range(20)]
        for peer in peers:
            peer.send(login())
        for peer in peers[:-1]:
            assert await peer.hung_up()
        assert await peers[-1].next() == ConnAck(0)
        peers[-1].send(PingReq())
        assert await peers[-1].next() == PingResp()
        assert len(scene.server.connections()) == 1
        peers[-1].send(Disconnect())
        assert await peers[-1].hung_up()
        came = [connected for _, connected in scene.reports if connected]
        await scene.until_reports(*came, False)


@plays
async def test_stop_cuts_everybody_and_frees_the_port() -> None:
    """After a stop nobody is connected, a peer in the middle of its CONNECT included, and the port can be bound."""
    async with started() as scene:
        peer, half = await scene.admitted(), await scene.peer()
        half.writer.write(b"\x10\x20")
        await half.writer.drain()
        await scene.server.stop()
        assert await peer.next() is None
        assert await half.next() is None
        again: EmbeddedBroker[DeviceLogin] = EmbeddedBroker(port=scene.server.address[1])
        await again.start(scene.admit, scene.seen)
        await scene.admitted(address=again.address)
        await again.stop()


@plays
async def test_a_failing_listener_of_sightings_harms_no_device() -> None:
    """An error behind ``seen`` is logged; the connection goes on."""

    def broken(rights: DeviceLogin, address: str | None, connected: bool) -> None:
        raise RuntimeError("no")

    scene = Scene()
    await scene.server.start(scene.admit, broken)
    peer = await scene.admitted()
    peer.send(PingReq())
    assert await peer.next() == PingResp()
    await scene.close_peers()
    await scene.server.stop()


@plays
async def test_a_winner_that_never_came_to_be_still_ends_the_session() -> None:
    """When a take-over fails half way, the device that was reported as connected is reported as gone, once."""
    let_go, scene = asyncio.Event(), Scene()

    async def serve(connection: Connection[DeviceLogin]) -> None:
        connection.write(ACCEPTED)
        connection.expect_packets()
        while await connection.read(1):
            pass
        await let_go.wait()

    guard = Guard(serve, scene.admit, scene.seen, GuardLimits())
    address = await guard.listen("127.0.0.1", 0, None)
    loser = await scene.admitted(address=address)
    winner = await scene.peer(address=address)
    winner.send(login())
    assert await loser.next() is None
    assert guard.rights("acme/gw1") is not None
    assert guard.kick("acme/gw1") is True
    assert guard.kick("acme/gw1") is False
    assert guard.rights("acme/gw1") is None
    let_go.set()
    assert await winner.next() is None
    await scene.until_reports(True, False)
    await scene.close_peers()
    await guard.stop()
