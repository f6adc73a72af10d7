"""Gateways with a provisioning service pass through the running gate: key, packages, certificate, configuration."""

from collections.abc import Callable
from typing import Any

import pytest

from device_sim.runner import DeviceRunner
from tests.support.fleet import devices, fleet_of, run_fleet
from tests.support.installation import Installation

FreshId = Callable[[], str]
PACKAGES = [
    {"name": "heater", "version": "1.4.2", "url": "https://dl.example.org/heater-1.4.2.dp", "sha256": "ab" * 32},
    {"name": "modbus", "version": "2.0", "url": "https://dl.example.org/modbus-2.0.dp"},
]
CLOCK = "org.eclipse.kura.clock.ClockService"
TRANSPORT = "org.eclipse.kura.core.data.transport.mqtt.MqttDataTransport"
PROVISIONING = "org.eclipse.kura.provisioning.ProvisioningService"


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws"])
def test_ec_16_a_gateway_walks_through_with_its_key(
    shared_installation: Installation, fresh_id: FreshId, scheme: str
) -> None:
    """EC-36: over every transport the PROV message brings the key, and the gateway is born on its account broker."""
    site = shared_installation
    credentials = site.request(fresh_id(), activation_key=True)
    runner = _through(site, fleet_of(credentials, kind="esf"), scheme)
    site.await_state(credentials.client_id, "confirmed")
    settings = runner.device.state.settings
    assert settings is not None
    assert (settings.account, settings.client_id) == ("acme", credentials.client_id)
    assert site.users_of(credentials.client_id) == [settings.username]
    (granted,) = site.audit("provision.granted", client_id=credentials.client_id)
    assert granted["details"]["dialect"] == "esf"


def test_ec_16_a_gateway_may_speak_mqtt_5(shared_installation: Installation, fresh_id: FreshId) -> None:
    """EC-35: over MQTT 5 it takes all that it is given; the embedded account broker alone does not speak that."""
    site = shared_installation
    credentials = site.request(fresh_id(), activation_key=True, packages=PACKAGES)
    _through(site, fleet_of(credentials, kind="esf", protocol="5", expect="account_refused"))
    (taken,) = site.await_audit("provision.taken", client_id=credentials.client_id)
    assert taken["details"]["packages"] == ["heater", "modbus"]


def test_ec_35_packages_are_downloaded_and_reported(shared_installation: Installation, fresh_id: FreshId) -> None:
    """Packages come before the configuration; the gateway reports each installed, and the audit log names them."""
    site = shared_installation
    credentials = site.request(fresh_id(), activation_key=True, packages=PACKAGES)
    runner = _through(site, fleet_of(credentials, kind="esf"))
    site.await_state(credentials.client_id, "confirmed")
    (taken,) = site.await_audit("provision.taken", client_id=credentials.client_id)
    assert taken["details"]["packages"] == ["heater", "modbus"]
    settings = runner.device.state.settings
    assert settings is not None
    assert settings.packages == ("heater 1.4.2", "modbus 2.0")
    steps = [log.event for log in runner.record.events]
    assert steps.index("RES") > steps.index("DEPLOY-V2 EXEC")
    assert steps[-4:] == ["DISCONNECT", "CONNECT(account)", "FIRST", "CONNECTED"]


def test_ec_27_additional_components_arrive_at_a_gateway(shared_installation: Installation, fresh_id: FreshId) -> None:
    """EC-29: a gateway merges what the administrator added, the five parameters are the gate's, the service is off."""
    site = shared_installation
    evil = {"broker-url": "mqtt://evil", "username": "evil", "client-id": "evil", "keep-alive": 75}
    new = {"service.factoryPid": CLOCK, "clock.ntp.hosts": ["ntp1", "ntp2"], "enabled": True}
    credentials = site.request(fresh_id(), configuration={CLOCK: new, TRANSPORT: evil}, activation_key=True)
    runner = _through(site, fleet_of(credentials, kind="esf"))
    settings = runner.device.state.settings
    assert settings is not None
    assert {name: settings.configuration[CLOCK][name] for name in new} == new
    transport = settings.configuration[TRANSPORT]
    assert (transport["broker-url"], transport["keep-alive"]) == (settings.broker_url, 75)
    assert (transport["username"], transport["client-id"]) == (settings.username, credentials.client_id)
    assert settings.broker_url.endswith(str(site.account_brokers["north"].port))


@pytest.mark.parametrize("key", [None, "000000-000000-000000-000000-000000"])
def test_ec_16_a_gateway_without_the_right_key_is_refused(
    shared_installation: Installation, fresh_id: FreshId, key: str | None
) -> None:
    """EC-34: its reply says refused and no more; no user is made, whatever it says of itself in a BIRTH."""
    site = shared_installation
    credentials = site.request(fresh_id(), activation_key=True)
    intruder = fleet_of(credentials, kind="esf", expect="refused") | {"activation_key": key}
    _through(site, intruder)
    assert site.await_audit("provision.key_failure", client_id=credentials.client_id)
    assert (site.state(credentials.client_id), site.users_of(credentials.client_id)) == ("pending", [])


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"activates_on": "2090-01-01T00:00:00Z"}, "not_yet_active"),
        ({"activates_on": "2020-01-01T00:00:00Z", "expires_on": "2021-01-01T00:00:00Z"}, "expired"),
        ({"require_approval": True}, "waiting"),
    ],
)
def test_ec_34_a_gateway_is_told_its_status(
    shared_installation: Installation, fresh_id: FreshId, fields: dict[str, Any], status: str
) -> None:
    """EC-20, EC-22: the reply to PROV carries the same statuses as the native dialect."""
    site = shared_installation
    credentials = site.request(fresh_id(), **fields)
    runner = _through(site, fleet_of(credentials, kind="esf", expect=status))
    assert runner.record.answers[status] >= 1
    assert site.users_of(credentials.client_id) == []


@pytest.mark.parametrize(("mode", "csr"), [("csr", True), ("server-key", False)])
def test_a_gateway_takes_its_certificate(make_installation: Callable[..., Installation], mode: str, csr: bool) -> None:
    """With certificates on, key and certificate come before the configuration; a device's own key stays with it."""
    site = make_installation()
    with site.running():
        site.account(certificates=mode)
        credentials = site.request(activation_key=True)
        runner = _through(site, fleet_of(credentials, kind="esf", csr=csr))
        settings = runner.device.state.settings
        assert settings is not None and settings.certificate is not None
        own = runner.device.state.own_key
        assert (settings.private_key == own) == csr
        site.await_state("dev1", "confirmed")


def _through(site: Installation, fleet: dict[str, Any], scheme: str = "mqtt") -> DeviceRunner:
    """The one device of the fleet, which ended as the fleet expects."""
    report, sim = run_fleet(site, fleet, scheme=scheme)
    (runner,) = devices(sim)
    assert report.is_met, (report, list(runner.record.events))
    return runner
