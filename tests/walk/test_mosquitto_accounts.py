"""The walk through the gate to a real mosquitto as the account broker, told of users by files and by its plugin."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.mqtt_device import until
from tests.support.device import Address, Wire, connect_to_account
from tests.support.installation import Installation
from tests.support.mosquitto import KINDS, MosquittoServer, mosquitto_settings

FreshId = Callable[[], str]
CUT_S = 2.0
BROKER = "south"


@dataclass
class Site:
    """An installation whose account acme lives on a mosquitto of one kind, reached by TLS."""

    installation: Installation
    mosquitto: MosquittoServer

    @property
    def home(self) -> Address:
        return Address(self.mosquitto.settings.port, self.installation.ca)

    def provision(self, client_id: str) -> dict[str, Any]:
        """Until confirmed."""
        return dict(self.installation.provision(self.installation.request(client_id), broker=BROKER))

    def connect(self, answer: dict[str, Any], **options: Any) -> Wire:
        return connect_to_account(answer, self.home, **options)

    def is_refused(self, answer: dict[str, Any]) -> bool:
        try:
            self.connect(answer).close()
        except ConnectionRefusedError:
            return True
        return False


@pytest.fixture(scope="module", params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """mosquitto is configured by `fleetgate broker render`, as an administrator does it."""
    settings = mosquitto_settings(request.param, BROKER, tls=True)
    folder = tmp_path_factory.mktemp(request.param) / "installation"
    installation = Installation(folder, brokers=("unused",), account_brokers=[settings])
    installation.account_brokers = {BROKER: Address(settings["port"], installation.ca)}
    installation.cli("broker", "render", "mosquitto", "--write")
    with MosquittoServer(settings, folder) as mosquitto, installation.running():
        installation.account("acme", BROKER)
        yield Site(installation, mosquitto)


def test_ec_31_a_device_ends_on_mosquitto_and_is_confirmed_there(site: Site, fresh_id: FreshId) -> None:
    """The granted user connects, has its own topics and no others, and its arrival alone confirms the request."""
    answer = site.provision(fresh_id())
    own = f"acme/{answer['client_id']}"
    (confirmed,) = site.installation.audit("provision.confirmed", client_id=answer["client_id"])
    assert confirmed["address"] == "127.0.0.1"
    other = site.provision(fresh_id())
    with site.connect(answer) as wire, site.connect(other) as neighbour:
        wire.subscribe(f"{own}/#", f"$EDC/{own}/#")
        neighbour.subscribe("#", f"{own}/#", "$SYS/#", f"$share/g/{own}/#")
        wire.publish(f"{own}/data", b"mine")
        neighbour.publish(f"{own}/data", b"forged")
        assert [message.payload for message in wire.heard() if message.topic == f"{own}/data"] == [b"mine"]
        assert neighbour.heard() == []
    user = json.loads(site.installation.cli("user", "show", answer["username"], "--account", "acme").stdout)
    assert user["permissions"] == ["broker:connect"]


def test_a_kicked_device_may_come_back(site: Site, fresh_id: FreshId) -> None:
    """`device kick` ends the live connection within two seconds, and no more than that."""
    client_id = fresh_id()
    answer = site.provision(client_id)
    with site.connect(answer) as wire:
        assert json.loads(site.installation.cli("device", "kick", client_id).stdout)["cut"] is True
        assert wire.is_cut(CUT_S)
    assert not site.is_refused(answer)


def test_a_mosquitto_that_was_killed_knows_everybody_again(site: Site, fresh_id: FreshId) -> None:
    """kill -9 and a restart in the middle: who was confirmed comes back, who was disabled does not, new ones do."""
    first, second = fresh_id(), fresh_id()
    known, barred = site.provision(first), site.provision(second)
    site.installation.cli("device", "disable", second, "--yes")
    pending = site.installation.request(fresh_id())
    with site.installation.device(pending) as device:
        granted = device.ask()
        site.mosquitto.kill()
        site.mosquitto.start()
        device.acknowledge()
    assert granted["status"] == "provisioned"
    with site.connect(known):
        assert site.is_refused(barred)
    assert until(lambda: _comes_again(site, granted), within_s=15)
    site.installation.await_state(pending.client_id, "confirmed")
    assert not site.is_refused(site.provision(fresh_id()))


def test_an_absent_mosquitto_is_owed_and_told_later(site: Site, fresh_id: FreshId) -> None:
    """A disable while mosquitto is down is done when it is back, and the gate serves on meanwhile."""
    client_id = fresh_id()
    answer = site.provision(client_id)
    site.mosquitto.kill()
    site.installation.cli("device", "disable", client_id, "--yes")
    asking = site.installation.request(fresh_id())
    with site.installation.device(asking) as device:
        assert device.ask()["status"] != "provisioned"
    site.mosquitto.start()
    site.installation.await_audit("request.create", 1, client_id=asking.client_id)
    _until_no_effect_waits(site)
    assert site.is_refused(answer)
    assert json.loads(site.installation.cli("fsck", "-o", "json").stdout) == []


def test_the_service_starts_without_its_account_broker(site: Site, fresh_id: FreshId) -> None:
    """A mosquitto that is away keeps no gate from opening; a device disabled meanwhile is out when both are back."""
    client_id = fresh_id()
    answer = site.provision(client_id)
    site.installation.stop()
    site.mosquitto.kill()
    site.installation.start()
    assert site.installation.ask("status")["account_brokers"].keys() == {BROKER}
    site.installation.cli("device", "disable", client_id, "--yes")
    site.mosquitto.start()
    _until_no_effect_waits(site)
    assert site.is_refused(answer)
    assert not site.is_refused(site.provision(fresh_id()))


def test_who_left_while_the_service_was_away_is_told(site: Site, fresh_id: FreshId) -> None:
    """Case 3: mosquitto keeps for the service who leaves. One that was killed as well has nothing to tell: then it is
    not known of anybody, until it comes again."""
    client_id = fresh_id()
    answer = site.provision(client_id)
    with site.connect(answer) as wire:
        assert _becomes(site, client_id, "connected")
        site.installation.kill()
        wire.leave()
    site.installation.start()
    assert _becomes(site, client_id, "disconnected")
    with site.connect(answer):
        assert _becomes(site, client_id, "connected")
        site.installation.kill()
        site.mosquitto.kill()
    site.mosquitto.start()
    site.installation.start()
    assert _becomes(site, client_id, "unknown")
    with site.connect(answer):
        assert _becomes(site, client_id, "connected")


def test_check_says_what_an_administrator_must_know(site: Site, tmp_path: Path) -> None:
    """`fleetgate broker check` passes on the rendered broker, and says that nothing answers when it is down."""
    checks = json.loads(site.installation.cli("broker", "check", BROKER, "-o", "json").stdout)
    assert all(check["passed"] for check in checks)
    assert {"connection", "log", "strangers"} < {check["name"] for check in checks}
    site.mosquitto.kill()
    failed = site.installation.cli("broker", "check", "-o", "json", status=1)
    assert [check["passed"] for check in json.loads(failed.stdout)] == [False]
    site.mosquitto.start()


def _comes_again(site: Site, granted: dict[str, Any]) -> bool:
    """One try of a device that was granted, which the service may call back once; whether it is confirmed."""
    with suppress(ConnectionRefusedError), site.connect(granted) as wire:
        wire.is_cut(0.5)
    return site.installation.state(granted["client_id"]) == "confirmed"


def _becomes(site: Site, client_id: str, status: str) -> bool:
    return until(lambda: site.installation.ask("device.show", id=client_id)["status"] == status, within_s=10)


def _until_no_effect_waits(site: Site) -> None:
    assert until(lambda: site.installation.ask("status")["effects_waiting"] == 0, within_s=20)
