"""Rights that end on every kind of account broker: for good, for a while, and in the middle of a conversation."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from cryptography import x509

from broker.packets import PubAck, Publish
from tests.support.device import Wire
from tests.support.every_broker import KINDS, EveryBroker, Home

FreshId = Callable[[], str]
CUT_S = 2.0
ATTEMPTS = 20
SENT = 60
# So many does a broker send before it wants the first PUBACK; amqtt sends all.
IN_FLIGHT_MAX = {"near": SENT, "files": 20, "dynsec": 20, "papers": 20, "rabbit": 10}
each_kind = pytest.mark.parametrize("broker", KINDS)


@each_kind
def test_az_04_a_revoked_device_is_cut_and_never_comes_back(
    every_broker: EveryBroker, fresh_id: FreshId, broker: str
) -> None:
    """AZ-04: `device revoke` cuts it within two seconds; its credentials, its certificate and its request are over."""
    installation = every_broker.installation
    home, neighbour = (every_broker.resident(broker, fresh_id()) for _ in range(2))
    with home.listening() as wire, neighbour.listening() as other:
        started_s = time.monotonic()
        assert installation.ask("device.revoke", id=home.client_id)["state"] == "revoked"
        assert wire.is_cut(CUT_S)
        assert time.monotonic() - started_s < CUT_S
        assert neighbour.heard(other) == []
    assert home.is_refused()
    assert installation.state(home.client_id) == "revoked"
    with pytest.raises(ConnectionRefusedError):
        installation.device(home.credentials)
    assert installation.users_of(home.client_id, broker) == []
    (row,) = installation.audit("device.revoke", client_id=home.client_id)
    assert row["details"]["users"] == [home.answer["username"]]
    assert installation.ask("fsck")["findings"] == []


def test_az_04_the_certificate_of_a_revoked_device_is_on_the_list(every_broker: EveryBroker, fresh_id: FreshId) -> None:
    """AZ-04: where the certificate is the login, the list that the broker reads has its serial, and the audit log."""
    home, neighbour = (every_broker.resident("papers", fresh_id()) for _ in range(2))
    every_broker.installation.ask("device.revoke", id=home.client_id)
    crl = x509.load_pem_x509_crl((every_broker.mosquittos["papers"].folder / "revoked.pem").read_bytes())
    mine, theirs = (x509.load_pem_x509_certificate(each.answer["certificate"].encode()) for each in (home, neighbour))
    assert crl.get_revoked_certificate_by_serial_number(mine.serial_number) is not None
    assert crl.get_revoked_certificate_by_serial_number(theirs.serial_number) is None
    (row,) = every_broker.installation.audit("device.revoke", client_id=home.client_id)
    assert [int(serial, 16) for serial in row["details"]["certificates"]] == [mine.serial_number]


@each_kind
def test_az_04_what_was_granted_and_not_used_yet_is_revoked_too(
    every_broker: EveryBroker, fresh_id: FreshId, broker: str
) -> None:
    """AZ-04: by its request or by its device, credentials that nobody connected with open nothing afterwards."""
    for verb in ("request.revoke", "device.revoke"):
        home = every_broker.granted(broker, fresh_id())
        every_broker.installation.ask(verb, id=home.client_id)
        assert home.is_refused()


@each_kind
def test_az_04_a_revoked_device_comes_back_by_a_new_grant(
    every_broker: EveryBroker, fresh_id: FreshId, broker: str
) -> None:
    """AZ-04: its request re-armed, it is given other credentials; the revoked ones stay dead."""
    installation = every_broker.installation
    former = every_broker.resident(broker, fresh_id())
    installation.ask("device.revoke", id=former.client_id)
    installation.ask("request.rearm", id=former.client_id)
    with installation.device(former.credentials) as device:
        latter = every_broker.home(broker, former.credentials, device.ask("m-2"))
    with latter.listening():
        installation.await_state(former.client_id, "confirmed")
    assert latter.answer["password"] != former.answer["password"]
    assert former.is_refused()
    assert installation.ask("device.show", id=former.client_id)["state"] == "connected"


def test_az_04_the_command_asks_first_and_says_what_became_of_it(every_broker: EveryBroker, fresh_id: FreshId) -> None:
    """AZ-04: without a terminal `device revoke` wants --yes; a dry run cuts nobody."""
    home = every_broker.resident("files", fresh_id())
    command = ("device", "revoke", home.client_id)
    with home.listening() as wire:
        assert "--yes" in every_broker.installation.cli(*command, status=2).stderr
        assert '"revoked"' in every_broker.installation.cli(*command, "--dry-run", "-o", "json").stdout
        assert home.heard(wire) == []
        assert '"revoked"' in every_broker.installation.cli(*command, "--yes", "-o", "json").stdout
        assert wire.is_cut(CUT_S)


@each_kind
def test_az_05_disable_cuts_and_enable_lets_the_same_credentials_in(
    every_broker: EveryBroker, fresh_id: FreshId, broker: str
) -> None:
    """AZ-05: disabled, a device is cut within two seconds; enabled, its old login works, which nobody kept."""
    home = every_broker.resident(broker, fresh_id())
    with home.listening() as wire:
        every_broker.installation.ask("device.disable", id=home.client_id)
        assert wire.is_cut(CUT_S)
    assert home.is_refused()
    every_broker.installation.ask("device.enable", id=home.client_id)
    with home.listening() as wire:
        wire.publish(f"{home.topic}/data", b"again")
        assert home.heard(wire) == [(f"{home.topic}/data", b"again")]


def attempts(thief: Home, victims: list[Home]) -> Iterator[Callable[[Wire], Any]]:
    """What somebody with stolen credentials may try on other devices' topics."""
    for number in range(ATTEMPTS // 2):
        topic = victims[number % len(victims)].topic
        spying = (f"{topic}/#", f"$EDC/{topic}/#", f"{topic.partition('/')[0]}/+/#")[number % 3]
        yield lambda wire, filter=spying: wire.subscribe(filter)
        yield lambda wire, topic=topic, kept=number % 2 == 1: wire.publish(f"{topic}/data", b"forged", retain=kept)


@each_kind
def test_az_06_a_stolen_credential_harms_no_other_device(
    every_broker: EveryBroker, fresh_id: FreshId, broker: str
) -> None:
    """AZ-06: twenty attempts with the login of A on the topics of B to E fail, and revoking A leaves them connected."""
    thief, *others = (every_broker.resident(broker, fresh_id()) for _ in range(5))
    with ExitStack() as stack:
        wires = [stack.enter_context(each.listening()) for each in others]
        stolen = stack.enter_context(thief.connect())
        for attempt in attempts(thief, others):
            attempt(stolen)
            if every_broker.can(broker)["refusal_disconnects"]:
                assert stolen.is_cut()
                stolen = stack.enter_context(thief.connect())
        for each, wire in zip(others, wires, strict=True):
            wire.publish(f"{each.topic}/data", b"mine")
            assert each.heard(wire) == [(f"{each.topic}/data", b"mine")]
        assert [message.topic for message in stolen.heard()] == []
        every_broker.installation.ask("device.revoke", id=thief.client_id)
        assert stolen.is_cut(CUT_S)
        for each, wire in zip(others, wires, strict=True):
            assert each.heard(wire) == []


@each_kind
@pytest.mark.parametrize("verb", ["device.revoke", "device.disable"])
def test_f_08_what_is_on_its_way_is_not_delivered_any_more(
    every_broker: EveryBroker, fresh_id: FreshId, broker: str, verb: str
) -> None:
    """F-08: messages that waited at the broker for a slow device die with its rights, within two seconds."""
    home = every_broker.resident(broker, fresh_id())
    with home.listening() as wire:
        for number in range(SENT):
            wire.publish(f"{home.topic}/data", b"%d" % number)
        came = list(taken(wire))
        assert came
        started_s = time.monotonic()
        every_broker.installation.ask(verb, id=home.client_id)
        acknowledge(wire, came)
        came += taken(wire)
        assert wire.is_cut(CUT_S)
        assert time.monotonic() - started_s < CUT_S
    assert len(came) <= IN_FLIGHT_MAX[broker], "what waited for the first to be acknowledged was delivered"
    assert home.is_refused()


def taken(wire: Wire) -> Iterator[Publish]:
    """What comes without being acknowledged, until a moment passes in which nothing does."""
    while (message := wire.message(0.2, acknowledge=False)) is not None:
        yield message


def acknowledge(wire: Wire, messages: list[Publish]) -> None:
    try:
        wire.send(*(PubAck(each.packet_id) for each in messages if each.packet_id is not None))
    except OSError:
        return
