"""The gate on real sockets: the walk, the rights of a connection, and what the application sees of it (D1)."""

import asyncio
from collections.abc import Callable

import pytest

from broker.access import Close
from broker.limits import GateLimits
from broker.loop import new_event_loop
from broker.packets import (
    V5,
    V311,
    Disconnect,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Version,
    Will,
)
from broker.reason_codes import ReasonCode
from tests.walk.gate_house import (
    BOTH,
    PASSWORD,
    Peer,
    device,
    request_topic,
    response_topic,
    running_gate,
    until,
)

LOOPS = (new_event_loop, asyncio.new_event_loop)


@pytest.mark.parametrize("loop_factory", LOOPS)
@pytest.mark.parametrize("version", BOTH)
def test_d1_the_whole_walk(version: Version, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """D1: connect, subscribe, ask, get the answer and the acknowledgements, leave; with and without uvloop.

    The PUBACK is in front of the answer: a device that leaves with it unread resets its own last packets away."""
    with running_gate(loop_factory=loop_factory) as house:
        with device(house, version=version) as peer:
            peer.send(Publish(request_topic("gw"), b"hello", qos=1, packet_id=9))
            assert peer.next() == PubAck(9)
            answer = peer.next_of(Publish)
            assert (answer.topic, answer.payload, answer.qos, answer.retain) == (
                response_topic("gw"),
                b"answer:hello",
                1,
                False,
            )
            assert answer.packet_id is not None
            peer.send(PubAck(answer.packet_id), PingReq())
            assert peer.next() == PingResp()
            until(lambda: len(house.gate.connections()) == 1, "the connection is listed")
            peer.send(Unsubscribe(3, (response_topic("gw"),)))
            assert peer.next_of(UnsubAck).packet_id == 3
            peer.send(Disconnect())
            assert peer.next() is None
        house.until_closed("gw", Close.LEFT)
        assert [call for call, _, _ in house.application.calls] == ["opened", "received", "acknowledged", "closed"]
        assert house.application.heard("acknowledged") == [("gw", response_topic("gw"))]
        assert house.application.incidents == []


def test_one_broken_application_call_at_login_is_unavailable_and_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """An application that raises in ``admit`` means "server unavailable", and the log has no password in it."""
    with running_gate() as house:
        with Peer(house.gate.ports["plain"]) as peer:
            assert peer.connect("gw", "broken") == 3
        assert house.application.reasons("connect.refused") == ["application_failed"]
    assert "RuntimeError" in caplog.text
    assert PASSWORD.decode() not in caplog.text


@pytest.mark.parametrize(("version", "code"), [(V311, 5), (V5, 0x87)])
def test_f20_every_refused_login_looks_alike(version: Version, code: int) -> None:
    """F-11, F-20: a wrong password, a foreign Will and a bad username get the same code; the audit knows better."""
    foreign = Will("prov/v1/other/response", b"forged")
    with running_gate() as house:
        port = house.gate.ports["plain"]
        for arguments in ({"password": b"wrong"}, {"username": "a/b"}, {"will": foreign}):
            with Peer(port, version) as peer:
                assert peer.connect("gw", **arguments) == code
                assert peer.until_hung_up() == []
        assert house.application.reasons("connect.refused") == ["password", "username_malformed", "will_not_allowed"]
        assert house.application.heard("opened") == []


def test_f09_a_client_id_with_wildcards_is_refused_before_the_application_is_asked() -> None:
    """F-09: 3.1.1 is told "identifier rejected"."""
    with running_gate() as house:
        with Peer(house.gate.ports["plain"]) as peer:
            assert peer.connect("a/#") == 2
        assert house.application.logins == []


def test_f01_an_own_will_is_accepted_and_delivered_to_nobody() -> None:
    """F-01: an ESF gateway may carry its Will; when it vanishes the application hears "lost" and nobody a message."""
    own = "$EDC/provision/gw/MQTT/LWT"
    with running_gate() as house:
        watcher = device(house, "watcher")
        with Peer(house.gate.ports["plain"]) as peer:
            assert peer.connect("gw", will=Will(own, b"gone")) == 0
        house.until_closed("gw", Close.LOST)
        watcher.send(PingReq())
        assert watcher.next() == PingResp()


@pytest.mark.parametrize(("version", "codes"), [(V311, (1, *[0x80] * 4)), (V5, (1, 0x87, 0x87, 0x9E, 0x87))])
def test_f02_f03_f04_each_filter_is_granted_on_its_own(version: Version, codes: tuple[int, ...]) -> None:
    """F-02..F-04: an allowed filter is granted beside refused ones; 3.1.1 gets 0x80, MQTT 5 the reason."""
    filters = (response_topic("gw"), "#", response_topic("other"), "$share/g/" + response_topic("gw"), "$SYS/#")
    with running_gate() as house, Peer(house.gate.ports["plain"], version) as peer:
        assert peer.connect("gw") == 0
        peer.send(Subscribe(5, tuple(Subscription(one, 1) for one in filters)))
        assert peer.next_of(SubAck).codes == codes
        until(lambda: house.application.count("subscribe.refused") == 4, "every refusal is in the audit")


def test_answers_reach_only_the_asking_connection_and_only_when_subscribed() -> None:
    """D1, F-06: no routing between clients; without a covering subscription nothing is sent and the send says so."""
    with running_gate() as house, device(house, "other") as other, Peer(house.gate.ports["plain"]) as peer:
        assert peer.connect("gw") == 0
        peer.send(Publish(request_topic("gw"), b"early", qos=1, packet_id=1))
        assert peer.next() == PubAck(1)
        assert house.application.unsent == 1
        peer.send(Subscribe(2, (Subscription(response_topic("gw"), 0),)))
        assert peer.next_of(SubAck).codes == (0,)
        peer.send(Publish(request_topic("gw"), b"late"))
        answer = peer.next_of(Publish)
        assert (answer.payload, answer.qos) == (b"answer:late", 0)
        other.send(PingReq())
        assert other.next() == PingResp()


def test_f05_f07_refused_publishes_are_acknowledged_and_dropped_in_3_1_1() -> None:
    """F-05, F-07, F-13: a foreign topic and a retained message never reach the application, and the audit has both."""
    with running_gate() as house, device(house) as peer:
        peer.send(Publish(request_topic("other"), b"x", qos=1, packet_id=1))
        assert peer.next() == PubAck(1)
        peer.send(Publish(request_topic("gw"), b"x", qos=1, packet_id=2, retain=True))
        assert peer.next() == PubAck(2)
        assert house.application.reasons("publish.refused") == ["topic", "retain"]
        assert house.application.heard("received") == []
        assert peer.ask(b"still here", "gw") == b"answer:still here"


def test_f05_f07_mqtt_5_is_told_what_is_refused() -> None:
    """F-05: PUBACK 0x87 for a foreign topic; F-07: a retained message ends the connection with 0x9A."""
    with running_gate() as house, device(house, version=V5) as peer:
        peer.send(Publish(request_topic("other"), b"x", qos=1, packet_id=1))
        assert peer.next() == PubAck(1, ReasonCode.NOT_AUTHORIZED)
        peer.send(Publish(request_topic("gw"), b"x", qos=1, packet_id=2, retain=True))
        assert peer.next_of(Disconnect).code == ReasonCode.RETAIN_NOT_SUPPORTED
        house.until_closed("gw", Close.VIOLATION)


def test_a_permitted_topic_can_be_published_to() -> None:
    """The ESF dialogue: replies go to a topic of the requester, only after the application asked for them."""
    reply = "$EDC/provision/me/CONF-V1/REPLY/1"
    with running_gate() as house, device(house) as peer:
        peer.send(Publish(reply, b"no", qos=1, packet_id=1))
        assert peer.next() == PubAck(1)
        peer.ask(b"permit", "gw")
        peer.send(Publish(reply, b"yes"))
        until(lambda: ("gw", "yes") in house.application.heard("received"), "the permitted message")
        assert ("gw", "no") not in house.application.heard("received")


def test_endless_refusals_end_the_connection() -> None:
    """F-35: a connection that only does what it may not is cut, and the audit sums it up."""
    with running_gate(GateLimits(refusals_max=5)) as house, device(house) as peer:
        for packet_id in range(1, 10):
            peer.send(Publish("elsewhere", b"", qos=1, packet_id=packet_id))
        peer.until_hung_up()
        house.until_closed("gw", Close.VIOLATION)
        assert house.application.reasons("flood") == ["refusals"]


def test_f35_a_flood_of_subscribes_is_cut() -> None:
    """F-35: more requests than the settled rate end the connection; messages are only slowed down."""
    limits = GateLimits(messages_burst=10, messages_per_s=50)
    with running_gate(limits) as house:
        with device(house, "patient") as patient:
            for number in range(20):
                patient.send(Publish(request_topic("patient"), b"%d" % number))
            for number in range(20):
                assert patient.next_of(Publish).payload == b"answer:%d" % number
                patient.send(PubAck(number + 1))
        with device(house, "rude") as rude:
            rude.send(*(Subscribe(n, (Subscription(response_topic("rude"), 1),)) for n in range(2, 20)))
            rude.until_hung_up()
        house.until_closed("rude", Close.VIOLATION)


def test_messages_of_one_connection_are_handled_in_order_and_others_meanwhile() -> None:
    """Pipelined messages wait for the one that is being handled; another device is answered in between."""
    with running_gate() as house, device(house) as peer, device(house, "other") as other:
        peer.send(Publish(request_topic("gw"), b"wait"), *(Publish(request_topic("gw"), b"%d" % n) for n in range(5)))
        until(lambda: house.application.under_way == 1, "the first is being handled")
        assert other.ask(b"quick", "other") == b"answer:quick"
        assert house.application.heard("received") == [("gw", "wait"), ("other", "quick")]
        house.go_on()
        answers = [peer.next_of(Publish).payload for _ in range(6)]
        assert answers == [b"answer:wait", *(b"answer:%d" % n for n in range(5))]
        assert house.application.under_way_max == 2


def test_a_message_before_a_goodbye_still_counts() -> None:
    """A device that acknowledges with QoS 0 and leaves in the same breath is heard, and "closed" comes last."""
    with running_gate() as house:
        with device(house) as peer:
            peer.send(Publish(request_topic("gw"), b"wait"), Publish(request_topic("gw"), b"last"), Disconnect())
            assert peer.next() is None
        house.go_on()
        house.until_closed("gw", Close.LEFT)
        assert [what for call, _, what in house.application.calls if call != "opened"] == ["wait", "last", Close.LEFT]


def test_an_exception_in_the_application_costs_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is acknowledged, MQTT 5 gets 0x80, the log has the type alone, and others go on."""
    with running_gate() as house, device(house, version=V5) as peer, device(house, "other") as other:
        peer.send(Publish(request_topic("gw"), b"raise", qos=1, packet_id=4))
        assert peer.until_hung_up() == [Disconnect(ReasonCode.UNSPECIFIED_ERROR)]
        house.until_closed("gw", Close.FAILED)
        assert other.ask(b"alive", "other") == b"answer:alive"
    assert "RuntimeError" in caplog.text
    assert "the payload would stand here" not in caplog.text
