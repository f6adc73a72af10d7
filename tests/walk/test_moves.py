"""Accounts on brokers of different kinds behind one gate, and devices that move from one of them to another."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.device import Address, connect_to_account
from tests.support.fleet import QUICK, fleet_of, run_fleet
from tests.support.installation import Installation
from tests.support.mosquitto import MosquittoServer, mosquitto_settings
from tests.support.ports import free_ports

FreshId = Callable[[], str]
CUT_S = 2.0
KINDS = {"near": "embedded", "files": "mosquitto-files", "dynsec": "mosquitto-dynsec"}


@dataclass
class Site:
    """Accounts named as their brokers: near on the embedded one, files and dynsec each on a mosquitto."""

    installation: Installation

    def is_refused(self, answer: dict[str, Any], broker: str) -> bool:
        try:
            self.installation.account_wire(answer, broker).close()
        except ConnectionRefusedError:
            return True
        return False


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("kinds") / "installation"
    near = {"name": "near", "kind": "embedded", "port": free_ports(1)[0]}
    others = {name: mosquitto_settings(kind, name, tls=True) for name, kind in KINDS.items() if name != "near"}
    installation = Installation(folder, brokers=(), account_brokers=[near, *others.values()])
    installation.account_brokers = {
        each["name"]: Address(each["port"], installation.ca) for each in (near, *others.values())
    }
    for name in others:
        installation.cli("broker", "render", "mosquitto", "--broker", name, "--write")
    with (
        MosquittoServer(others["files"], folder),
        MosquittoServer(others["dynsec"], folder),
        installation.running(),
    ):
        for name in KINDS:
            installation.account(name, name)
        yield Site(installation)


def test_ec_01_accounts_on_brokers_of_different_kinds_at_once(site: Site, fresh_id: FreshId) -> None:
    """One gate, three kinds: each device ends on its own account's broker and is refused by the other two."""
    for name in KINDS:
        answer = dict(site.installation.provision(site.installation.request(fresh_id(), name), broker=name))
        assert answer["broker_url"] == f"mqtts://localhost:{site.installation.account_brokers[name].port}"
        assert {other for other in KINDS if site.is_refused(answer, other)} == KINDS.keys() - {name}


def test_az_14_a_device_moves_to_another_broker_when_it_asks_again(site: Site, fresh_id: FreshId) -> None:
    """A re-armed device is given the account's new broker; the old one keeps it until it was seen on the new one."""
    installation = site.installation
    installation.account("mover", "near")
    credentials = installation.request(fresh_id(), "mover")
    former = dict(installation.provision(credentials, broker="near"))
    installation.cli("account", "update", "mover", "--broker", "files")
    shown = json.loads(installation.cli("account", "show", "mover", "-o", "json").stdout)
    assert shown["broker_url"] == f"mqtts://localhost:{installation.account_brokers['files'].port}"
    assert not site.is_refused(former, "near")
    installation.ask("request.rearm", id=credentials.client_id)
    with installation.device(credentials) as device:
        latter = device.ask("m-2")
        assert latter["broker_url"] == shown["broker_url"]
        assert not site.is_refused(former, "near")
        device.acknowledge("m-2")
    with installation.account_wire(latter, "files"):
        installation.await_state(credentials.client_id, "confirmed")
    assert site.is_refused(former, "near")
    assert installation.ask("fsck")["findings"] == []


def test_az_14_a_grant_stays_where_it_was_made_until_it_is_armed_again(site: Site, fresh_id: FreshId) -> None:
    """D7: an account that moves between two asks of one device does not tear its one grant apart."""
    installation = site.installation
    installation.account("half", "near")
    credentials = installation.request(fresh_id(), "half")
    with installation.device(credentials) as device:
        first = device.ask("m-1")
    installation.ask("account.update", id="half", fields={"broker": "dynsec"})
    with installation.device(credentials) as device:
        second = device.ask("m-2")
    assert [second[name] for name in ("broker_url", "username", "password")] == [
        first[name] for name in ("broker_url", "username", "password")
    ]
    assert not site.is_refused(second, "near")
    installation.await_state(credentials.client_id, "confirmed")
    assert installation.users_of(credentials.client_id, "half") == [first["username"]]
    assert installation.ask("fsck")["findings"] == []


def test_az_14_nobody_touches_the_device(site: Site, fresh_id: FreshId) -> None:
    """Refused on the old broker, the device comes back to the gate by itself and ends on the new one."""
    installation = site.installation
    installation.account("remote", "near")
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

    lives()
    installation.await_state(credentials.client_id, "confirmed")
    installation.ask("account.update", id="remote", fields={"broker": "dynsec"})
    installation.ask("request.rearm", id=credentials.client_id, cut=True)
    lives()
    installation.await_state(credentials.client_id, "confirmed")
    ports = {name: address.port for name, address in installation.account_brokers.items()}
    assert homes[0].endswith(str(ports["near"]))
    assert homes[-1].endswith(str(ports["dynsec"]))
    assert len(installation.users_of(credentials.client_id, "remote")) == 1


def test_az_14_rearm_and_cut_ends_the_live_connection(site: Site, fresh_id: FreshId) -> None:
    """F-08: what a move takes away ends within two seconds, wherever the device is."""
    installation = site.installation
    for name in KINDS:
        credentials = installation.request(fresh_id(), name)
        answer = dict(installation.provision(credentials, broker=name))
        with connect_to_account(answer, installation.account_brokers[name]) as wire:
            rearm = ("request", "rearm", credentials.client_id, "--cut", "--yes")
            installation.cli(*rearm, "--dry-run")
            assert wire.heard() == []
            installation.cli(*rearm)
            assert wire.is_cut(CUT_S)
        assert site.is_refused(answer, name)
        assert installation.users_of(credentials.client_id, name) == []


def test_az_14_a_move_to_a_broker_that_is_not_there_is_refused(site: Site) -> None:
    """The field is named, and the account stays where it is."""
    refused = site.installation.cli("account", "update", "near", "--broker", "nowhere", status=6)
    assert "broker" in refused.stderr
    assert site.installation.ask("account.show", id="near")["broker"] == "near"
