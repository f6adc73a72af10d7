"""F-01 to F-04, F-07: no device reaches, hears or leaves anything on a topic that is not its own."""

from collections.abc import Sequence

import pytest

from broker.packets import V5, V311, Disconnect, PubAck, Publish, Version, Will
from tests.faults.scene import NOT_AUTHORIZED, WAYS, FreshId, door, new_source, resident, spy_on
from tests.support.device import Credentials, JsonDevice, Wire
from tests.support.installation import Installation

FORGED = b'{"request_id":"m-1","status":"provisioned"}'


def response(client_id: str) -> str:
    return f"prov/v1/{client_id}/response"


def lwt(client_id: str) -> str:
    return f"$EDC/provision/{client_id}/MQTT/LWT"


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_01_a_will_of_any_kind_refuses_the_connect(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-01: a Will on a foreign, a system or even an own topic refuses the CONNECT, and its text reaches nobody."""
    attacker, victim_id = shared_installation.request(fresh_id()), fresh_id()
    own, source = attacker.client_id, new_source()
    gate = door(shared_installation, name, source)
    topics = (response(victim_id), response(own), f"prov/v1/{own}/request", "$SYS/broker/uptime", lwt(victim_id))
    with spy_on(shared_installation, fresh_id()) as spy, spy_on(shared_installation, victim_id) as victim:
        for topic in topics:
            with Wire(gate, version) as wire:
                code = wire.connect(own, attacker.username, attacker.password, will=Will(topic, FORGED, qos=1))
                assert code == NOT_AUTHORIZED[version], topic
                assert wire.is_cut()
        assert (victim.wire.heard(), spy.wire.heard()) == ([], [])
        assert victim.ask()["status"] == "provisioned"
        assert spy.wire.heard() == []
    assert shared_installation.await_audit("connect.refused", reason="will_not_allowed", address=source)


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_01_a_retained_will_refuses_the_connect(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-01: retained it is refused on the gateway's own topic too; MQTT 5 has a code for just that [MQTT-3.2.2-13]."""
    attacker, victim_id = shared_installation.request(fresh_id()), fresh_id()
    with spy_on(shared_installation, victim_id) as victim:
        for topic in (lwt(attacker.client_id), response(victim_id)):
            with Wire(door(shared_installation, name), version) as wire:
                will = Will(topic, FORGED, retain=True)
                code = wire.connect(attacker.client_id, attacker.username, attacker.password, will=will)
                assert code == {V311: 5, V5: 0x9A}[version]
        assert victim.wire.heard() == []


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_01_the_own_will_of_a_gateway_reaches_nobody(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-01: a gateway may carry its Will; when it vanishes, neither a stranger nor its own next connection hears it."""
    gateway = shared_installation.request(fresh_id())
    own = f"$EDC/provision/{gateway.client_id}/#"
    with spy_on(shared_installation, fresh_id()) as spy:
        with Wire(door(shared_installation, name), version) as wire:
            will = Will(lwt(gateway.client_id), b"gone", qos=1)
            assert wire.connect(gateway.client_id, gateway.username, gateway.password, will=will) == 0
            assert wire.subscribe(own) == (1,)
        with Wire(door(shared_installation, name), version) as wire:
            assert wire.connect(gateway.client_id, gateway.username, gateway.password) == 0
            assert wire.subscribe(own) == (1,)
            assert (wire.heard(), spy.wire.heard()) == ([], [])


def test_f_01_account_broker_refuses_a_foreign_will(shared_installation: Installation, fresh_id: FreshId) -> None:
    """F-01: on the account broker a Will may only be on an own topic; a refused one is neither sent nor retained."""
    attacker, victim, spy = (resident(shared_installation, fresh_id()) for _ in range(3))
    foreign = f"{victim.topic}/command"
    with victim.connect() as heard_by_victim, spy.connect() as heard_by_spy:
        for topic in (foreign, f"$EDC/{foreign}", "$SYS/broker/uptime", "bolt/anybody/command"):
            for retain in (False, True):
                with Wire(attacker.home) as wire:
                    answer = attacker.answer
                    will = Will(topic, FORGED, qos=1, retain=retain)
                    assert wire.connect(answer["client_id"], answer["username"], answer["password"], will=will) == 5
        assert victim.heard(heard_by_victim) == []
        assert spy.heard(heard_by_spy) == []
    with victim.connect() as again:
        assert victim.heard(again) == []


def foreign_filters(own: str, victim: str) -> Sequence[str]:
    return (
        "#", "+/#", "+/+/+/+", "/#", "prov/#", "prov/v1/#", "prov/v1/+/response", "prov/+/+/response",
        response(victim), f"prov/v1/{own}/+", f"prov/v1/{own}/#", f"prov/v1/{own}/request", f"prov/v1/{own}/ack",
        f"{response(own)}/#", "$EDC/#", "$EDC/+/+/#", "$EDC/provision/#", "$EDC/provision/+/#",
        f"$EDC/provision/{victim}/#", f"$EDC/+/{own}/#", f"$EDC/provision/{own}x/#", "ctl/#", "acme/#",
    )  # fmt: skip


def assert_walk_is_unheard(victim: JsonDevice, *others: JsonDevice | Wire) -> None:
    """The victim is answered, and nobody else hears of it."""
    assert victim.ask()["status"] == "provisioned"
    for other in others:
        assert (other if isinstance(other, Wire) else other.wire).heard() == []


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_02_only_the_exact_filters_are_granted(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-02: every wildcard and foreign filter is refused; the answer to another device reaches that one alone."""
    attacker, victim_id = shared_installation.request(fresh_id()), fresh_id()
    own, source = attacker.client_id, new_source()
    with (
        spy_on(shared_installation, fresh_id()) as spy,
        spy_on(shared_installation, victim_id) as victim,
        Wire(door(shared_installation, name, source), version) as wire,
    ):
        assert wire.connect(own, attacker.username, attacker.password) == 0
        for one in foreign_filters(own, victim_id):
            assert wire.subscribe(one) == ({V311: 0x80, V5: 0x87}[version],), one
        assert_walk_is_unheard(victim, wire, spy)
        assert wire.subscribe(response(own)) == (1,)
        assert wire.subscribe(f"$EDC/provision/{own}/#") == (1,)
    assert shared_installation.await_audit("subscribe.refused", address=source)


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_03_each_filter_of_one_subscribe_stands_alone(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-03: behind an allowed filter a forbidden one is refused in the same SUBACK, and what it names is not heard."""
    attacker, victim_id = shared_installation.request(fresh_id()), fresh_id()
    own, refused = attacker.client_id, {V311: 0x80, V5: 0x87}[version]
    with (
        spy_on(shared_installation, fresh_id()) as spy,
        spy_on(shared_installation, victim_id) as victim,
        Wire(door(shared_installation, name), version) as wire,
    ):
        assert wire.connect(own, attacker.username, attacker.password) == 0
        assert wire.subscribe(response(own), response(victim_id), "#") == (1, refused, refused)
        assert wire.subscribe(response(victim_id), response(own)) == (refused, 1)
        assert_walk_is_unheard(victim, wire, spy)
        wire.publish(f"prov/v1/{own}/request", b"{}")
        answer = wire.message()
        assert answer is not None and answer.topic == response(own), "the allowed filter is alive"


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_04_shared_and_system_filters_are_refused(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-04: a shared subscription gives no way around the rights, and nothing of the system is to be heard."""
    attacker, victim_id = shared_installation.request(fresh_id()), fresh_id()
    own = attacker.client_id
    shared = [f"$share/g/{one}" for one in (response(victim_id), response(own), "#", f"$EDC/provision/{own}/#")]
    system = ["$SYS/#", "$SYS/broker/clients/connected", "$CONTROL/#", "$CONTROL/dynamic-security/v1/response"]
    codes = {V311: (0x80,) * 8, V5: (0x9E,) * 4 + (0x87,) * 4}[version]
    with (
        spy_on(shared_installation, fresh_id()) as spy,
        spy_on(shared_installation, victim_id) as victim,
        Wire(door(shared_installation, name), version) as wire,
    ):
        assert wire.connect(own, attacker.username, attacker.password) == 0
        assert wire.subscribe(*shared, *system) == codes
        assert_walk_is_unheard(victim, wire, spy)


def publish_retained(wire: Wire, topic: str, payload: bytes) -> None:
    """In 3.1.1 it is acknowledged, dropped; MQTT 5 was told that it is not available, and is cut [MQTT-3.2.2-14]."""
    wire.send(Publish(topic, payload, qos=1, retain=True, packet_id=wire.next_id()))
    if wire.version == V5:
        farewell = wire.next(Disconnect)
        assert isinstance(farewell, Disconnect) and farewell.code == 0x9A
    else:
        assert wire.next(PubAck) is not None


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_07_a_retained_message_has_no_effect(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-07: retained, neither an own question nor a forged answer does anything, now or for who subscribes later."""
    attacker, victim_id = shared_installation.request(fresh_id()), fresh_id()
    question, source = b'{"request_id":"m-1"}', new_source()
    targets = (f"prov/v1/{attacker.client_id}/request", response(attacker.client_id), response(victim_id))
    with spy_on(shared_installation, fresh_id()) as spy, spy_on(shared_installation, victim_id) as victim:
        for topic in targets:
            with Wire(door(shared_installation, name, source), version) as wire:
                assert wire.connect(attacker.client_id, attacker.username, attacker.password) == 0
                publish_retained(wire, topic, question if topic.endswith("request") else FORGED)
        assert (victim.wire.heard(), spy.wire.heard()) == ([], [])
    assert shared_installation.state(attacker.client_id) == "pending"
    with JsonDevice(door(shared_installation, name), attacker, version) as later:
        assert later.wire.heard() == []
    if version == V311:
        assert shared_installation.await_audit("publish.refused", reason="retain", address=source)
    else:
        assert shared_installation.await_audit("packet.violation", address=source)


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_07_an_answer_is_never_kept_for_later_subscribers(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-07: who subscribes to the response topic after the hand-over hears nothing, before and after confirmation."""
    credentials = shared_installation.request(fresh_id())
    gate = door(shared_installation, name)

    def subscribe_anew(as_whom: Credentials) -> list[Publish]:
        with JsonDevice(gate, as_whom, version) as device:
            return device.wire.heard()

    with JsonDevice(gate, credentials, version) as device:
        answer = device.ask()
        assert answer["status"] == "provisioned"
    assert subscribe_anew(credentials) == []
    with shared_installation.account_wire(answer, "north"):
        shared_installation.await_state(credentials.client_id, "confirmed")
    assert subscribe_anew(credentials) == []


def test_f_07_account_broker_keeps_nothing_for_strangers(shared_installation: Installation, fresh_id: FreshId) -> None:
    """F-07: on the account broker a retained message on a foreign topic is dropped, one on an own topic stays own."""
    attacker, victim, spy = (resident(shared_installation, fresh_id()) for _ in range(3))
    with attacker.connect() as wire:
        for topic in (f"{victim.topic}/command", f"$EDC/{victim.topic}/command", f"{spy.topic}/command"):
            wire.publish(topic, FORGED, retain=True)
        wire.publish(f"{attacker.topic}/kept", b"secret", retain=True)
        assert attacker.heard(wire) == [(f"{attacker.topic}/kept", b"secret")]
    for other in (victim, spy):
        with other.connect() as wire:
            assert other.heard(wire) == []
            # Filters of a stranger are refused, so what was kept cannot be asked for either.
            assert wire.subscribe(f"{attacker.topic}/kept", "acme/#", "#") == (0x80, 0x80, 0x80)
            assert other.heard(wire) == []
    with attacker.connect() as again:
        assert attacker.heard(again) == [(f"{attacker.topic}/kept", b"secret")]
