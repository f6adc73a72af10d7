"""Several connections under one client id at real account brokers, and what the registry says of the device meanwhile
(esf 4.7)."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.contracts.mqtt_device import until
from tests.support.device import Address
from tests.support.every_broker import KINDS, EveryBroker, Home

FreshId = Callable[[], str]
WITHIN_S = 8.0
each_kind = pytest.mark.parametrize("broker", KINDS)
TELLING = [name for name in KINDS if name != "rabbit"]
each_telling = pytest.mark.parametrize("broker", TELLING)
ELSEWHERE = "127.0.0.7"


def status(site: EveryBroker, home: Home) -> str:
    return str(site.installation.ask("device.show", id=home.client_id)["status"])


def is_soon(site: EveryBroker, home: Home, wanted: str) -> bool:
    return until(lambda: status(site, home) == wanted, WITHIN_S)


def all_is_told(site: EveryBroker, broker: str, client_id: str) -> None:
    """What the broker had told before now was noted: another device came and left since."""
    other = site.resident(broker, client_id)
    with other.connect() as wire:
        if broker in TELLING:
            assert is_soon(site, other, "connected")
        wire.leave()
    assert is_soon(site, other, "disconnected" if broker in TELLING else "unknown")


@each_kind
def test_the_newest_connection_wins(every_broker: EveryBroker, fresh_id: FreshId, broker: str) -> None:
    """Cases 1 and 2: the former connection is closed, the newest one works, and the end of the former one, told
    late or never, does not make the device disconnected."""
    home = every_broker.resident(broker, fresh_id())
    connected = "connected" if broker in TELLING else "unknown"
    with home.listening() as first, home.listening() as second:
        assert first.is_cut()
        with home.listening() as third:
            assert second.is_cut()
            all_is_told(every_broker, broker, fresh_id())
            assert status(every_broker, home) == connected
            third.publish(f"{home.topic}/data", b"mine")
            assert home.heard(third) == [(f"{home.topic}/data", b"mine")]
    assert every_broker.installation.state(home.client_id) == "confirmed"
    assert len(every_broker.installation.audit("provision.confirmed", client_id=home.client_id)) == 1


@each_telling
def test_a_device_that_leaves_is_disconnected(every_broker: EveryBroker, fresh_id: FreshId, broker: str) -> None:
    """With a DISCONNECT; when it is there again it is connected again."""
    home = every_broker.resident(broker, fresh_id())
    for _ in range(2):
        with home.connect() as wire:
            assert is_soon(every_broker, home, "connected")
            wire.leave()
        assert is_soon(every_broker, home, "disconnected")


@each_telling
def test_a_device_that_is_lost_stays_missing(every_broker: EveryBroker, fresh_id: FreshId, broker: str) -> None:
    """Case 3: without a DISCONNECT its Will was due, and nothing that is told of that connection later hides
    it."""
    home = every_broker.resident(broker, fresh_id())
    with home.connect():
        assert is_soon(every_broker, home, "connected")
    assert is_soon(every_broker, home, "missing")
    all_is_told(every_broker, broker, fresh_id())
    assert status(every_broker, home) == "missing"
    with home.connect():
        assert is_soon(every_broker, home, "connected")


@each_telling
def test_f_22_a_connection_from_elsewhere_is_told(every_broker: EveryBroker, fresh_id: FreshId, broker: str) -> None:
    """F-22, case 1: who takes the connection over from another address stands in the audit log, who comes again from
    the same one does not."""
    home = every_broker.resident(broker, fresh_id())
    with home.connect() as first:
        assert is_soon(every_broker, home, "connected")
        with home.connect() as second:
            assert first.is_cut()
            with replace(home, address=replace(home.address, source=ELSEWHERE)).connect():
                assert second.is_cut()
                (row,) = every_broker.installation.await_audit("device.taken_over", client_id=home.client_id)
    assert (row["address"], row["details"]) == (ELSEWHERE, {"former_address": "127.0.0.1"})


def test_the_newest_wins_on_another_node_as_well(every_broker: EveryBroker, fresh_id: FreshId) -> None:
    """Case 4: of two nodes of a cluster the one with the newest connection has it; that the other one lost it
    changes nothing."""
    home = every_broker.resident("rabbit", fresh_id())
    one, other = (replace(home, address=Address(node.mqtt)) for node in every_broker.rabbit.nodes)
    with one.listening() as older, other.listening() as newer:
        assert older.is_cut()
        all_is_told(every_broker, "rabbit", fresh_id())
        newer.publish(f"{home.topic}/data", b"mine")
        assert home.heard(newer) == [(f"{home.topic}/data", b"mine")]
        shown = every_broker.installation.ask("device.show", id=home.client_id)
        assert (shown["state"], shown["status"]) == ("connected", "unknown"), "RabbitMQ does not tell who leaves"
    assert every_broker.installation.state(home.client_id) == "confirmed"


@each_kind
def test_az_05_a_device_that_was_cut_is_disconnected(every_broker: EveryBroker, fresh_id: FreshId, broker: str) -> None:
    """AZ-05: disabled, a device is not shown as connected any more, whoever cut it."""
    home = every_broker.resident(broker, fresh_id())
    with home.connect() as wire:
        if broker in TELLING:
            assert is_soon(every_broker, home, "connected")
        every_broker.installation.cli("device", "disable", home.client_id, "--yes")
        assert wire.is_cut()
    # How mosquitto ends it cannot always be told from a loss.
    assert until(lambda: status(every_broker, home) in ("disconnected", "missing"), WITHIN_S)
