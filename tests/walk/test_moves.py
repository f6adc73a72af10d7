"""Accounts on brokers of different kinds behind one gate, and devices that move from one of them to another."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.contracts.mqtt_device import until
from tests.support.every_broker import KINDS, EveryBroker, Home
from tests.support.fleet import QUICK, fleet_of, run_fleet

FreshId = Callable[[], str]
CUT_S = 2.0
# From broker to broker, so that each kind is left once and reached once.
ROUND = [("near", "files"), ("files", "dynsec"), ("dynsec", "papers"), ("papers", "rabbit"), ("rabbit", "near")]


def elsewhere(site: EveryBroker, home: Home, broker: str) -> Home:
    """The same credentials at another broker."""
    return replace(home, address=replace(site.installation.account_brokers[broker]))


def move_account(site: EveryBroker, account: str, broker: str) -> None:
    site.installation.ask("account.update", id=account, fields={"broker": broker})


def test_ec_01_accounts_on_brokers_of_different_kinds_at_once(every_broker: EveryBroker, fresh_id: FreshId) -> None:
    """One gate, five kinds: each device ends on its own account's broker and is refused by the other four."""
    for name in KINDS:
        home = every_broker.resident(name, fresh_id())
        assert home.answer["broker_url"].endswith(f":{every_broker.installation.account_brokers[name].port}")
        others = KINDS.keys() - {name}
        assert {other for other in others if elsewhere(every_broker, home, other).is_refused()} == others


@pytest.mark.parametrize(("source", "target"), ROUND)
def test_az_14_a_device_moves_to_another_broker_when_it_asks_again(
    every_broker: EveryBroker, fresh_id: FreshId, source: str, target: str
) -> None:
    """AZ-14: a re-armed device is given the account's new broker; the old one keeps it until it was seen on the new."""
    installation, account = every_broker.installation, f"mover-{source}"
    installation.account(account, source, certificates="server-key")
    former = every_broker.resident(source, fresh_id(), account)
    installation.cli("account", "update", account, "--broker", target)
    shown = json.loads(installation.cli("account", "show", account, "-o", "json").stdout)
    assert shown["broker_url"].endswith(f":{installation.account_brokers[target].port}")
    assert not former.is_refused()
    installation.ask("request.rearm", id=former.client_id)
    with installation.device(former.credentials) as device:
        latter = every_broker.home(target, former.credentials, device.ask("m-2"))
        assert latter.answer["broker_url"] == shown["broker_url"]
        assert not former.is_refused()
        device.acknowledge("m-2")
    with latter.listening():
        installation.await_state(former.client_id, "confirmed")
        assert until(former.is_refused)
    assert installation.ask("fsck")["findings"] == []


def test_az_14_a_grant_stays_where_it_was_made_until_it_is_armed_again(
    every_broker: EveryBroker, fresh_id: FreshId
) -> None:
    """D7: an account that moves between two asks of one device does not tear its one grant apart."""
    installation = every_broker.installation
    installation.account("half", "near")
    home = every_broker.granted("near", fresh_id(), "half")
    move_account(every_broker, "half", "dynsec")
    with installation.device(home.credentials) as device:
        second = device.ask("m-2")
    for name in ("broker_url", "username", "password"):
        assert second[name] == home.answer[name]
    with replace(home, answer=second).listening():
        installation.await_state(home.client_id, "confirmed")
    assert installation.users_of(home.client_id, "half") == [second["username"]]
    assert installation.ask("fsck")["findings"] == []


def test_az_14_nobody_touches_the_device(every_broker: EveryBroker, fresh_id: FreshId) -> None:
    """AZ-14: refused on the old broker, the device comes back to the gate by itself and ends on the new one; so it goes
    round all five kinds."""
    installation = every_broker.installation
    installation.account("remote", "near", certificates="server-key")
    credentials = installation.request(fresh_id(), "remote")
    homes: list[str] = []

    def lives() -> None:
        """From power on until it is home; what it has learnt is kept for the next time."""
        report, _ = run_fleet(
            installation,
            fleet_of(credentials, timeouts=QUICK | {"fall_back_after": 2}),
            folder=installation.folder,
            observe=lambda who, log: homes.append(log.detail) if log.event == "CONNECT(account)" else None,
            state_dir="memory",
        )
        assert report.is_met, report.outcomes()
        installation.await_state(credentials.client_id, "confirmed")

    lives()
    for source, target in ROUND:
        assert homes[-1].endswith(f":{installation.account_brokers[source].port}")
        move_account(every_broker, "remote", target)
        installation.ask("request.rearm", id=credentials.client_id, cut=True)
        lives()
        assert homes[-1].endswith(f":{installation.account_brokers[target].port}")
        assert len(installation.users_of(credentials.client_id, "remote")) == 1


@pytest.mark.parametrize("broker", KINDS)
def test_az_14_rearm_and_cut_ends_the_live_connection(
    every_broker: EveryBroker, fresh_id: FreshId, broker: str
) -> None:
    """F-08: what a move takes away ends within two seconds, wherever the device is."""
    installation, home = every_broker.installation, every_broker.resident(broker, fresh_id())
    with home.listening() as wire:
        installation.ask("request.rearm", id=home.client_id, cut=True, dry_run=True)
        assert home.heard(wire) == []
        installation.ask("request.rearm", id=home.client_id, cut=True)
        assert wire.is_cut(CUT_S)
    assert home.is_refused()
    assert installation.users_of(home.client_id, broker) == []


def test_az_14_a_move_to_a_broker_that_is_not_there_is_refused(every_broker: EveryBroker) -> None:
    """The field is named, and the account stays where it is."""
    refused = every_broker.installation.cli("account", "update", "near", "--broker", "nowhere", status=6)
    assert "broker" in refused.stderr
    assert every_broker.installation.ask("account.show", id="near")["broker"] == "near"
