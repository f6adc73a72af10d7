"""What a device is given: endpoint, merged configuration, packages, and for every refusal its own status."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.device import Wire
from tests.support.fleet import devices, fleet_of, run_fleet
from tests.support.installation import Installation

FreshId = Callable[[], str]
INVALID_INPUT = 6
GOLDEN = Path(__file__).parent / "golden"
TRANSPORT = "org.eclipse.kura.core.data.transport.mqtt.MqttDataTransport"
FIVE = ("broker-url", "topic.context.account-name", "client-id", "username", "password")
PACKAGES = [
    {"name": "heater", "version": "1.4.2", "url": "https://dl.example.org/heater-1.4.2.dp", "sha256": "ab" * 32},
    {"name": "modbus", "version": "2.0", "url": "https://dl.example.org/modbus-2.0.dp"},
]


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws", "wss"])
def test_ec_18_the_endpoint_is_delivered_as_it_was_requested(
    shared_installation: Installation, fresh_id: FreshId, scheme: str
) -> None:
    """Every scheme of MQTT is accepted; the device is given exactly that URL, in the answer and in its component."""
    site, url = shared_installation, f"{scheme}://broker.example.org:4711"
    client_id = fresh_id()
    create = ("request", "create", "--account", "acme", "--client-id", client_id, "--username", f"user-{client_id}")
    assert json.loads(site.cli(*create, "--endpoint", url, "--dry-run").stdout)["endpoint"] == url
    with site.device(site.request(client_id, endpoint=url)) as device:
        answer = device.ask()
    assert (answer["broker_url"], answer["configuration"][TRANSPORT]["broker-url"]) == (url, url)


@pytest.mark.parametrize("url", ["http://broker", "broker:1883", "mqtt://", "mqtts://user:pw@broker", "mqtt://b:99999"])
def test_ec_18_other_endpoints_are_refused(shared_installation: Installation, fresh_id: FreshId, url: str) -> None:
    """What is no address of an MQTT broker is refused, naming the field, and nothing is stored."""
    site, client_id = shared_installation, fresh_id()
    create = ("request", "create", "--account", "acme", "--client-id", client_id, "--username", f"user-{client_id}")
    assert site.cli(*create, "--endpoint", url, status=INVALID_INPUT).stderr.startswith("endpoint: ")
    assert site.listed("request.page", client_id=client_id) == []


@pytest.mark.parametrize("format", ["yaml", "json"])
def test_ec_27_ec_28_ec_29_the_configuration_is_merged_as_the_golden_file_says(
    shared_installation: Installation, fresh_id: FreshId, tmp_path: Path, format: str
) -> None:
    """Every component arrives; maps merge, lists replace, null stays; the five parameters are the gate's own."""
    site, client_id = shared_installation, fresh_id()
    additional = GOLDEN / "additional.yaml"
    if format == "json":
        additional = tmp_path / "additional.json"
        additional.write_text(json.dumps(yaml.safe_load((GOLDEN / "additional.yaml").read_text())))
    create = ("request", "create", "--account", "acme", "--client-id", client_id, "--username", f"user-{client_id}")
    made = site.cli(*create, "--configuration", str(additional))
    _warns_of_the_five(made.stderr)
    password = json.loads(made.stdout)["secrets"]["password"]
    preview = site.cli("request", "preview", client_id)
    _warns_of_the_five(preview.stderr)

    report, fleet = run_fleet(
        site, {"client_id": client_id, "username": f"user-{client_id}", "password": password}, scheme="mqtts"
    )
    assert report.is_met, report
    settings = devices(fleet)[0].device.state.settings
    assert settings is not None
    delivered: dict[str, Any] = json.loads(json.dumps(dict(settings.configuration)))
    own = {name: getattr(settings, name) for name in ("broker_url", "account", "client_id", "username")}
    assert delivered == _golden({**own, "password": settings.password.reveal()})
    assert json.loads(preview.stdout)["configuration"] == _golden(
        {**own, "username": "(generated)", "password": "(generated)"}
    )
    assert own["account"] == "acme" and own["client_id"] == client_id
    assert "evil" not in json.dumps(delivered)


def _warns_of_the_five(said: str) -> None:
    for name in FIVE:
        assert f"warning: configuration: {TRANSPORT}/{name} is overridden" in said


def _golden(values: Mapping[str, str]) -> dict[str, Any]:
    """The expected configuration with this device's own values in its places."""
    text = (GOLDEN / "delivered.json").read_text()
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    golden: dict[str, Any] = json.loads(text)
    return golden


def test_ec_34_every_refusal_has_its_own_status(shared_installation: Installation, fresh_id: FreshId) -> None:
    """Nine asks, nine statuses; the true reason is in the audit log, and only success carries a configuration."""
    site = shared_installation
    now = datetime.now(UTC)
    early, late = now + timedelta(hours=1), now - timedelta(hours=1)
    cases: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
        "not_yet_active": ({"activates_on": early.isoformat()}, {}, "not_yet_active"),
        "expired": (
            {"activates_on": (late - timedelta(hours=1)).isoformat(), "expires_on": late.isoformat()},
            {},
            "expired",
        ),
        "waiting": ({"require_approval": True}, {}, "waiting"),
        "refused": ({"activation_key": True}, {"activation_key": "wrong"}, "activation_key"),
        "malformed": ({}, {"request_id": 7}, "malformed"),
    }
    for status, (fields, message, reason) in cases.items():
        credentials = site.request(fresh_id(), **fields)
        with site.device(credentials) as device:
            answer = device.ask(**message)
        assert (answer["status"], "configuration" in answer) == (status, False)
        assert ("retry_after_s" in answer) == (status in ("not_yet_active", "waiting"))
        assert [row["reason"] for row in site.await_audit("provision.refused", client_id=credentials.client_id)] == [
            reason
        ]
        assert site.users_of(credentials.client_id) == []


def test_ec_34_success_conflict_and_repetition(shared_installation: Installation, fresh_id: FreshId) -> None:
    """While one connection is answered another gets conflict; afterwards the device is told already_provisioned."""
    site = shared_installation
    credentials = site.request(fresh_id())
    with site.device(credentials) as first:
        answer = first.ask()
        assert answer["status"] == "provisioned"
        assert answer["configuration"][TRANSPORT]["password"] == answer["password"]
        with site.device(credentials) as second:
            refusal = second.ask("m-2")
        assert (refusal["status"], refusal["retry_after_s"]) == ("conflict", 10)
        first.acknowledge()
    with site.account_wire(answer, "north"):
        site.await_state(credentials.client_id, "confirmed")
    with site.device(credentials) as again:
        assert again.ask("m-3")["status"] == "already_provisioned"
    assert len(site.users_of(credentials.client_id)) == 1


def test_ec_34_too_many_wrong_keys_are_busy_for_a_while(shared_installation: Installation, fresh_id: FreshId) -> None:
    """After five wrong keys nothing is compared for a time: the device is told busy, and when to come back."""
    site = shared_installation
    credentials = site.request(fresh_id(), activation_key=True)
    with site.device(credentials) as device:
        assert [device.ask(activation_key="wrong")["status"] for _ in range(5)] == ["refused"] * 5
        answer = device.ask()
        assert answer["status"] == "busy"
        assert 0 < answer["retry_after_s"] <= 30


def test_ec_35_packages_are_part_of_the_answer(
    shared_installation: Installation, fresh_id: FreshId, tmp_path: Path
) -> None:
    """The list arrives as it was requested; the device installs it, and says so in its first message at home."""
    site, client_id = shared_installation, fresh_id()
    packages = tmp_path / "packages.json"
    packages.write_text(json.dumps(PACKAGES))
    create = ("request", "create", "--account", "acme", "--client-id", client_id, "--username", f"user-{client_id}")
    secrets = json.loads(site.cli(*create, "--packages", str(packages)).stdout)["secrets"]
    login = {"client_id": client_id, "username": f"user-{client_id}", "password": secrets["password"]}
    report, fleet = run_fleet(site, login, scheme="mqtts")
    assert report.is_met, report
    (runner,) = devices(fleet)
    told = [(log.event, log.detail) for log in runner.record.events if log.event in ("INSTALL", "FIRST")]
    # That first message is its report: it names what is installed.
    assert told == [("INSTALL", "heater 1.4.2"), ("INSTALL", "modbus 2.0"), ("FIRST", f"acme/{client_id}/status")]
    site.await_state(client_id, "confirmed")

    raw = site.request(fresh_id(), packages=PACKAGES)
    with site.device(raw) as device:
        assert device.ask()["packages"] == [PACKAGES[0], {**PACKAGES[1], "sha256": None}]


def test_ec_36_the_device_moves_in_order(shared_installation: Installation, fresh_id: FreshId) -> None:
    """Answer, acknowledgement, farewell, account broker, first message: on the device and in the audit log alike."""
    site = shared_installation
    credentials = site.request(fresh_id())
    report, fleet = run_fleet(site, fleet_of(credentials), scheme="mqtts")
    assert report.is_met, report
    (runner,) = devices(fleet)
    assert [log.event for log in runner.record.events] == [
        "CONNECT(gate)", "REQ", "RES", "ACK", "DISCONNECT", "CONNECT(account)", "FIRST", "CONNECTED",
    ]  # fmt: skip
    site.await_state(credentials.client_id, "confirmed")
    moves = site.audit(client_id=credentials.client_id)
    assert [row["action"] for row in moves] == [
        "request.create", "provision.granted", "provision.acknowledged", "provision.confirmed",
    ]  # fmt: skip
    settings = runner.device.state.settings
    assert settings is not None
    with Wire(site.account_brokers["north"]) as factory:
        assert factory.connect(credentials.client_id, credentials.username, credentials.password) == 5
