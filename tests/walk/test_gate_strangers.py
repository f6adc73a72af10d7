"""What the gate takes from those who are not admitted: slow, many, huge, wrong (F-19, F-34..F-36)."""

import contextlib
import random
import socket
import time
from contextlib import ExitStack

import pytest

from broker.access import Close
from broker.encoding import encode
from broker.limits import GateLimits
from broker.packets import (
    V5,
    V311,
    ConnAck,
    Connect,
    Disconnect,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    Subscribe,
    Subscription,
    Version,
)
from broker.reason_codes import ReasonCode
from broker.session_settings import SessionSettings
from tests.walk.gate_house import (
    PASSWORD,
    House,
    Peer,
    device,
    dial,
    request_topic,
    response_topic,
    running_gate,
    until,
)


def strangers(house: House, count: int, data: bytes = b"") -> list[socket.socket]:
    sockets = [dial(house.gate.ports["plain"]) for _ in range(count)]
    for one in sockets:
        one.sendall(data)
    return sockets


def test_f34_slow_connects_are_dropped_and_devices_get_in_meanwhile() -> None:
    """F-34: half-open sockets with one byte each are cut at the deadline, and a device is served beside them."""
    limits = GateLimits(session=SessionSettings(connect_deadline_s=1.5))
    with running_gate(limits) as house:
        slow = strangers(house, 200, b"\x10")
        with device(house) as peer:
            assert peer.ask(b"x", "gw") == b"answer:x"
        for one in slow:
            assert one.recv(100) == b""
        until(lambda: house.application.count("connect.timeout") == 200, "all are in the audit")


@pytest.mark.parametrize(
    ("limits", "count"),
    [
        (GateLimits(unauthenticated_max=5, unauthenticated_protected_s=0.05), 5),
        (GateLimits(connections_max=8, unauthenticated_protected_s=0.05), 8),
    ],
    ids=["all places for strangers", "all places of a small gate"],
)
def test_f34_slow_strangers_make_room_for_devices(limits: GateLimits, count: int) -> None:
    """F-34: with every place for strangers taken, the oldest of them goes when a device comes; and where a site allows
    fewer connections, or the system fewer files, strangers still cannot sit on all."""
    with running_gate(limits) as house:
        strangers(house, count, b"\x10")

        def gets_in() -> bool:
            with Peer(house.gate.ports["plain"]) as peer:
                return peer.connect("gw") == 0

        until(gets_in, "the device gets in")
        assert "displaced" in house.application.reasons("connect.timeout")


@pytest.mark.parametrize(("version", "code"), [(V311, 3), (V5, 0x97)])
def test_f35_a_full_gate_says_so(version: Version, code: int) -> None:
    """F-35: one connection too many is answered "server unavailable" and closed, never left hanging."""
    with running_gate(GateLimits(connections_max=1)) as house:
        with device(house) as peer, Peer(house.gate.ports["plain"], version) as extra:
            assert extra.connect("extra") == code
            assert extra.next() is None
            assert peer.ask(b"x", "gw") == b"answer:x"
        assert house.application.reasons("connect.refused") == ["connections_max"]
        until(lambda: not house.gate.connections(), "the first one is gone")
        with Peer(house.gate.ports["plain"]) as later:
            assert later.connect("later") == 0


def test_f35_a_silent_socket_at_a_full_gate_is_answered_unasked() -> None:
    """F-35: it may take a moment for its CONNECT, then it gets a CONNACK of 3.1.1 and is closed."""
    with running_gate(GateLimits(connections_max=1, turned_away_wait_s=0.05)) as house, device(house):
        (silent,) = strangers(house, 1)
        assert silent.recv(100) == b"\x20\x02\x00\x03"
        assert silent.recv(100) == b""


def test_f35_beyond_all_room_sockets_are_closed_at_once() -> None:
    """F-35: even the queue of those who wait for their refusal is bounded."""
    with running_gate(GateLimits(connections_max=1, turned_away_max=1)) as house, device(house):
        _, second = strangers(house, 2)
        assert second.recv(100) == b""
        assert house.application.reasons("flood") == ["connections_max"]


def test_f36_a_huge_claim_before_login_is_cut_at_once() -> None:
    """F-36: a CONNECT that claims 256 MiB is cut by its header, and so is a stream that never ends."""
    with running_gate() as house:
        with Peer(house.gate.ports["plain"]) as peer:
            peer.socket.sendall(b"\x10\xff\xff\xff\x7f" + bytes(4_096))
            assert peer.until_hung_up() == []
        assert len(house.application.reasons("packet.violation")) == 1


def test_f36_a_huge_message_of_a_device_is_cut() -> None:
    """F-36: after login the bound is 66,560 bytes, which MQTT 5 is told."""
    with running_gate() as house, device(house, version=V5) as peer:
        peer.send(Publish(request_topic("gw"), bytes(66_560), qos=1, packet_id=2))
        assert peer.next_of(Disconnect).code == ReasonCode.PACKET_TOO_LARGE


def test_a_second_connect_ends_the_connection() -> None:
    """[MQTT-3.1.0-2]: a second CONNECT is a protocol violation."""
    with running_gate() as house, device(house, version=V5) as peer:
        peer.send(Connect("gw", username="fleet", password=PASSWORD))
        assert peer.next_of(Disconnect).code == ReasonCode.PROTOCOL_ERROR
        house.until_closed("gw", Close.VIOLATION)


def test_a_packet_before_connect_is_a_violation() -> None:
    """[MQTT-3.1.0-1]: the first packet is CONNECT, and garbage is met with the end of the connection."""
    with running_gate() as house:
        for garbage in (b"\xc0\x00", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 50):
            with Peer(house.gate.ports["plain"]) as peer:
                peer.socket.sendall(garbage)
                assert [one for one in peer.until_hung_up() if not isinstance(one, ConnAck)] == []
        assert len(house.application.reasons("packet.violation")) >= 1
        assert house.application.logins == []


def test_f19_a_guessing_device_is_locked_out_and_its_neighbour_is_not() -> None:
    """F-19: after ten wrong passwords the application is not asked any more for that one; a neighbour gets in."""
    with running_gate() as house:
        port = house.gate.ports["plain"]
        codes = []
        for _ in range(13):
            with Peer(port, V5) as peer:
                codes.append(peer.connect("gw", password=b"wrong"))
        assert codes == [ReasonCode.NOT_AUTHORIZED] * 10 + [ReasonCode.CONNECTION_RATE_EXCEEDED] * 3
        assert len(house.application.logins) == 10
        device(house, "neighbour").socket.close()


def test_a_flapping_device_is_told_busy() -> None:
    """F-35: an identity that comes and goes too often is refused for a while."""
    with running_gate(GateLimits(identity_connects_burst=3)) as house:
        for expected in (0, 0, 0, ReasonCode.SERVER_BUSY):
            with Peer(house.gate.ports["plain"], V5) as peer:
                assert peer.connect("gw") == expected


def test_a_silent_application_is_unavailable() -> None:
    """A login that the application does not settle in time is answered "server unavailable"."""
    with running_gate(GateLimits(admit_s_max=0.1)) as house, Peer(house.gate.ports["plain"]) as peer:
        assert peer.connect("gw", "slow") == 3
        assert house.application.reasons("connect.refused") == ["application_slow"]
        house.go_on()
    assert house.application.heard("opened") == []


def test_a_device_that_hangs_up_during_its_login_leaves_nothing_behind() -> None:
    """The late answer of the application meets a dead socket: whatever was opened is closed as lost."""
    with running_gate() as house:
        with Peer(house.gate.ports["plain"]) as peer:
            peer.send(Connect("gw", username="slow", password=PASSWORD))
            until(lambda: len(house.application.logins) == 1, "the application was asked")
        house.go_on()
        house.until_closed("gw", Close.LOST)
        assert house.gate.connections() == ()


def test_keep_alive_is_enforced() -> None:
    """[MQTT-3.1.2-22]: silence for one and a half times the keep-alive ends the connection."""
    with running_gate() as house, Peer(house.gate.ports["plain"], V5) as peer:
        assert peer.connect("gw", keep_alive_s=1) == 0
        assert peer.until_hung_up() == [Disconnect(ReasonCode.KEEP_ALIVE_TIMEOUT)]
        house.until_closed("gw", Close.KEEP_ALIVE)


def test_a_device_that_waits_for_its_answer_is_not_silent() -> None:
    """While one message is being answered and the next one waits nothing is read: the pings behind it count later."""
    with running_gate() as house, Peer(house.gate.ports["plain"]) as peer:
        assert peer.connect("gw", keep_alive_s=1) == 0
        peer.send(Publish(request_topic("gw"), b"wait", qos=1, packet_id=1))
        peer.send(Publish(request_topic("gw"), b"hello", qos=1, packet_id=2))
        until(lambda: house.application.under_way == 1, "it is being answered")
        time.sleep(2.0)  # longer than one and a half keep-alives
        peer.send(PingReq())
        house.go_on()
        assert peer.next_of(PingResp) == PingResp()
        assert [what for _, what in house.application.heard("received")] == ["wait", "hello"]


def test_f34_nobody_is_cut_for_a_time_in_which_the_gate_itself_was_held_up() -> None:
    """F-34: what a stranger and a device said meanwhile is read before they are judged; who said nothing is cut."""
    with running_gate(GateLimits(session=SessionSettings(connect_deadline_s=1.0))) as house:
        port = house.gate.ports["plain"]
        # Where packets are read: what is read after it comes behind all timers.
        house.application.acknowledged = lambda *_: time.sleep(3.0)  # type: ignore[method-assign]
        with device(house) as busy, Peer(port) as admitted, Peer(port) as in_time, Peer(port) as silent:
            assert admitted.connect("gw1", keep_alive_s=1) == 0
            until(lambda: house.gate.standings()["stranger"] == 2, "they have come")
            assert busy.ask(b"x", "gw") == b"answer:x"
            time.sleep(0.3)  # by now it is held up
            admitted.send(PingReq())
            assert in_time.connect("gw2") == 0
            assert admitted.next_of(PingResp) == PingResp()
            assert silent.until_hung_up() == []
    assert house.application.reasons("connect.timeout") == ["no_connect"]


@pytest.mark.parametrize("full", [False, True], ids=["with room", "turned away"])
def test_f38_a_connect_with_too_much_behind_it_is_cut_at_once(full: bool) -> None:
    """F-38: it has ended before anybody could be asked about it: no login is tried, and nothing escapes to the loop."""
    limits = GateLimits(connections_max=1 if full else 100, session=SessionSettings(pipelined_bytes_max=1_000))
    with running_gate(limits) as house, ExitStack() as stack:
        if full:
            stack.enter_context(device(house))
        logins = len(house.application.logins)
        connect = encode(Connect("gw", username="fleet", password=PASSWORD), V311)
        with Peer(house.gate.ports["plain"]) as peer:
            peer.socket.sendall(connect + encode(Publish(request_topic("gw"), bytes(5_000)), V311))
            peer.until_hung_up()
        until(lambda: house.application.reasons("packet.violation") != [], "it is noted")
        assert len(house.application.logins) == logins


def test_f38_mutated_walks_leave_nothing_behind() -> None:
    """F-38: hundreds of walks with flipped, cut and doubled bytes; the gate serves on, and every socket goes."""
    chance = random.Random(38)
    walk = b"".join(
        encode(packet, V311)
        for packet in (
            Connect("gw", username="fleet", password=PASSWORD),
            Subscribe(1, (Subscription(response_topic("gw"), 1),)),
            Publish(request_topic("gw"), b"hello", qos=1, packet_id=2),
            PubAck(1),
            Disconnect(),
        )
    )
    with running_gate(GateLimits(session=SessionSettings(connect_deadline_s=0.3))) as house:
        for _ in range(400):
            mutated = bytearray(walk)
            for _ in range(chance.randrange(1, 6)):
                mutated[chance.randrange(len(mutated))] = chance.randrange(256)
            cut = chance.randrange(len(mutated))
            with Peer(house.gate.ports["plain"]) as peer, contextlib.suppress(ConnectionError):
                peer.socket.sendall(mutated[:cut] if chance.random() < 0.3 else mutated + mutated[cut:])
        until(lambda: not house.gate.connections(), "every connection is gone")
        with device(house, "after") as peer:
            assert peer.ask(b"x", "after") == b"answer:x"
        opened, closed = house.application.heard("opened"), house.application.heard("closed")
        until(lambda: len(house.application.heard("closed")) == len(opened), f"each is closed: {len(closed)}")
