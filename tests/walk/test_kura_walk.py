"""Stock Kura gateways, which know nothing of provisioning, pass through the running gate by their BIRTH alone."""

from collections.abc import Callable
from typing import Any

import pytest

from device_sim.runner import DeviceRunner
from tests.support.fleet import devices, fleet_of, run_fleet
from tests.support.installation import Installation

FreshId = Callable[[], str]
PACKAGES = [{"name": "heater", "version": "1.4.2", "url": "https://dl.example.org/heater-1.4.2.dp"}]
DATA_SERVICE = "org.eclipse.kura.data.DataService"


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws"])
def test_ec_36_a_birth_is_enough(shared_installation: Installation, fresh_id: FreshId, scheme: str) -> None:
    """BIRTH, configuration, farewell, account broker: no message of our own is needed on the gateway."""
    site = shared_installation
    credentials = site.request(fresh_id())
    runner = _through(site, fleet_of(credentials, kind="kura"), scheme)
    site.await_state(credentials.client_id, "confirmed")
    settings = runner.device.state.settings
    assert settings is not None
    assert site.users_of(credentials.client_id) == [settings.username]
    assert settings.configuration[DATA_SERVICE]["connect.auto-on-startup"] is True
    actions = [row["action"] for row in site.audit(client_id=credentials.client_id)]
    assert actions == ["request.create", "provision.granted", "provision.taken", "provision.confirmed"]


def test_ec_35_a_stock_gateway_installs_packages(shared_installation: Installation, fresh_id: FreshId) -> None:
    """Packages are downloaded before the configuration moves the gateway, and it reports them installed."""
    site = shared_installation
    credentials = site.request(fresh_id(), packages=PACKAGES)
    runner = _through(site, fleet_of(credentials, kind="kura"))
    (taken,) = site.await_audit("provision.taken", client_id=credentials.client_id)
    assert taken["details"]["packages"] == ["heater"]
    assert runner.device.state.settings is not None
    assert runner.device.state.settings.packages == ("heater 1.4.2",)


def test_ec_16_a_birth_cannot_bring_a_key(shared_installation: Installation, fresh_id: FreshId) -> None:
    """A request with an activation key is not granted to a BIRTH, and no wrong key is counted: nobody sent one."""
    site = shared_installation
    credentials = site.request(fresh_id(), activation_key=True)
    quick = {"reply_s": 0.5, "backoff_base_s": 0.05, "backoff_cap_s": 0.1}
    _through(site, fleet_of(credentials, kind="kura", expect="no_answer", timeouts=quick))
    assert (site.state(credentials.client_id), site.users_of(credentials.client_id)) == ("pending", [])
    assert [row["action"] for row in site.audit(client_id=credentials.client_id)] == ["request.create"]
    assert site.ask("request.show", id=credentials.client_id)["key_failures"] == 0


def test_ec_20_a_birth_before_the_window_gives_nothing(shared_installation: Installation, fresh_id: FreshId) -> None:
    """EC-22: outside of its window a stock gateway connects and is left as it is; the audit log says why."""
    site = shared_installation
    credentials = site.request(fresh_id(), activates_on="2090-01-01T00:00:00Z")
    quick = {"reply_s": 0.5, "backoff_base_s": 0.05, "backoff_cap_s": 0.1}
    _through(site, fleet_of(credentials, kind="kura", expect="no_answer", timeouts=quick))
    refused = site.await_audit("provision.refused", client_id=credentials.client_id)
    assert {row["reason"] for row in refused} == {"not_yet_active"}
    assert site.users_of(credentials.client_id) == []


def test_ec_01_a_mixed_fleet_of_both_accounts_walks_through(
    shared_installation: Installation, fresh_id: FreshId
) -> None:
    """Ten devices of each of three kinds, in two accounts, at once: all confirmed, each in its own account."""
    site = shared_installation
    fleets, expected = [], {}
    for n in range(30):
        account, kind = ("acme", "bolt")[n % 2], ("json", "esf", "kura")[n % 3]
        credentials = site.request(fresh_id(), account)
        expected[credentials.client_id] = account
        fleets.append(fleet_of(credentials, kind=kind))
    report, sim = run_fleet(site, *fleets, scheme="mqtts")
    assert report.is_met, report
    for client_id in expected:
        site.await_state(client_id, "confirmed")
    ended = {runner.device.state.client_id: runner.device.state.settings for runner in devices(sim)}
    assert {client_id: settings.account for client_id, settings in ended.items() if settings} == expected


def _through(site: Installation, fleet: dict[str, Any], scheme: str = "mqtt") -> DeviceRunner:
    """The one device of the fleet, which ended as the fleet expects."""
    report, sim = run_fleet(site, fleet, scheme=scheme)
    (runner,) = devices(sim)
    assert report.is_met, (report, list(runner.record.events))
    return runner
