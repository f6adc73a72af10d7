"""Each timer and each bound of a session."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.encoding import encode
from broker.packets import (
    V5,
    V311,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PubAck,
    Publish,
    PubRec,
    Subscribe,
    Subscription,
    Unsubscribe,
    Version,
)
from broker.properties import Properties
from broker.reason_codes import ReasonCode
from broker.session import MessageTooLarge, OutboundFull, Session
from broker.session_events import (
    Acknowledged,
    ConnectReceived,
    PeerDisconnected,
    PublishReceived,
    TimedOut,
    Timer,
    Violation,
)
from broker.session_settings import SessionSettings
from broker.session_state import State
from tests.rules.session_peer import SETTINGS, SessionPeer, opened

BOTH = pytest.mark.parametrize("version", [V311, V5])


def _codes(events: list[Any]) -> list[int]:
    return [event.reason_code for event in events if isinstance(event, Violation)]


@BOTH
def test_connect_deadline(version: Version) -> None:
    """F-34: a connection without a whole CONNECT is dropped in silence 10 s after it came up, whatever trickles in."""
    peer = SessionPeer(version)
    assert peer.session.deadline() == 1_010.0
    peer.session.receive(b"\x10", peer.now + 9)
    assert peer.tick_at_deadline() == [TimedOut(Timer.CONNECT)]
    assert peer.answers() == []
    assert peer.session.should_close
    assert peer.session.deadline() is None


@BOTH
def test_nothing_is_timed_while_the_owner_decides(version: Version) -> None:
    """Once the CONNECT is there, the session waits for its owner."""
    peer = SessionPeer(version)
    peer.send(Connect("dev"))
    assert peer.session.deadline() is None
    assert peer.session.tick(peer.now + 100_000) == []


@BOTH
def test_keep_alive_ends_a_silent_session(version: Version) -> None:
    """[MQTT-3.1.2-24]: one and a half keep-alives after the last whole packet; parts of a packet do not count."""
    peer = opened(version, Connect("dev", keep_alive_s=60))
    peer.now += 50
    peer.send(PingReq())
    peer.answers()
    peer.session.receive(b"\x30", peer.now + 80)
    assert peer.session.deadline() == peer.now + 90
    assert peer.tick_at_deadline() == [TimedOut(Timer.KEEP_ALIVE)]
    assert peer.answers() == ([Disconnect(ReasonCode.KEEP_ALIVE_TIMEOUT)] if version == V5 else [])
    assert peer.session.should_close


@BOTH
def test_no_keep_alive_runs_out_while_nothing_is_read(version: Version) -> None:
    """The pings of a device wait in the kernel while its owner is busy; from when that reads again it has its time."""
    peer = opened(version, Connect("dev", keep_alive_s=60))
    peer.session.hold()
    peer.now += 200
    assert peer.session.tick(peer.now) == []
    assert peer.session.deadline() == 1_300.0, "that of the idle time"
    peer.session.go_on(peer.now)
    assert peer.session.deadline() == peer.now + 90
    peer.session.go_on(peer.now + 50)
    assert peer.tick_at_deadline() == [TimedOut(Timer.KEEP_ALIVE)]


def test_imposed_keep_alive_is_the_one_in_force() -> None:
    """MQTT 5: Server Keep Alive replaces the client's own [MQTT-3.2.2-22]; 3.1.1 keeps what it asked for."""
    short = SessionSettings(keep_alive_s_max=40)
    assert opened(V5, Connect("dev", keep_alive_s=0), short).session.deadline() == 1_060.0
    assert opened(V5, Connect("dev", keep_alive_s=100), short).session.deadline() == 1_060.0
    assert opened(V311, Connect("dev", keep_alive_s=100), short).session.deadline() == 1_150.0
    assert opened(V311, Connect("dev", keep_alive_s=0), short).session.deadline() == 1_300.0


@BOTH
def test_idle_session_ends_in_spite_of_pings(version: Version) -> None:
    """300 s without PUBLISH or SUBSCRIBE end the session; PINGREQ only keeps the connection alive."""
    peer = opened(version)
    peer.now += 100
    peer.send(Subscribe(1, (Subscription("a"),)))
    for _ in range(5):
        peer.now += 59
        assert peer.send(PingReq()) == []
    peer.answers()
    assert peer.session.deadline() == 1_400.0
    assert peer.tick_at_deadline() == [TimedOut(Timer.IDLE)]
    assert peer.answers() == ([Disconnect(ReasonCode.ADMINISTRATIVE_ACTION)] if version == V5 else [])


@BOTH
def test_time_counts_from_the_acceptance(version: Version) -> None:
    """However long the owner took to decide, the client has its whole keep-alive and idle time from then on."""
    peer = SessionPeer(version, SessionSettings(idle_s_max=50))
    peer.send(Connect("dev", keep_alive_s=60))
    peer.now += 500
    peer.session.accept(peer.now)
    assert peer.session.deadline() == peer.now + 50
    slow = SessionPeer(version)
    slow.send(Connect("dev", keep_alive_s=60))
    slow.now += 500
    slow.session.accept(slow.now)
    assert slow.session.deadline() == slow.now + 90


@BOTH
def test_each_kind_of_request_is_activity(version: Version) -> None:
    """PUBLISH, SUBSCRIBE and UNSUBSCRIBE each start the idle time anew."""
    for packet in (Publish("a"), Subscribe(1, (Subscription("a"),)), Unsubscribe(1, ("a",))):
        peer = opened(version, Connect("dev", keep_alive_s=300), SessionSettings(idle_s_max=50))
        peer.now += 40
        peer.send(packet)
        assert peer.session.deadline() == peer.now + 50


def test_unacknowledged_message_is_sent_again_in_311_only() -> None:
    """3.1.1: with DUP every 5 s, at most resend_max times. MQTT 5 forbids that on a live connection [MQTT-4.4.0-1]."""
    old = opened(V311, settings=SessionSettings(resend_max=2))
    packet_id = old.session.publish("t", b"x", old.now)
    assert old.answers() == [Publish("t", b"x", 1, packet_id=packet_id)]
    for _ in range(2):
        assert old.tick_at_deadline() == []
        assert old.answers() == [Publish("t", b"x", 1, dup=True, packet_id=packet_id)]
    assert old.now == 1_010.0
    assert old.session.deadline() == 1_090.0
    assert old.send(PubAck(packet_id)) == [Acknowledged(packet_id, 0)]
    assert old.send(PubAck(packet_id)) == []
    new = opened(V5)
    new.session.publish("t", b"x", new.now)
    assert new.session.deadline() == 1_090.0


@pytest.mark.parametrize("raw", ["10 ffffff7f", "10 8080807f", "10 8120"])
def test_oversized_connect_is_cut_from_its_header(raw: str) -> None:
    """F-36: 256 MiB, or just over 4 KiB, before authentication: refused from at most five bytes, without an answer."""
    session = Session(SETTINGS, 0.0)
    assert _codes(session.receive(bytes.fromhex(raw), 0.0)) == [ReasonCode.PACKET_TOO_LARGE]
    assert session.take_output() == b""
    assert session.receive(b"x" * 60_000, 0.0) == []


@BOTH
def test_packet_limit_grows_with_the_login(version: Version) -> None:
    """F-36: 66,560 bytes are taken after the login, one more is not."""
    overhead = len(encode(Publish("t", b"x" * 60_000, 1, packet_id=1), version)) - 60_000
    for extra, codes in ((0, []), (1, [ReasonCode.PACKET_TOO_LARGE])):
        peer = opened(version)
        assert _codes(peer.send(Publish("t", b"x" * (66_560 - overhead + extra), 1, packet_id=1))) == codes


@BOTH
def test_bytes_behind_the_connect_are_bounded(version: Version) -> None:
    """While the owner decides, 16 KiB may wait, in one piece with the CONNECT or not, and no byte more."""
    for pieces in (1, 2):
        for size, codes in ((16_384, []), (16_385, [ReasonCode.QUOTA_EXCEEDED])):
            peer = SessionPeer(version)
            connect, behind = encode(Connect("dev"), version), b"\x30" * size
            chunks = [connect + behind] if pieces == 1 else [connect, behind]
            events = [event for chunk in chunks for event in peer.session.receive(chunk, peer.now)]
            assert isinstance(events[0], ConnectReceived)
            assert _codes(events) == codes
            assert peer.session.should_close == bool(codes)


@BOTH
def test_unanswered_publishes_are_bounded(version: Version) -> None:
    """One message above the receive maximum ends the session with 0x93 [MQTT-3.3.4-7]; a PUBACK makes room."""
    peer = opened(version, settings=SessionSettings(receive_maximum=3))
    messages = [Publish("a", b"", 1, packet_id=packet_id) for packet_id in range(1, 6)]
    assert len(peer.send(*messages[:3])) == 3
    peer.session.acknowledge(2)
    assert len(peer.send(messages[3])) == 1
    assert _codes(peer.send(messages[4])) == [ReasonCode.RECEIVE_MAXIMUM_EXCEEDED]


def test_qos_2_exchanges_are_bounded() -> None:
    """3.1.1: a client that never sends PUBREL runs into the same bound."""
    peer = opened(V311, settings=SessionSettings(receive_maximum=2))
    for packet_id in (1, 2):
        peer.send(Publish("a", b"", 2, packet_id=packet_id))
        peer.session.acknowledge(packet_id)
    assert peer.answers() == [PubRec(1), PubRec(2)]
    assert _codes(peer.send(Publish("a", b"", 2, packet_id=3))) == [ReasonCode.RECEIVE_MAXIMUM_EXCEEDED]


@BOTH
def test_unanswered_subscribes_are_bounded(version: Version) -> None:
    """Requests that the owner has not answered are bounded like messages, and apart from them."""
    peer = opened(version, settings=SessionSettings(receive_maximum=2))
    requests = [Subscribe(packet_id, (Subscription("a"),)) for packet_id in range(1, 5)]
    assert len(peer.send(*requests[:2], Publish("a", b"", 1, packet_id=9))) == 3
    peer.session.answer_subscribe(1, [1])
    assert len(peer.send(requests[2])) == 1
    assert _codes(peer.send(requests[3])) == [ReasonCode.QUOTA_EXCEEDED]


@BOTH
def test_packets_of_one_read_are_bounded(version: Version) -> None:
    """F-38: a flood of tiny packets in one read ends the session instead of growing a list of events."""
    peer = opened(version, settings=SessionSettings(packets_per_read_max=10))
    assert len(peer.send(*[Publish("a")] * 10)) == 10
    events = peer.send(*[Publish("a")] * 11)
    assert [type(event) for event in events] == [PublishReceived] * 10 + [Violation]
    assert _codes(events) == [ReasonCode.MESSAGE_RATE_TOO_HIGH]


@BOTH
def test_outbound_messages_wait_for_a_place_in_flight(version: Version) -> None:
    """The smaller of both receive maxima is in flight, the rest waits in order; beyond the queue nothing is kept."""
    limits = SessionSettings(in_flight_max=3, queue_messages_max=2)
    connect = Connect("dev", properties=Properties(receive_maximum=2)) if version == V5 else Connect("dev")
    peer = opened(version, connect, limits)
    in_flight = 2 if version == V5 else 3
    ids = [peer.session.publish("t", bytes((n,)), peer.now) for n in range(in_flight + 2)]
    with pytest.raises(OutboundFull):
        peer.session.publish("t", b"", peer.now)
    assert [answer.packet_id for answer in _publishes(peer.answers())] == ids[:in_flight]
    for at, packet_id in enumerate(ids):
        assert peer.send(PubAck(packet_id)) == [Acknowledged(packet_id, 0)]
        following = ids[in_flight + at : in_flight + at + 1]
        assert [answer.packet_id for answer in _publishes(peer.answers())] == following
    assert len(set(ids)) == len(ids)


def _publishes(packets: list[Packet]) -> list[Publish]:
    return [packet for packet in packets if isinstance(packet, Publish)]


@BOTH
def test_outbound_bytes_are_bounded(version: Version) -> None:
    """Few large messages are as bounded as many small ones, and an acknowledgement gives the bytes back."""
    peer = opened(version, settings=SessionSettings(unacknowledged_bytes_max=1_000))
    packet_id = peer.session.publish("t", b"x" * 900, peer.now)
    with pytest.raises(OutboundFull):
        peer.session.publish("t", b"x" * 900, peer.now)
    peer.send(PubAck(packet_id))
    peer.session.publish("t", b"x" * 900, peer.now)
    assert len(_publishes(peer.answers())) == 2


def test_packet_identifiers_wrap_without_a_clash() -> None:
    """[MQTT-2.2.1-4]: after 65,535 comes 1, past identifiers that are still in flight."""
    peer = opened(V5)
    kept = peer.session.publish("t", b"", peer.now)
    seen = set()
    for _ in range(65_540):
        packet_id = peer.session.publish("t", b"", peer.now)
        peer.session.take_output()
        assert packet_id != kept
        seen.add(packet_id)
        peer.session.receive(b"\x40\x02" + packet_id.to_bytes(2, "big"), peer.now)
    assert seen == set(range(1, 65_536)) - {kept}


def test_client_maximum_packet_size_is_respected() -> None:
    """MQTT 5: a larger message raises and leaves nothing behind; a packet of exactly that size goes [MQTT-3.1.2-24]."""
    peer = opened(V5, Connect("dev", properties=Properties(maximum_packet_size_bytes=100)))
    size = len(encode(Publish("t", b"", 1, packet_id=1), V5))
    for publish in (
        lambda payload: peer.session.publish("t", payload, peer.now),
        lambda payload: peer.session.publish_at_most_once("t", payload + b"xx"),
    ):
        with pytest.raises(MessageTooLarge) as caught:
            publish(b"x" * (101 - size))
        assert (caught.value.packet_bytes, caught.value.packet_bytes_max) == (101, 100)
    assert peer.answers() == []
    peer.session.publish("t", b"x" * (100 - size), peer.now)
    assert len(peer.session.take_output()) == 100


def test_refused_message_frees_its_place() -> None:
    """MQTT 5: a PUBACK with an error ends the exchange; the owner sees the code."""
    peer = opened(V5, settings=SessionSettings(in_flight_max=1))
    first = peer.session.publish("t", b"1", peer.now)
    second = peer.session.publish("t", b"2", peer.now)
    assert peer.send(PubAck(first, ReasonCode.QUOTA_EXCEEDED)) == [Acknowledged(first, 0x97)]
    assert [packet.packet_id for packet in _publishes(peer.answers())] == [first, second]


@BOTH
@given(data=st.data())
def test_no_bytes_upset_a_session(version: Version, data: st.DataObject) -> None:
    """F-38: noise before and after the login never raises, and at most one violation ends the session."""
    peer = opened(version) if data.draw(st.booleans()) else SessionPeer(version)
    endings: list[object] = []
    for chunk in data.draw(st.lists(st.binary(max_size=60), max_size=8)):
        events = peer.session.receive(chunk, peer.now)
        endings += [event for event in events if isinstance(event, Violation | PeerDisconnected)]
        peer.session.tick(peer.now)
        peer.session.take_output()
    assert len(endings) == (peer.session.state is State.CLOSING)


@pytest.mark.parametrize(
    "wrong",
    [
        {"connect_deadline_s": 0}, {"packet_bytes_max_before_login": 100_000}, {"receive_maximum": 0},
        {"receive_maximum": 65_536}, {"keep_alive_s_max": 65_536}, {"in_flight_max": 0}, {"resend_max": -1},
        {"idle_s_max": 0}, {"packets_per_read_max": 0}, {"packet_bytes_max": 268_435_461},
    ],
    ids=lambda wrong: next(iter(wrong)),
)  # fmt: skip
def test_settings_check_themselves(wrong: dict[str, Any]) -> None:
    """A bound that the protocol or the host cannot honour is refused by name."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SessionSettings(**wrong)
