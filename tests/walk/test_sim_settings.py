"""What an installer sets on a device: address, client id, username, password, activation key, and the mode."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from device_sim.scenario import load
from tests.support.device import Credentials
from tests.support.fleet import QUICK, devices, fleet_of, gate_url, run_fleet
from tests.support.installation import ROOT, Installation

FreshId = Callable[[], str]
DEVICE = (sys.executable, "-c", "from device_sim.cli import main; main()")


@pytest.fixture
def credentials(shared_installation: Installation, fresh_id: FreshId) -> Credentials:
    return shared_installation.request(fresh_id(), activation_key=True)


def test_ec_38_a_scenario_file_sets_all_of_them(
    shared_installation: Installation, credentials: Credentials, tmp_path: Path
) -> None:
    """A file with the parameters of the request takes the device through."""
    site = shared_installation
    _write_secrets(tmp_path, credentials)
    (tmp_path / "device.yaml").write_text(yaml.safe_dump(_scenario(site, credentials)))
    report, fleet = run_fleet(site, *_fleets(tmp_path / "device.yaml"), scheme="mqtts", folder=tmp_path)
    assert report.is_met, report
    assert [runner.device.state.client_id for runner in devices(fleet)] == [credentials.client_id]
    site.await_state(credentials.client_id, "confirmed")


def _scenario(site: Installation, credentials: Credentials) -> dict[str, Any]:
    fleet = {
        "name": "one", "kind": "json", "provisioning": True, "client_id": credentials.client_id,
        "username": credentials.username, "password_file": "password.txt", "activation_keys_file": "keys.json",
        "timeouts": QUICK,
    }  # fmt: skip
    return {"gate": gate_url(site, "mqtts"), "tls": {"ca": str(site.ca)}, "fleets": [fleet]}


def _fleets(path: Path) -> list[dict[str, Any]]:
    """As the simulator reads them from the file."""
    return [fleet.model_dump(mode="json", exclude_unset=True) for fleet in load(path).fleets]


def _write_secrets(folder: Path, credentials: Credentials) -> None:
    (folder / "password.txt").write_text(credentials.password + "\n")
    (folder / "key.txt").write_text(f"{credentials.activation_key}\n")
    keys = [{"client_id": credentials.client_id, "activation_key": credentials.activation_key}]
    (folder / "keys.json").write_text(json.dumps(keys))


def _one(site: Installation, credentials: Credentials, folder: Path, *options: str, status: int) -> dict[str, Any]:
    """The report of ``device-sim one`` with the parameters of the request, and these options beside or over them."""
    _write_secrets(folder, credentials)
    given = (
        "--gate", gate_url(site, "mqtts"), "--ca", str(site.ca), "--client-id", credentials.client_id,
        "--username", credentials.username, "--password-file", str(folder / "password.txt"),
        "--activation-key-file", str(folder / "key.txt"), "--json", "-", "--deadline", "20", *options,
    )  # fmt: skip
    done = subprocess.run([*DEVICE, "one", *given], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert credentials.password not in done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert isinstance(report, dict)
    return report


def test_ec_38_the_command_line_sets_all_of_them(
    shared_installation: Installation, credentials: Credentials, tmp_path: Path
) -> None:
    """Switched off the device keeps away from the gate; switched on, with the request's parameters, it gets through."""
    site = shared_installation
    off = _one(site, credentials, tmp_path, "--no-provisioning", status=1)
    assert (off["fleets"][0]["outcomes"], off["fleets"][0]["attempts"]) == ({"nothing": 1}, 0)
    assert site.state(credentials.client_id) == "pending"
    on = _one(site, credentials, tmp_path, "--provisioning", status=0)
    assert on["fleets"][0]["outcomes"] == {"connected": 1}
    site.await_state(credentials.client_id, "confirmed")


@pytest.mark.parametrize(
    ("parameter", "wrong", "outcome"),
    [
        ("client_id", "another-one", "login_refused"),
        ("username", "another-user", "login_refused"),
        ("password", "Another-password-1", "login_refused"),
        ("activation_key", "another-key", "refused"),
        ("gate", "mqtt://localhost:9", "unreachable"),
    ],
)
def test_ec_38_every_parameter_must_match_the_request(
    shared_installation: Installation, credentials: Credentials, parameter: str, wrong: str, outcome: str
) -> None:
    """One parameter that differs from the request keeps the device out, and the request is as it was."""
    site = shared_installation
    report, _ = run_fleet(site, fleet_of(credentials, expect=outcome) | {parameter: wrong}, scheme="mqtts")
    assert report.is_met, report
    assert (site.state(credentials.client_id), site.users_of(credentials.client_id)) == ("pending", [])


@pytest.mark.parametrize("kind", ["json", "esf", "kura"])
def test_ec_38_with_the_mode_off_only_provisioned_devices_come_on_line(
    shared_installation: Installation, fresh_id: FreshId, tmp_path: Path, kind: str
) -> None:
    """A device remembers its account: switched off it goes there still, while a fresh one stays dark."""
    site = shared_installation
    old, fresh = site.request(fresh_id()), site.request(fresh_id())
    report, _ = run_fleet(site, fleet_of(old, kind=kind), scheme="mqtts", state_dir=str(tmp_path))
    assert report.is_met, report
    site.await_state(old.client_id, "confirmed")
    off: dict[str, Any] = {"kind": kind, "provisioning": False}
    report, _ = run_fleet(
        site,
        fleet_of(old, **off),
        fleet_of(fresh, expect="nothing", **off),
        scheme="mqtts",
        state_dir=str(tmp_path),
    )
    assert report.is_met, report
    assert [fleet.attempts for fleet in report.fleets] == [0, 0]
    assert (site.state(fresh.client_id), site.users_of(fresh.client_id)) == ("pending", [])
