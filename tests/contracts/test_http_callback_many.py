"""A broker that asks any of several gates: what one of them does not know yet it learns, and no yes is given too early
(D12)."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

import pytest

from provisioner.account_brokers.callback_emqx import Emqx
from provisioner.account_brokers.callback_mosquitto import MosquittoHttp
from provisioner.account_brokers.callback_rabbitmq import RabbitMq
from provisioner.account_brokers.http_callback import HttpCallbackBroker
from provisioner.model.errors import Unavailable
from provisioner.model.ports import BrokerUser, Gap, Sighting
from tests.contracts.account_broker_stage import user
from tests.contracts.callback_site import LOGIN, Site, site

ARRIVES = {"username": "user-1", "vhost": "/", "ip": "192.0.2.7", "client_id": "gw1"}


@dataclass
class Elsewhere:
    """What the other gates know, and what they are told. held: the store takes no confirmation."""

    broker: HttpCallbackBroker
    users: dict[str, BrokerUser] = field(default_factory=dict)
    looked_up: list[str] = field(default_factory=list)
    noted: list[Sighting] = field(default_factory=list)
    told: list[tuple[str, str, bool]] = field(default_factory=list)
    held: bool = False

    async def look_up(self, username: str) -> None:
        self.looked_up.append(username)
        if (known := self.users.get(username)) is not None:
            await self.broker.put_user(known)

    async def know_all(self) -> None:
        for each in self.users.values():
            await self.broker.put_user(each)

    async def make_certain(self, sighting: Sighting) -> None:
        await asyncio.sleep(0)
        if self.held:
            raise Unavailable("the store is away")
        self.noted.append(sighting)

    async def tell(self, account: str, username: str, user: BrokerUser | None) -> None:
        self.told.append((account, username, user is not None))


@pytest.fixture
def rabbit() -> Iterator[tuple[Site, Elsewhere]]:
    with site(RabbitMq()) as made:
        others = Elsewhere(made.broker)
        made.broker.one_of_many(others, others.make_certain, others.tell)
        yield made, others


def test_a_user_that_another_gate_made_is_learned_of_when_it_is_asked_about(rabbit: tuple[Site, Elsewhere]) -> None:
    """EC-31: whichever question comes first here, and only for as long as nobody knows better."""
    made, others = rabbit
    others.users["user-1"] = user(1)
    assert made.form("/user", **LOGIN) == b"allow"
    assert made.form("/vhost", **ARRIVES) == b"allow"
    assert made.form("/user", **LOGIN) == b"allow"
    assert others.looked_up == ["user-1"]


def test_a_topic_may_be_the_first_question_here(rabbit: tuple[Site, Elsewhere]) -> None:
    """The device was let in by another gate; its own topics are its own here as well, and others' are not."""
    made, others = rabbit
    others.users["user-1"] = user(1)
    topic = {"username": "user-1", "name": "amq.topic", "permission": "read", "variable_map.client_id": "gw1"}
    assert made.form("/topic", **topic, routing_key="acme.gw1.#") == b"allow"
    assert made.form("/topic", **topic, routing_key="acme.gw2.#") == b"deny"
    assert others.looked_up == ["user-1"]


def test_f_20_every_refused_login_is_looked_up_once(rabbit: tuple[Site, Elsewhere]) -> None:
    """An unknown user and a wrong password cost the same, and stay refused."""
    made, others = rabbit
    made.loop.run(made.broker.put_user(user(1)))
    assert made.form("/user", **(LOGIN | {"password": "Wrong-word-1"})) == b"deny"
    assert made.form("/user", **(LOGIN | {"username": "nobody"})) == b"deny"
    assert others.looked_up == ["user-1", "nobody"]


def test_f_08_a_user_that_was_enabled_elsewhere_is_let_in(rabbit: tuple[Site, Elsewhere]) -> None:
    """What is known here may be older than what is true: before a no it is looked up."""
    made, others = rabbit
    made.loop.run(made.broker.put_user(replace(user(1), enabled=False)))
    others.users["user-1"] = user(1)
    assert made.form("/user", **LOGIN) == b"allow"


def test_f_24_a_first_arrival_is_no_yes_before_it_is_noted(rabbit: tuple[Site, Elsewhere]) -> None:
    """While the store takes no confirmation the device is not let in, so that it comes again; once it is noted it is
    not noted a second time, and needs no store any more."""
    made, others = rabbit
    made.loop.run(made.broker.put_user(user(1)))
    assert made.form("/user", **LOGIN) == b"allow"
    others.held = True
    assert made.ask("/vhost", urlencode(ARRIVES).encode())[0] == 503
    others.held = False
    assert made.form("/vhost", **ARRIVES) == b"allow"
    assert others.noted == [Sighting(account="acme", username="user-1", client_id="gw1", address="192.0.2.7")]
    others.held = True
    assert made.form("/vhost", **ARRIVES) == b"allow"
    assert len(others.noted) == 1


def test_f_24_where_the_login_is_the_arrival_it_is_noted_first_too() -> None:
    """mosquitto says nothing after the login: the same holds for that question."""
    with site(MosquittoHttp()) as made:
        others = Elsewhere(made.broker, held=True)
        made.broker.one_of_many(others, others.make_certain, others.tell)
        made.loop.run(made.broker.put_user(user(1)))
        login = json.dumps({"username": "user-1", "clientid": "gw1", "password": "Pass-word-1"}).encode()
        assert made.ask("/getuser", login)[0] == 503
        others.held = False
        assert made.ask("/getuser", login)[0] == 200
        assert [sighting.client_id for sighting in others.noted] == ["gw1"]


def entertain(made: Site, username: str, guest: BrokerUser | None) -> None:
    async def on_the_loop() -> None:
        made.broker.entertain("acme", username, guest)

    made.loop.run(on_the_loop())


def test_guests_are_others_to_list_and_to_take_away(rabbit: tuple[Site, Elsewhere]) -> None:
    """A throw-away user of another gate's self-test is let in, is not listed here, and goes when that gate says so; a
    user of ours is never replaced by one."""
    made, others = rabbit
    guest = replace(user(1), password=None)
    entertain(made, "user-1", guest)
    assert made.form("/user", **LOGIN) == b"allow"
    assert made.loop.run(made.broker.users()) == []
    entertain(made, "user-1", None)
    assert made.form("/user", **LOGIN) == b"deny"
    made.loop.run(made.broker.put_user(user(2)))
    assert others.told[-1] == ("acme", "user-2", True)
    entertain(made, "user-2", replace(guest, username="user-2", verifier="another"))
    entertain(made, "user-2", None)
    assert made.loop.run(made.broker.users()) == [("acme", "user-2")]
    made.loop.run(made.broker.remove_user("acme", "user-2"))
    assert others.told[-1] == ("acme", "user-2", False)


def test_with_others_somebody_listened_meanwhile() -> None:
    """Case 3: a gate that joins others has missed nothing that they were not told."""

    async def begin(others: Elsewhere, broker: HttpCallbackBroker) -> list[Gap]:
        gaps: list[Gap] = []
        await broker.stop()
        broker.one_of_many(others, others.make_certain, others.tell)
        await broker.start(lambda sighting: None, gaps.append)
        return gaps

    with site(Emqx()) as made:
        assert made.loop.run(begin(Elsewhere(made.broker), made.broker)) == []
