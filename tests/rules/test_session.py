"""One session from CONNECT to the end: its events, and its answers in both versions."""

from dataclasses import replace
from typing import Any

import pytest

from broker.encoding import encode
from broker.packets import (
    V5,
    V311,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Version,
    Will,
)
from broker.properties import Properties
from broker.reason_codes import ReasonCode
from broker.session import Session
from broker.session_events import (
    Acknowledged,
    ConnectReceived,
    PeerDisconnected,
    PublishReceived,
    SubscribeReceived,
    UnsubscribeReceived,
    Violation,
    WillAnnounced,
)
from broker.session_settings import Refusal
from tests.rules.session_peer import SETTINGS, SessionPeer, opened

BOTH = pytest.mark.parametrize("version", [V311, V5])
_REQUEST = Publish("prov/v1/dev/request", b"{}", 1, packet_id=2)


def _codes(events: list[Any]) -> list[int]:
    return [event.reason_code for event in events if isinstance(event, Violation)]


@BOTH
def test_a_device_walks_through(version: Version) -> None:
    """CONNECT, SUBSCRIBE, PUBLISH, answer, PUBACK, DISCONNECT: each step is an event and an answer."""
    peer = SessionPeer(version)
    connect = Connect("dev", False, 60, "u", b"p", Will("w", b"secret", 1))
    assert peer.send(connect) == [ConnectReceived(version, "dev", "u", b"p", False, 60, WillAnnounced("w", 1, False))]
    peer.session.accept(peer.now)
    (connack,) = peer.answers()
    assert isinstance(connack, ConnAck)
    assert (connack.code, connack.session_present) == (0, False)
    subscriptions = (Subscription("prov/v1/dev/response", 1), Subscription("prov/#", 1))
    assert peer.send(Subscribe(1, subscriptions)) == [SubscribeReceived(1, subscriptions)]
    peer.session.answer_subscribe(1, [1, ReasonCode.NOT_AUTHORIZED])
    assert peer.answers() == [SubAck(1, (1, 0x80 if version == V311 else 0x87))]
    assert peer.send(_REQUEST) == [PublishReceived("prov/v1/dev/request", b"{}", 1, False, False, 2)]
    peer.session.acknowledge(2)
    packet_id = peer.session.publish("prov/v1/dev/response", b"answer", peer.now)
    assert peer.answers() == [
        PubAck(2), Publish("prov/v1/dev/response", b"answer", 1, packet_id=packet_id)
    ]  # fmt: skip
    assert peer.send(PubAck(packet_id)) == [Acknowledged(packet_id, 0)]
    assert peer.send(Unsubscribe(3, ("a", "b"))) == [UnsubscribeReceived(3, ("a", "b"))]
    peer.session.answer_unsubscribe(3)
    assert peer.answers() == [UnsubAck(3, () if version == V311 else (0, 0))]
    assert peer.send(PingReq()) == []
    assert peer.answers() == [PingResp()]
    assert peer.send(Disconnect()) == [PeerDisconnected(graceful=True)]
    assert peer.session.should_close
    assert not peer.session.closed
    assert peer.session.connection_lost() == []
    assert peer.session.closed


def test_connack_tells_mqtt_5_what_is_not_served() -> None:
    """The CONNACK of MQTT 5 announces every limit; the keep-alive only if it has to be imposed."""
    told = Properties(
        session_expiry_interval_s=0, receive_maximum=20, maximum_qos=1, retain_available=False,
        maximum_packet_size_bytes=66_560, topic_alias_maximum=0, wildcard_subscription_available=True,
        subscription_identifiers_available=False, shared_subscription_available=False,
    )  # fmt: skip
    for asked, imposed in ((60, None), (300, None), (0, 300), (301, 300)):
        peer = SessionPeer(V5)
        peer.send(Connect("dev", keep_alive_s=asked))
        peer.session.accept(peer.now)
        (connack,) = peer.answers()
        assert connack == ConnAck(properties=replace(told, server_keep_alive_s=imposed))


@pytest.mark.parametrize(
    ("connect", "username", "password"),
    [
        (Connect("dev"), None, None),
        (Connect("dev", username="", password=b""), "", b""),
        (Connect("dev", username="u"), "u", None),
    ],
)
@BOTH
def test_missing_and_empty_secrets_are_told_apart(
    version: Version, connect: Connect, username: str | None, password: bytes | None
) -> None:
    """F-11: the owner sees whether a user name and a password were absent or empty."""
    (event,) = SessionPeer(version).send(connect)
    assert isinstance(event, ConnectReceived)
    assert (event.username, event.password) == (username, password)


def test_password_without_a_user_name() -> None:
    """F-11: malformed in 3.1.1, closed without an answer; legal in MQTT 5 and left to the owner."""
    peer = SessionPeer(V311)
    raw = bytearray(encode(Connect("dev", username="u", password=b"p"), V311))
    raw[9] &= 0x7F
    assert _codes(peer.session.receive(bytes(raw), peer.now)) == [ReasonCode.MALFORMED_PACKET]
    assert peer.session.take_output() == b""
    assert peer.session.should_close
    (event,) = SessionPeer(V5).send(Connect("dev", password=b"p"))
    assert isinstance(event, ConnectReceived)
    assert (event.username, event.password) == (None, b"p")


@pytest.mark.parametrize("kind", list(Refusal))
@BOTH
def test_refusal_closes_with_its_code(version: Version, kind: Refusal) -> None:
    """Each refusal has a CONNACK code in both versions, and the session is over."""
    peer = SessionPeer(version)
    peer.send(Connect("dev"))
    peer.session.refuse(kind)
    assert peer.answers() == [ConnAck(kind.code_v311 if version == V311 else kind.code_v5)]
    assert peer.session.should_close
    assert peer.send(PingReq()) == []
    assert peer.session.connection_lost() == []


def test_refusals_have_the_codes_of_the_specification() -> None:
    """The table of refusals: 3.1.1 return code and MQTT 5 reason code."""
    assert {kind.name: (kind.code_v311, int(kind.code_v5)) for kind in Refusal} == {
        "NOT_AUTHORISED": (5, 0x87),
        "CLIENT_ID_NOT_VALID": (2, 0x85),
        "UNSUPPORTED_VERSION": (1, 0x84),
        "SERVER_UNAVAILABLE": (3, 0x88),
        "SERVER_BUSY": (3, 0x89),
        "BANNED": (3, 0x8A),
        "RATE_EXCEEDED": (3, 0x9F),
        "QUOTA_EXCEEDED": (3, 0x97),
    }


def test_reason_strings_go_only_to_who_wants_and_can_take_them() -> None:
    """MQTT 5: Request Problem Information 0 and a small Maximum Packet Size leave the bare code [MQTT-3.2.2-19]."""
    wanted = Properties(reason_string="come back later")
    for asked, answered in (
        (Properties(), ConnAck(0x89, properties=wanted)),
        (Properties(request_problem_information=True), ConnAck(0x89, properties=wanted)),
        (Properties(request_problem_information=False), ConnAck(0x89)),
        (Properties(maximum_packet_size_bytes=20), ConnAck(0x89)),
    ):
        peer = SessionPeer(V5)
        peer.send(Connect("dev", properties=asked))
        peer.session.refuse(Refusal.SERVER_BUSY, "come back later")
        assert peer.answers() == [answered]
    old = SessionPeer(V311)
    old.send(Connect("dev"))
    old.session.refuse(Refusal.SERVER_BUSY, "come back later")
    assert old.answers() == [ConnAck(3)]


@pytest.mark.parametrize(
    ("version", "connect", "code", "answer"),
    [
        (V311, Connect(""), 0x85, ConnAck(2)),
        (V5, Connect(""), 0x85, ConnAck(0x85)),
        (V5, Connect("d", will=Will("w", qos=2)), 0x9B, ConnAck(0x9B)),
        (V5, Connect("d", will=Will("w", retain=True)), 0x9A, ConnAck(0x9A)),
        (V5, Connect("d", properties=Properties(authentication_method="SCRAM")), 0x8C, ConnAck(0x8C)),
    ],
)
def test_what_is_not_served_is_refused_before_anybody_is_asked(
    version: Version, connect: Connect, code: int, answer: Packet
) -> None:
    """F-01, F-11: an empty client id, and in MQTT 5 a retained or QoS 2 will and enhanced authentication."""
    peer = SessionPeer(version)
    assert _codes(peer.send(connect)) == [code]
    assert peer.answers() == [answer]
    assert peer.session.should_close


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        ("10 0e 0006 4d5149736470 03 02 000a 0000", "20 02 00 01"),
        ("10 0c 0004 4d515454 03 02 000a 0000", "20 02 00 01"),
        ("10 0c 0004 4d515454 06 02 000a 0000", "20 03 00 84 00"),
        ("10 0d 0004 4d515454 05 02 000a 00 0003 63", "20 03 00 81 00"),
        ("10 0c 0004 4d515454 04 02 000a 0009", ""),
        ("10 0c 0004 4d515455 04 02 000a 0000", ""),
        ("30 03 0001 61", ""),
        ("c0 00", ""),
        ("f0 00", ""),
        ("474554202f20485454502f312e310d0a", ""),
    ],
)
def test_bad_first_packets_are_answered_as_far_as_the_protocol_allows(raw: str, answer: str) -> None:
    """Unsupported levels get CONNACK 1 or 0x84, a malformed MQTT 5 CONNECT its code, everything else silence."""
    session = Session(SETTINGS, 0.0)
    assert len(_codes(session.receive(bytes.fromhex(raw), 0.0))) == 1
    assert session.take_output() == bytes.fromhex(answer)
    assert session.should_close


@BOTH
def test_pipelined_packets_wait_for_the_acceptance(version: Version) -> None:
    """What a client sends right behind its CONNECT is handled when, and only if, the CONNECT is accepted."""
    peer = SessionPeer(version)
    subscribe = Subscribe(1, (Subscription("a", 1),))
    events = peer.send(Connect("dev"), subscribe)
    assert [type(event) for event in events] == [ConnectReceived]
    assert peer.send(_REQUEST) == []
    accepted = peer.session.accept(peer.now)
    assert [type(event) for event in accepted] == [SubscribeReceived, PublishReceived]
    refused = SessionPeer(version)
    refused.send(Connect("dev"), subscribe)
    refused.session.refuse(Refusal.NOT_AUTHORISED)
    assert len(refused.answers()) == 1


_NOT_FROM_A_CLIENT: list[Packet] = [Connect("dev"), ConnAck(), SubAck(1, (0,)), PingResp(), PubRec(1), PubComp(1)]


@pytest.mark.parametrize(
    ("version", "packet"),
    [(V311, packet) for packet in (*_NOT_FROM_A_CLIENT, UnsubAck(1))]
    + [(V5, packet) for packet in (*_NOT_FROM_A_CLIENT, UnsubAck(1, (0,)), Auth())],
)
def test_packets_that_no_client_may_send_now(version: Version, packet: Packet) -> None:
    """A second CONNECT and the packets of a server end the session; MQTT 5 is told 0x82."""
    peer = opened(version)
    assert _codes(peer.send(packet)) == [ReasonCode.PROTOCOL_ERROR]
    answers = peer.answers()
    if version == V311:
        assert answers == []
    else:
        assert [type(answer) for answer in answers] == [Disconnect]
        assert isinstance(answers[0], Disconnect)
        assert answers[0].code == ReasonCode.PROTOCOL_ERROR
    assert peer.session.should_close


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (Publish("a", b"", 2, packet_id=1), 0x9B),
        (Publish("a", b"", 1, True, packet_id=1), 0x9A),
        (Publish("a", properties=Properties(topic_alias=1)), 0x94),
        (Publish("a", properties=Properties(subscription_identifiers=(1,))), 0x82),
        (Subscribe(1, (Subscription("a"),), Properties(subscription_identifiers=(1,))), 0xA1),
    ],
)
def test_mqtt_5_is_held_to_what_the_connack_said(packet: Packet, code: int) -> None:
    """F-07: QoS 2, retain, topic aliases and subscription identifiers end an MQTT 5 session with their code."""
    peer = opened(V5)
    assert _codes(peer.send(packet)) == [code]
    (answer,) = peer.answers()
    assert isinstance(answer, Disconnect)
    assert answer.code == code


def test_disconnect_by_the_owner() -> None:
    """MQTT 5 is told why; 3.1.1 and a client that was never let in just lose the connection."""
    new, old, early = opened(V5), opened(V311), SessionPeer(V5)
    new.session.disconnect(ReasonCode.SESSION_TAKEN_OVER, "newer connection")
    assert new.answers() == [Disconnect(0x8E, Properties(reason_string="newer connection"))]
    old.session.disconnect(ReasonCode.SESSION_TAKEN_OVER, "newer connection")
    early.session.disconnect(ReasonCode.SERVER_SHUTTING_DOWN)
    assert (old.answers(), early.answers()) == ([], [])
    assert all(peer.session.should_close for peer in (new, old, early))


@pytest.mark.parametrize(
    "asked",
    [Properties(request_problem_information=False), Properties(maximum_packet_size_bytes=8)],
    ids=["unwanted", "too long"],
)
def test_disconnect_leaves_out_a_reason_string(asked: Properties) -> None:
    """MQTT 5: the bare code is left when the words are not wanted, or make the packet too large [MQTT-3.14.2-3]."""
    peer = opened(V5, Connect("dev", properties=asked))
    peer.session.disconnect(ReasonCode.SESSION_TAKEN_OVER, "newer connection")
    assert peer.session.take_output() == bytes.fromhex("e0 01 8e")


def test_a_violation_that_disconnect_cannot_name_is_a_protocol_error() -> None:
    """A second CONNECT of an unknown level is 0x84, which MQTT 5 has for CONNACK only: DISCONNECT says 0x82."""
    peer = opened(V5)
    raw = bytes.fromhex("10 0c 0004 4d515454 06 02 000a 0000")
    assert _codes(peer.session.receive(raw, peer.now)) == [ReasonCode.UNSUPPORTED_PROTOCOL_VERSION]
    (answer,) = peer.answers()
    assert isinstance(answer, Disconnect)
    assert answer.code == ReasonCode.PROTOCOL_ERROR


def test_a_peer_that_asks_for_its_will_did_not_leave_gracefully() -> None:
    """MQTT 5 DISCONNECT 0x04 and a lost transport are what another broker publishes the Will for."""
    assert opened(V5).send(Disconnect(ReasonCode.DISCONNECT_WITH_WILL)) == [PeerDisconnected(graceful=False)]
    assert opened(V5).session.connection_lost() == [PeerDisconnected(graceful=False)]
