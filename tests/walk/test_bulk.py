"""A large fleet with similar configuration: one file, one command, and every device in its account."""

import csv
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.model import names
from tests.support.fleet import QUICK, devices, run_fleet
from tests.support.installation import Installation

PARTLY_DONE = 7
FLEET = 1_000
PASSWORD_BITS_MIN = 128
CROCKFORD_BITS = 5
TEMPLATE = {
    "account": "acme",
    "username": "meters",
    "password": "Printed-on-every-label",
    "activation_key": True,
    "configuration": {"org.example.meter.Reader": {"interval_s": 60, "register": {"unit": "kWh"}}},
}


@pytest.mark.timeout(240)
def test_ec_41_ec_32_a_thousand_requests_and_a_thousand_devices(
    make_installation: Callable[..., Installation], tmp_path: Path
) -> None:
    """One template and one CSV file make 1,000 requests in one call; all 1,000 devices are confirmed in their account.

    EC-12, EC-17: one username and password for all, a key for each. The 1,000 issued passwords differ and are strong.
    """
    site = make_installation()
    with site.running():
        site.account()
        keys = _import(site, tmp_path)
        assert site.ask("status")["requests"]["pending"] == FLEET
        fleet = {
            "devices_file": "devices.csv",
            "username": TEMPLATE["username"],
            "password": TEMPLATE["password"],
            "activation_keys_file": str(keys),
            "timeouts": {**QUICK, "reply_s": 30.0, "connect_s": 30.0, "connack_s": 30.0},
            "stay_s": 0.0,
        }
        _write_csv(tmp_path / "devices.csv", [{"client_id": f"meter-{n:04d}"} for n in range(FLEET)])
        report, sim = run_fleet(site, fleet, folder=tmp_path, deadline_s=200, in_flight_max=50)
        assert report.is_met, report
        _await_confirmed(site)
        settings = [runner.device.state.settings for runner in devices(sim)]
        own = [each for each in settings if each is not None]
        assert {each.account for each in own} == {"acme"}
        assert all(each.configuration["org.example.meter.Reader"]["register"] == {"unit": "kWh"} for each in own)
        users = {each["username"]: each["client_id"] for each in site.listed("user.page", account="acme")}
        assert users == {each.username: each.client_id for each in own}
        assert Counter(row["account"] for row in site.audit("provision.confirmed")) == {"acme": FLEET}
        _are_strong([each.password.reveal() for each in own])


def _import(site: Installation, folder: Path) -> Path:
    """Make the requests; the file with their keys."""
    (folder / "template.yaml").write_text(yaml.safe_dump(TEMPLATE))
    _write_csv(folder / "fleet.csv", [{"client_id": f"meter-{n:04d}", "max_attempts": "9"} for n in range(FLEET)])
    results = folder / "results.csv"
    done = site.cli(
        "request", "import", str(folder / "fleet.csv"), "--template", str(folder / "template.yaml"),
        "--results", str(results),
    )  # fmt: skip
    assert "1000 made, 0 failed" in done.stderr
    assert results.stat().st_mode & 0o777 == 0o600
    with results.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["activation_key"] for row in rows}) == FLEET
    assert [int(row["line"]) for row in rows] == list(range(2, FLEET + 2))
    return results


def _await_confirmed(site: Installation) -> None:
    until_s = time.monotonic() + 20
    while (counts := site.ask("status")["requests"])["confirmed"] < FLEET:
        assert time.monotonic() < until_s, counts
        time.sleep(0.1)
    assert counts == {"pending": 0, "granted": 0, "confirmed": FLEET, "revoked": 0}
    assert site.ask("status")["devices"] == FLEET


def _are_strong(passwords: Sequence[str]) -> None:
    """EC-32: all different, by the rules for passwords, and random enough for guessing to be no use."""
    assert len(set(passwords)) == FLEET
    assert [rule for password in passwords for rule in names.check_password(password)] == []
    # Every position that varies at all takes (nearly) every one of 32 letters in a thousand draws.
    places = [set(letters) for letters in zip(*passwords, strict=True)]
    bits = sum(math.log2(len(letters)) for letters in places)
    assert bits >= PASSWORD_BITS_MIN
    assert all(len(letters) in (1, 2**CROCKFORD_BITS) for letters in places)


def test_ec_41_rows_that_fail_are_told_by_their_line(
    make_installation: Callable[..., Installation], tmp_path: Path
) -> None:
    """Of a hundred rows three are bad: 97 are made, three reported by line, exit status 7; a second run adds none."""
    site = make_installation()
    rows: list[dict[str, str]] = [{"client_id": f"meter-{n}", "expires_on": ""} for n in range(100)]
    rows[10]["client_id"] = "me/ter"
    rows[50]["client_id"] = "meter-49"
    rows[98]["expires_on"] = "yesterday"
    _write_csv(tmp_path / "fleet.csv", rows)
    (tmp_path / "template.json").write_text(json.dumps(TEMPLATE))
    command = ("request", "import", str(tmp_path / "fleet.csv"), "--template", str(tmp_path / "template.json"))
    with site.running():
        site.account()
        dry = site.cli(*command, "--dry-run", status=PARTLY_DONE)
        assert "97 would be made, 3 failed" in dry.stderr
        assert site.listed("request.page") == []

        done = site.cli(*command, "-o", "json", status=PARTLY_DONE)
        assert "97 made, 3 failed" in done.stderr
        told = {line.split(":")[0]: line for line in done.stderr.splitlines() if line.startswith("line ")}
        failed = {row["line"]: row["error"] for row in json.loads(done.stdout) if not row["ok"]}
        assert set(failed) == {12, 52, 100}
        assert "client_id: " in told["line 12"] and "expires_on: " in told["line 100"]
        assert failed[52]["kind"] == "conflict" and "line 52" in told
        assert len(site.listed("request.page")) == 97

        again = site.cli(*command, status=PARTLY_DONE)
        assert "0 made, 100 failed" in again.stderr
        assert len(site.listed("request.page")) == 97
        _one_of_them_provisions(site, json.loads(done.stdout)[0])


def _one_of_them_provisions(site: Installation, made: Mapping[str, Any]) -> None:
    login = {name: made[name] for name in ("client_id", "username", "activation_key")}
    report, _ = run_fleet(site, {**login, "password": TEMPLATE["password"], "timeouts": QUICK})
    assert report.is_met, report
    site.await_state(made["client_id"], "confirmed")


def _write_csv(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
