"""The proof of isolation against planted leaks: exactly the rules that were broken are named, each with what to do."""

from collections.abc import Callable
from typing import Any

import pytest
from amqtt.broker import Broker

import broker.admission
import broker.connection
import broker.subscriptions
from broker import embedded as amqtt_side
from broker.embedded_guard import Connection, Guard
from broker.packets import Publish, Subscribe
from provisioner.account_brokers.embedded import DeviceLogin, EmbeddedAccountBroker
from provisioner.account_brokers.user_book import UserBook
from provisioner.services.stand_ins import StandIns
from provisioner.vault.passwords import Passwords
from tests.support.in_process import READING, WRITING, InProcess, explained

LeakPlanted = Callable[[pytest.MonkeyPatch], None]


# Leaky account brokers


def all_rights(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DeviceLogin, "may_publish", lambda self, topic: True)
    patch.setattr(DeviceLogin, "may_subscribe", lambda self, topic_filter: True)


def may_also_read(allowed: Callable[[DeviceLogin, str], bool]) -> LeakPlanted:
    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(
            DeviceLogin, "may_subscribe", lambda self, topic: self.topics.may_subscribe(topic) or allowed(self, topic)
        )

    return plant


def rights_by_prefix(patch: pytest.MonkeyPatch) -> None:
    """gw1 may use what is gw12's."""

    def may(self: DeviceLogin, topic: str) -> bool:
        return topic.startswith((self.home, f"$EDC/{self.home}"))

    patch.setattr(DeviceLogin, "may_publish", may)
    patch.setattr(DeviceLogin, "may_subscribe", may)


def retained_for_everybody(patch: pytest.MonkeyPatch) -> None:
    own = amqtt_side._Amqtt
    original = Broker._publish_retained_messages_for_subscription
    patch.setattr(own, "_publish_retained_messages_for_subscription", original)


def wills_for_everybody(patch: pytest.MonkeyPatch) -> None:
    original = Guard._login

    async def login(self: Guard[Any], connect: Any, address: Any) -> Any:
        return await original(self, connect.__class__(**{**_fields(connect), "will": None}), address)

    patch.setattr(Guard, "_login", login)


def _fields(packet: Any) -> dict[str, Any]:
    return {name: getattr(packet, name) for name in packet.__dataclass_fields__}


def any_password(patch: pytest.MonkeyPatch) -> None:
    async def right(self: UserBook, user: Any, password: bytes, username: str) -> bool:
        return True

    patch.setattr(UserBook, "_is_password_of", right)


def any_client_id(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(UserBook, "why_not", lambda self, user, client_id: None)


def refused_logins_cut_the_holder(patch: pytest.MonkeyPatch) -> None:
    original = EmbeddedAccountBroker._admit

    async def admit(self: EmbeddedAccountBroker, username: str, password: bytes, client_id: str, address: Any) -> Any:
        login = await original(self, username, password, client_id, address)
        if login is None:
            for live in self._server.connections():
                if live.topics.client_id == client_id:
                    self._server.kick(live.home)
        return login

    patch.setattr(EmbeddedAccountBroker, "_admit", admit)


LEAKY_BROKERS: dict[str, tuple[LeakPlanted, set[str]]] = {
    "all rights": (all_rights, READING | WRITING),
    "one wildcard": (may_also_read(lambda _, topic: topic == "#"), {"read-all", "read-retained"}),
    "the account": (
        may_also_read(lambda login, topic: topic == f"{login.topics.account}/#"),
        {"read-neighbours", "read-retained"},
    ),
    "the broker's state": (may_also_read(lambda _, topic: topic == "$SYS/#"), {"read-broker-state"}),
    "shared filters": (may_also_read(lambda _, topic: topic.startswith("$share/")), {"shared-subscription"}),
    "rights by prefix": (rights_by_prefix, {"read-other", "read-retained"} | WRITING),
    "retained for everybody": (retained_for_everybody, {"read-retained"}),
    "Wills for everybody": (wills_for_everybody, {"will", "will-retained"}),
    "any password": (any_password, {"takeover-wrong-password"}),
    "any client id": (any_client_id, {"takeover-other-user"}),
    "a refused login cuts": (refused_logins_cut_the_holder, {"takeover-wrong-password", "takeover-other-user"}),
}


@pytest.mark.parametrize("leak", LEAKY_BROKERS)
def test_each_leak_of_an_account_broker_is_named(inside: InProcess, monkeypatch: pytest.MonkeyPatch, leak: str) -> None:
    """Exactly the rules that were broken fail, each with what to do; the gate beside it passes."""
    plant, rules = LEAKY_BROKERS[leak]
    plant(monkeypatch)
    inside.serve(monkeypatch)
    reports = inside.prove()
    assert set(reports["account broker embedded"].leaks) == rules
    assert explained(reports["account broker embedded"])
    assert reports["gate plain"].holds


def test_a_broker_that_cuts_who_asks_is_tried_to_the_end(
    inside: InProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some brokers answer what is not allowed by closing: then each filter is tried on a connection of its own. The
    gate beside it takes a hundred refused and vanished devices without a fault of its own."""
    original = Connection._next_packet

    async def next_packet(self: Connection[Any]) -> Any:
        packet = await original(self)
        denied = isinstance(packet, Subscribe) and not all(
            self.rights.may_subscribe(each.topic_filter) for each in packet.subscriptions
        )
        if denied or (isinstance(packet, Publish) and not self.rights.may_publish(packet.topic)):
            self.cut("as other brokers do")
            return None
        return packet

    monkeypatch.setattr(Connection, "_next_packet", next_packet)
    inside.serve(monkeypatch)
    assert inside.prove()["account broker embedded"].holds
    may_also_read(lambda _, topic: topic == "+/#")(monkeypatch)
    assert inside.prove()["account broker embedded"].leaks == ["read-retained", "read-all"]
    assert [record.getMessage() for record in caplog.records if record.name == "broker.gate"] == []


# A leaky gate


def any_filter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(broker.subscriptions, "may_subscribe", lambda rights, topic_filter: True)


def any_topic(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(broker.connection, "may_publish", lambda rights, permitted, topic: True)


def any_will(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(broker.admission, "may_will", lambda rights, topic, retain: True)
    patch.setattr(broker.admission, "check_login", lambda login: None)


def any_gate_password(patch: pytest.MonkeyPatch) -> None:
    async def right(self: Passwords, user: Any, password: Any, username: str, site: str = "") -> bool:
        return True

    patch.setattr(Passwords, "verify", right)


def client_id_unlooked_at(patch: pytest.MonkeyPatch) -> None:
    def request(self: StandIns, username: str, client_id: str) -> Any:
        return next((each for each, _ in self._requests.values() if each.username == username), None)

    patch.setattr(StandIns, "request", request)


LEAKY_GATES: dict[str, tuple[LeakPlanted, set[str]]] = {
    "any filter": (any_filter, READING - {"read-retained", "shared-subscription"}),
    "any topic": (any_topic, {"write-other"}),
    "any Will": (any_will, {"will", "will-retained"}),
    "any password": (any_gate_password, {"takeover-wrong-password"}),
    "any client id": (client_id_unlooked_at, {"takeover-other-user"}),
}


@pytest.mark.parametrize("leak", LEAKY_GATES)
def test_each_leak_of_the_gate_is_named(inside: InProcess, monkeypatch: pytest.MonkeyPatch, leak: str) -> None:
    """At each of its listeners exactly the broken rules fail; the account broker beside it passes."""
    plant, rules = LEAKY_GATES[leak]
    plant(monkeypatch)
    inside.serve(monkeypatch)
    reports = inside.prove()
    for listener in ("plain", "secure", "ws"):
        assert set(reports[f"gate {listener}"].leaks) == rules, listener
        assert explained(reports[f"gate {listener}"])
    assert reports["account broker embedded"].holds
