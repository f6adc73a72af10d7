"""Account brokers that ask us: who may ask, and what each of them is answered on a device's way in."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlencode

import pytest

from provisioner.account_brokers.callback_emqx import Emqx
from provisioner.account_brokers.callback_mosquitto import MosquittoHttp
from provisioner.account_brokers.callback_rabbitmq import RabbitMq
from provisioner.account_brokers.callback_vernemq import VerneMq
from provisioner.model.account import Coupling
from provisioner.model.errors import Conflict, Unavailable
from provisioner.model.ports import AccountBroker, Gap, Sighting
from tests.contracts.account_broker_stage import user
from tests.contracts.callback_site import BASIC, LOGIN, SECRET, Site, site


@pytest.fixture
def rabbit() -> Iterator[Site]:
    with site(RabbitMq()) as made:
        made.loop.run(made.broker.put_user(user(1)))
        yield made


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (BASIC, 200),
        ({"authorization": f"Bearer {SECRET}"}, 200),
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Basic !!"}, 401),
        ({"authorization": "Basic " + base64.b64encode(b"caller:").decode()}, 401),
        ({"authorization": "Basic " + base64.b64encode(b"\xff\xfe").decode()}, 401),
    ],
)
def test_only_our_broker_is_answered(rabbit: Site, headers: dict[str, str], status: int) -> None:
    """Who has not the secret learns nothing, not even about a right password."""
    told, answer = rabbit.ask("/user", urlencode(LOGIN).encode(), headers)
    assert (told, answer) == (status, b"allow" if status == 200 else b"")


def test_rabbitmq_walks_a_device_in(rabbit: Site) -> None:
    """EC-31: from the login to the topics; the vhost question, which brings the address, is the sighting."""
    assert rabbit.form("/user", **LOGIN) == b"allow"
    assert rabbit.sightings == []
    assert rabbit.form("/vhost", username="user-1", vhost="/", ip="192.0.2.7", client_id="gw1") == b"allow"
    assert rabbit.sightings == [Sighting(account="acme", username="user-1", client_id="gw1", address="192.0.2.7")]
    topic = {"username": "user-1", "name": "amq.topic", "permission": "read", "variable_map.client_id": "gw1"}
    assert rabbit.form("/topic", **topic, routing_key="acme.gw1.#") == b"allow"
    assert rabbit.form("/topic", **topic, routing_key="acme.gw2.#") == b"deny"
    assert rabbit.form("/topic", **(topic | {"permission": "write"}), routing_key="$EDC.acme.gw1.x") == b"allow"


@pytest.mark.parametrize(
    "change",
    [{"password": "Wrong-word-1"}, {"client_id": "gw2"}, {"client_id": ""}, {"username": "nobody"}, {"vhost": "other"}],
    ids=str,
)
def test_rabbitmq_is_told_no(rabbit: Site, change: dict[str, str]) -> None:
    """F-05, F-11: a wrong password, another's client id, no client id, an unknown user, another vhost."""
    rabbit.loop.run(rabbit.broker.put_user(user(2)))
    assert rabbit.form("/user", **(LOGIN | change)) == b"deny"
    assert rabbit.sightings == []


def test_rights_end_at_once_and_the_connection_is_cut(rabbit: Site) -> None:
    """F-08: a disabled user's next question is denied whatever was granted before; enabling lets it in again."""
    put, made = rabbit.broker.put_user, user(1)
    rabbit.loop.run(put(replace(made, enabled=False)))
    assert rabbit.cuts.made == [("user-1", None)]
    assert rabbit.form("/user", **LOGIN) == b"deny"
    assert rabbit.form("/vhost", username="user-1", vhost="/", client_id="gw1") == b"deny"
    rabbit.loop.run(put(made))
    assert rabbit.form("/user", **LOGIN) == b"allow"


def test_a_cut_that_fails_is_told_and_the_login_is_refused_all_the_same(rabbit: Site) -> None:
    """F-08: the effect is tried again until the connection is cut; nobody gets in meanwhile."""
    rabbit.cuts.down = True
    for _ in range(2):
        with pytest.raises(Unavailable):
            rabbit.loop.run(rabbit.broker.remove_user("acme", "user-1"))
    assert rabbit.form("/user", **LOGIN) == b"deny"
    rabbit.cuts.down = False
    rabbit.loop.run(rabbit.broker.remove_user("acme", "user-1"))
    assert rabbit.cuts.made == [("user-1", None)]


def test_a_reservation_cuts_who_sits_there(rabbit: Site) -> None:
    """EC-26, F-08: a client id that becomes reserved is taken from a LOOSE user that was seen on it."""
    loose = user(2, coupling=Coupling.LOOSE)
    rabbit.loop.run(rabbit.broker.put_user(loose))
    assert rabbit.form("/vhost", username="user-2", vhost="/", client_id="gw3") == b"allow"
    rabbit.loop.run(rabbit.broker.put_user(user(3, reserved=True, coupling=Coupling.LOOSE)))
    assert rabbit.cuts.made == [("user-2", None)]


def test_a_client_id_belongs_to_one_account(rabbit: Site) -> None:
    """F-05: these brokers have one space of client ids, so that a device of another account would be thrown out: not
    even a LOOSE user gets in under its client id, and it cannot be given a second time."""
    stranger = user(2, account="globex", coupling=Coupling.LOOSE)
    rabbit.loop.run(rabbit.broker.put_user(stranger))
    foreign = LOGIN | {"username": "user-2", "password": "Pass-word-2"}
    assert rabbit.form("/user", **foreign) == b"deny"
    assert rabbit.form("/user", **foreign | {"client_id": "gw9"}) == b"allow"
    with pytest.raises(Conflict, match="client id"):
        rabbit.loop.run(rabbit.broker.put_user(replace(stranger, username="user-3", client_id="gw1")))
    rabbit.loop.run(rabbit.broker.remove_user("acme", "user-1"))
    assert rabbit.form("/user", **foreign) == b"allow"


def test_a_new_device_cuts_who_sits_on_its_client_id(rabbit: Site) -> None:
    """F-05, F-08: a LOOSE user of another account was there before the client id was anybody's."""
    stranger = user(2, account="globex", coupling=Coupling.LOOSE)
    rabbit.loop.run(rabbit.broker.put_user(stranger))
    assert rabbit.form("/vhost", username="user-2", vhost="/", client_id="gw3") == b"allow"
    rabbit.loop.run(rabbit.broker.put_user(user(3)))
    assert rabbit.cuts.made == [("user-2", None)]
    assert rabbit.form("/vhost", username="user-2", vhost="/", client_id="gw3") == b"deny"


def test_users_are_put_before_it_is_asked() -> None:
    """F-31, F-08: it keeps no users, so it takes them before anybody can ask; nobody is cut for that, but whoever is
    put out again afterwards is."""
    shut_out = user(2, enabled=False)
    with site(RabbitMq(), before=(user(1), shut_out)) as rabbit:
        assert rabbit.broker.capabilities().keeps_users is False
        assert rabbit.form("/user", **LOGIN) == b"allow"
        assert rabbit.form("/user", **LOGIN | {"username": "user-2", "password": "Pass-word-2"}) == b"deny"
        assert rabbit.cuts.made == []
        rabbit.loop.run(rabbit.broker.put_user(shut_out))
        assert rabbit.cuts.made == [("user-2", None)]


def test_what_was_told_while_nobody_listened_is_lost() -> None:
    """Case 3: a broker that tells who leaves told it to nobody while the service was away, so that nobody knows who is
    there; where it never tells, nobody was taken for connected."""
    with site(Emqx()) as emqx, site(RabbitMq()) as rabbit:
        assert (emqx.gaps, rabbit.gaps) == ([Gap("asked", all_left=False)], [])


def test_who_came_before_the_start_is_seen_leaving() -> None:
    """Cases 2 and 3: of a connection that it never heard of EMQX's word is passed on by the name that the registry may
    know it by; of one that was taken over from since it is not."""
    who = {"username": "user-1", "clientid": "gw1"}
    with site(Emqx(), before=(user(1),)) as emqx:
        emqx.json("/event", **who, event="client.disconnected", reason="tcp_closed", peername="192.0.2.7:5")
        (left,) = emqx.sightings
        assert (left.connected, left.lost, left.which) == (False, True, "user-1 192.0.2.7:5")
        emqx.json("/event", **who, event="client.connected", peername="192.0.2.7:7")
        emqx.json("/event", **who, event="client.disconnected", reason="tcp_closed", peername="192.0.2.7:6")
        assert [each.connected for each in emqx.sightings] == [False, True]


def test_the_port_is_kept(rabbit: Site) -> None:
    """The adapter has the shape of the port; a username belongs to one account; it says what it cannot do."""
    broker: AccountBroker = rabbit.broker
    can = broker.capabilities()
    assert (can.kicks, can.mqtt5, can.reports_leaving, can.client_id_forbidden) == (True, False, False, ".")
    with pytest.raises(Conflict):
        rabbit.loop.run(broker.put_user(user(1, account="other")))
    rabbit.loop.run(broker.remove_user("other", "user-1"))
    assert rabbit.loop.run(broker.users()) == [("acme", "user-1")]


def test_emqx_is_told_by_events() -> None:
    """EMQX: the login brings the rights; the webhook says who is in and who left."""
    who = {"username": "user-1", "clientid": "gw1"}
    with site(Emqx()) as emqx:
        emqx.loop.run(emqx.broker.put_user(user(1)))
        granted = emqx.json("/authn", **who, password="Pass-word-1", peerhost="192.0.2.7")
        assert (granted["result"], granted["acl"][0]["topic"]) == ("allow", "acme/gw1/#")
        assert emqx.json("/authz", **who, topic="acme/gw2/x", action="publish") == {"result": "deny"}
        emqx.json("/event", **who, event="client.connected", peername="192.0.2.7:1")
        emqx.json("/event", **who, event="client.disconnected", reason="takenover")
        emqx.json("/event", **who, event="client.disconnected", reason="normal")
        assert [(s.connected, s.address) for s in emqx.sightings] == [(True, "192.0.2.7"), (False, None)]


def test_an_arrival_after_the_end_of_its_rights_is_cut() -> None:
    """F-08: a login that was granted just before it was disabled, and is reported after it, does not stay."""
    with site(Emqx()) as emqx:
        emqx.loop.run(emqx.broker.put_user(user(1, enabled=False)))
        emqx.json("/event", username="user-1", clientid="gw1", event="client.connected")
        emqx.json("/event", username="someone-else", clientid="gw1", event="client.connected")
        assert emqx.cuts.made == [("user-1", None), ("user-1", "gw1")]
        assert emqx.sightings == []


def test_vernemq_is_told_by_hooks() -> None:
    """VerneMQ: register is the login, on_register the sighting."""
    who = {"username": "user-1", "client_id": "gw1", "mountpoint": "", "peer_addr": "192.0.2.7"}
    with site(VerneMq()) as verne:
        verne.loop.run(verne.broker.put_user(user(1)))
        login = verne.json("/", {"vernemq-hook": "auth_on_register_m5"}, **who, password="Pass-word-1")
        assert login == {"result": "ok"}
        assert verne.json("/", {"vernemq-hook": "on_register_m5"}, **who) == {}
        assert [s.client_id for s in verne.sightings] == ["gw1"]
        asked = [{"topic": "acme/gw1/#", "qos": 1}, {"topic": "#", "qos": 0}]
        told = verne.json("/", {"vernemq-hook": "auth_on_subscribe"}, **who, topics=asked)
        assert [each["qos"] for each in told["topics"]] == [1, 128]


def test_mosquitto_is_told_by_status() -> None:
    """mosquitto with an HTTP plugin: an accepted login is the sighting."""
    who = {"username": "user-1", "clientid": "gw1"}
    with site(MosquittoHttp()) as mosquitto:
        mosquitto.loop.run(mosquitto.broker.put_user(user(1)))
        for password, status in (("Pass-word-1", 200), ("Wrong-word-1", 403)):
            assert mosquitto.ask("/getuser", json.dumps(who | {"password": password}).encode())[0] == status
        assert len(mosquitto.sightings) == 1
        assert mosquitto.ask("/aclcheck", json.dumps(who | {"topic": "acme/gw1/x", "acc": 1}).encode())[0] == 200
        assert mosquitto.ask("/aclcheck", json.dumps(who | {"topic": "acme/gw2/x", "acc": 1}).encode())[0] == 403
