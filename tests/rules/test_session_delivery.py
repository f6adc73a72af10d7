"""Messages of the client: retain, the exchanges of QoS 1 and 2, repeats, packet identifiers."""

from typing import Any

import pytest

from broker.packets import (
    V5,
    V311,
    Packet,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    Subscribe,
    Subscription,
    Unsubscribe,
    Version,
)
from broker.reason_codes import ReasonCode
from broker.session_events import PublishReceived, Violation
from tests.rules.session_peer import opened

BOTH = pytest.mark.parametrize("version", [V311, V5])


def _codes(events: list[Any]) -> list[int]:
    return [event.reason_code for event in events if isinstance(event, Violation)]


def test_retain_of_311_is_left_to_the_owner() -> None:
    """F-07: 3.1.1 cannot be told, so the event carries the flag."""
    (event,) = opened(V311).send(Publish("a", b"", 1, True, packet_id=1))
    assert isinstance(event, PublishReceived)
    assert event.retain


def test_qos_2_of_311_is_delivered_once() -> None:
    """However often PUBLISH and PUBREL are repeated, there is one event, and the exchange completes."""
    peer = opened(V311)
    publish = Publish("a", b"x", 2, packet_id=9)
    again = Publish("a", b"x", 2, dup=True, packet_id=9)
    assert peer.send(publish) == [PublishReceived("a", b"x", 2, False, False, 9)]
    assert (peer.send(again), peer.answers()) == ([], [])
    peer.session.acknowledge(9, ReasonCode.NOT_AUTHORIZED)
    assert peer.answers() == [PubRec(9)]
    assert (peer.send(again), peer.answers()) == ([], [PubRec(9)])
    assert (peer.send(PubRel(9)), peer.answers()) == ([], [PubComp(9)])
    assert (peer.send(PubRel(9)), peer.answers()) == ([], [PubComp(9)])
    assert len(peer.send(publish)) == 1
    assert _codes(peer.send(PubRel(9))) == [ReasonCode.PROTOCOL_ERROR]


def test_repeated_qos_1_of_311_is_one_message_until_it_is_acknowledged() -> None:
    """F-26: a repeat of an unanswered PUBLISH is no second event; after the PUBACK it is a new one, marked DUP."""
    peer = opened(V311)
    again = Publish("a", b"x", 1, dup=True, packet_id=9)
    assert len(peer.send(Publish("a", b"x", 1, packet_id=9))) == 1
    assert peer.send(again) == []
    peer.session.acknowledge(9)
    assert peer.answers() == [PubAck(9)]
    assert peer.send(again) == [PublishReceived("a", b"x", 1, False, True, 9)]


@BOTH
def test_a_packet_identifier_in_use_cannot_be_taken(version: Version) -> None:
    """[MQTT-2.2.1-3]: one space for PUBLISH, SUBSCRIBE and UNSUBSCRIBE; MQTT 5 may not repeat a PUBLISH either."""
    publish, subscribe = Publish("a", b"", 1, packet_id=4), Subscribe(4, (Subscription("a"),))
    pairs: list[tuple[Packet, Packet]] = [
        (publish, publish), (publish, subscribe), (subscribe, publish), (subscribe, Unsubscribe(4, ("a",)))
    ]  # fmt: skip
    if version == V5:
        pairs.append((publish, Publish("a", b"", 1, dup=True, packet_id=4)))
    else:
        pairs.append((publish, Publish("a", b"", 2, dup=True, packet_id=4)))
    for first, second in pairs:
        peer = opened(version)
        assert _codes(peer.send(first, second)) == [ReasonCode.PROTOCOL_ERROR]


def test_mqtt_5_learns_why_a_message_was_refused() -> None:
    """PUBACK carries the reason code in MQTT 5; 3.1.1 gets the plain one (F-13)."""
    cases: list[tuple[Version, PubAck]] = [(V5, PubAck(2, 0x97)), (V311, PubAck(2))]
    for version, answer in cases:
        peer = opened(version)
        peer.send(Publish("a", b"", 1, packet_id=2))
        peer.session.acknowledge(2, ReasonCode.QUOTA_EXCEEDED)
        assert peer.answers() == [answer]
