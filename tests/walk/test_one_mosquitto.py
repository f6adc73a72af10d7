"""One mosquitto for both ends of the walk, configured by the file at the root: the gate's part on one listener, an
account broker on another, and one space of topics behind the two."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from broker.packets import V5, V311, Version
from tests.contracts.mqtt_device import until
from tests.support.device import Address, Credentials, JsonDevice, Wire
from tests.support.every_broker import REFUSED, Home
from tests.support.installation import Installation
from tests.support.mosquitto_gate import MosquittoGate, await_link, connected, login

FreshId = Callable[[], str]
CUT_S = 2.0


@dataclass
class Site:
    """With account acme, whose broker is the other listener."""

    installation: Installation
    gate: MosquittoGate

    @property
    def home(self) -> Address:
        return Address(self.gate.account_port, self.gate.secure.ca)

    @property
    def doors(self) -> list[Address]:
        return [self.gate.plain, self.gate.secure, self.home, Address(self.gate.control_port)]

    def resident(self, client_id: str) -> Home:
        """A device whose request is confirmed."""
        credentials = self.installation.request(client_id)
        with connected(self.installation, credentials) as device:
            home = Home(credentials, device.ask(), self.home)
        with home.connect():
            self.installation.await_state(client_id, "confirmed")
        return home


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    gate = MosquittoGate(tmp_path_factory.mktemp("one") / "installation")
    broker = {"name": "here", "kind": "mosquitto-files", "port": gate.account_port, "control_port": gate.control_port}
    broker |= {"folder": "mosquitto/account", "pid_file": "mosquitto/pid"}
    installation = gate.installation(brokers=(), account_brokers=[broker])
    installation.cli("broker", "render", "mosquitto", "--write")  # mosquitto starts with the files of the service
    with gate, installation.running():
        await_link(installation)
        installation.account("acme", "here")
        with connected(installation, installation.request("first")) as device:
            assert until(lambda: device.ask()["status"] == "provisioned", within_s=10.0), "the account broker is away"
        yield Site(installation, gate)


@pytest.mark.parametrize("version", [V311, V5])
def test_az_03_no_listener_lets_anybody_in_without_authentication(
    site: Site, fresh_id: FreshId, version: Version
) -> None:
    """AZ-03, F-11: neither a device on its way in nor one at home comes in without its own password."""
    home, waiting = site.resident(fresh_id()), site.installation.request(fresh_id())
    login(site.installation, waiting).leave()
    for address in site.doors:
        for client_id, username in ((home.client_id, home.answer["username"]), (waiting.client_id, waiting.username)):
            for tried in ((None, None), ("", ""), (username, None), (username, ""), (username, "Wrong-pass-1")):
                with Wire(address, version) as wire:
                    assert wire.connect(client_id, *tried) in REFUSED, (address, tried)


def test_f_12_neither_login_opens_the_other_listener(site: Site, fresh_id: FreshId) -> None:
    """F-12: a factory login is refused where devices live, before and after the walk, and an account's at the gate."""
    home, waiting = site.resident(fresh_id()), site.installation.request(fresh_id())
    login(site.installation, waiting).leave()
    for credentials in (home.credentials, waiting):
        for address in (site.home, Address(site.gate.control_port)):
            assert _is_refused(address, credentials.client_id, credentials.username, credentials.password)
    for address in set(site.doors) - {site.home}:
        assert _is_refused(address, home.client_id, home.answer["username"], home.answer["password"])
    assert not home.is_refused()
    login(site.installation, waiting).leave()


def test_f_12_nothing_passes_from_one_listener_to_the_other(site: Site, fresh_id: FreshId) -> None:
    """F-12, EC-05: what a device on its way in publishes on topics of devices at home reaches nobody there, retained or
    not, nor does it hear them; and the other way round."""
    home, waiting = site.resident(fresh_id()), site.installation.request(fresh_id())
    response = f"prov/v1/{waiting.client_id}/response"
    with connected(site.installation, waiting) as device, home.listening() as wire:
        device.wire.subscribe("#", f"{home.topic}/#", "$SYS/#")
        wire.subscribe("#", "prov/#", response, f"$EDC/provision/{waiting.client_id}/#")
        for retain in (False, True):
            device.wire.publish(f"{home.topic}/data", b"forged", retain=retain)
            wire.publish(response, b'{"status": "provisioned"}', retain=retain)
            wire.publish(f"prov/v1/{waiting.client_id}/request", b'{"request_id": "forged"}', retain=retain)
        assert home.heard(wire) == []
        answer = device.ask("own")
        assert (answer["status"], answer["request_id"]) == ("provisioned", "own")
        assert device.wire.heard() == []
    with home.listening() as wire:
        assert home.heard(wire) == []


def test_f_05_a_client_id_at_home_takes_nothing_at_the_gate(site: Site, fresh_id: FreshId) -> None:
    """F-05: one process has one space of client ids; a device at home under the client id or the user name of one on
    its way in, or the other way round, throws nobody out."""
    home, waiting = site.resident(fresh_id()), site.installation.request(fresh_id())
    with connected(site.installation, waiting) as device, home.listening() as wire:
        for name in (waiting.client_id, waiting.username):
            home_again = site.resident(fresh_id())
            home_again.connect(name).leave()
        for name in (home.client_id, str(home.answer["username"])):
            other = site.installation.request(fresh_id())
            forged = Credentials(client_id=name, username=other.username, password=other.password)
            login(site.installation, forged, known_as=other).leave()
        assert device.ask()["status"] == "provisioned"
        assert home.heard(wire) == []


def test_az_04_a_revoked_device_is_out_at_both_ends(site: Site, fresh_id: FreshId) -> None:
    """AZ-04, F-08: cut at home and on its way in within two seconds, and both its logins are over."""
    home, neighbour = site.resident(fresh_id()), site.resident(fresh_id())
    site.installation.ask("request.rearm", id=home.client_id)
    with home.listening() as wire, neighbour.listening() as other:
        with connected(site.installation, home.credentials) as device:
            site.installation.cli("device", "revoke", home.client_id, "--yes")
            assert wire.is_cut(CUT_S)
            assert device.wire.is_cut(CUT_S)
        assert neighbour.heard(other) == []
    assert home.is_refused()
    with pytest.raises(ConnectionRefusedError):
        JsonDevice(site.installation.plain, home.credentials)
    assert site.installation.state(home.client_id) == "revoked"
    assert site.installation.ask("fsck")["findings"] == []


def test_az_05_disabled_at_home_and_enabled_again(site: Site, fresh_id: FreshId) -> None:
    """AZ-05: cut within two seconds and refused; then the same credentials work."""
    home = site.resident(fresh_id())
    with home.listening() as wire:
        site.installation.ask("device.disable", id=home.client_id)
        assert wire.is_cut(CUT_S)
    assert home.is_refused()
    site.installation.ask("device.enable", id=home.client_id)
    with home.listening() as wire:
        assert home.heard(wire) == []


def test_az_06_a_stolen_factory_login_harms_no_other_device(site: Site, fresh_id: FreshId) -> None:
    """AZ-06: twenty attempts on the topics of others at both ends come to nothing; its revocation leaves them there."""
    thief, home = site.installation.request(fresh_id()), site.resident(fresh_id())
    victims = [site.installation.request(fresh_id()) for _ in range(2)]
    with home.listening() as wire, connected(site.installation, victims[0]) as first:
        with connected(site.installation, victims[1]) as second, login(site.installation, thief) as stolen:
            for number in range(10):
                base = f"prov/v1/{victims[number % 2].client_id}"
                topic = (f"{base}/request", f"{base}/response", f"{home.topic}/data")[number % 3]
                stolen.subscribe(topic, f"{base}/#")
                stolen.publish(topic, json.dumps({"request_id": "forged"}).encode(), retain=number % 2 == 1)
            answers: list[dict[str, Any]] = [device.ask("own") for device in (first, second)]
            assert [(each["status"], each["request_id"]) for each in answers] == [("provisioned", "own")] * 2
            assert stolen.heard() == []
            site.installation.ask("request.revoke", id=thief.client_id)
            assert stolen.is_cut(CUT_S)
            assert [device.wire.heard() for device in (first, second)] == [[], []]
        assert home.heard(wire) == []


def test_az_14_a_device_leaves_for_another_listener_and_is_forgotten(site: Site, fresh_id: FreshId) -> None:
    """AZ-14: re-armed, it is given new credentials through the gate's listener, and the former end once it is home."""
    former = site.resident(fresh_id())
    site.installation.ask("request.rearm", id=former.client_id)
    with connected(site.installation, former.credentials) as device:
        latter = replace(former, answer=device.ask("m-2"))
    with latter.listening():
        site.installation.await_state(former.client_id, "confirmed")
        assert until(former.is_refused)


def _is_refused(address: Address, client_id: str, username: str, password: str) -> bool:
    with Wire(address) as wire:
        return wire.connect(client_id, username, password) in REFUSED
