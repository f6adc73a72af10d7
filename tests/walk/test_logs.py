"""What the log of a running service says of its devices, in both forms, and what it never says (F-39)."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults import test_canary as canary
from tests.support.canary import Search
from tests.support.device import Wire
from tests.support.installation import Installation
from tests.support.ports import free_ports
from tests.support.watching import Watch

Make = Callable[..., Installation]
WRONG = "Wrong-Pa55word-99"
LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR"}


def lines(installation: Installation) -> list[dict[str, Any]]:
    """Of a log in JSON; each line must be an object."""
    return [json.loads(line) for line in installation.log.read_text().splitlines()]


def told(installation: Installation, event: str, **about: object) -> list[dict[str, Any]]:
    """Lines of that event that say all this."""
    return [line for line in lines(installation) if line["event"] == event and about.items() <= line.items()]


def test_a_walk_in_json(make_installation: Make) -> None:
    """Every line is an object with an RFC 3339 time, level, logger and event; those of the walk say whose it is."""
    site = make_installation(log_format="json")
    before = datetime.now(UTC)
    with site.running():
        site.account()
        site.provision(site.request("gw1"))
        request = site.ask("request.show", id="gw1")
        site.await_audit("provision.confirmed")
    for line in lines(site):
        assert {"ts", "level", "logger", "event"} <= line.keys()
        assert line["level"] in LEVELS
        assert line["ts"].endswith("Z")
        assert timedelta(0) <= datetime.fromisoformat(line["ts"]) - before + timedelta(seconds=1) < timedelta(minutes=2)
    assert told(site, "ready", level="INFO")
    own = {"request_id": request["id"], "client_id": "gw1"}
    (granted,) = told(site, "provision.granted", **own, account="acme", address="127.0.0.1")
    (confirmed,) = told(site, "provision.confirmed", **own, account="acme")
    assert granted["ts"] <= confirmed["ts"]
    assert told(site, "request.create", client_id="gw1", actor="admin:admin", address="127.0.0.1")


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_refused_device_is_in_the_log_with_the_true_reason(make_installation: Make, form: str) -> None:
    """EC-03: at INFO, each with the reason that the device is not told; what went well is not there."""
    site = make_installation(log_format=form, log_level="INFO")
    with site.running():
        site.account()
        own = site.request("gw1")
        expired = site.request("gw2", activates_on="2020-01-01T00:00:00Z", expires_on="2020-02-01T00:00:00Z")
        for client_id, username, password in (
            ("gw1", own.username, WRONG),
            ("gw9", own.username, own.password),
            ("gw8", "somebody-else", WRONG),
        ):
            with Wire(site.plain) as wire:
                assert wire.connect(client_id, username, password) == 5
        with site.device(expired) as device:
            assert device.ask()["status"] == "expired"
        site.provision(own)
        site.await_audit("connect.refused", 3)
    text = site.log.read_text()
    for client_id, event, reason in (
        ("gw1", "connect.refused", "password"),
        ("gw9", "connect.refused", "client_id_mismatch"),
        ("gw8", "connect.refused", "unknown_user"),
        ("gw2", "provision.refused", "expired"),
    ):
        found = [
            line
            for line in text.splitlines()
            if all(word in line for word in (client_id, event, reason, "INFO", "127.0.0.1"))
        ]
        assert len(found) == 1, (client_id, text)
    assert "provision.granted" not in text


def test_an_alert_is_a_warning(make_installation: Make) -> None:
    """F-22: one client id from two addresses is told at WARNING, with both the device and its request."""
    site = make_installation(log_format="json", log_level="WARNING")
    with site.running():
        site.account()
        own = site.request("gw1")
        for source in ("127.0.0.1", "127.0.0.2"):
            with Wire(site.plain.__class__(site.plain.port, source=source)) as wire:
                assert wire.connect(own.client_id, own.username, own.password) == 0
        site.await_audit("alert.two_addresses")
    (alert,) = lines(site)
    assert (alert["event"], alert["level"], alert["client_id"]) == ("alert.two_addresses", "WARNING", "gw1")
    assert alert["request_id"].startswith("req-")


def test_f_35_a_flood_does_not_fill_the_log(make_installation: Make) -> None:
    """F-35: a thousand refused logins are some lines and their sum."""
    site = make_installation(log_format="json", log_level="INFO")
    with site.running():
        site.account()
        own = site.request("gw1")
        for _ in range(300):
            with Wire(site.plain) as wire:
                wire.connect(own.client_id, own.username, WRONG)
    refused = told(site, "connect.refused")
    assert sum(line.get("count", 1) for line in refused) == 300
    assert len(refused) < 60


def test_f_39_nothing_secret_is_logged_or_measured(make_installation: Make, tmp_path: Path) -> None:
    """F-39: after a whole run with refusals and a failing disk neither the JSON log at DEBUG nor the metrics hold a
    secret, and nothing had to be taken out of the log."""
    (port,) = free_ports(1)
    site, search = make_installation(log_level="DEBUG", log_format="json", metrics={"port": port}), Search()
    credential = json.loads((site.folder / "admin-credential.json").read_text())["credential"]
    search.plant("administrator's credential", credential)
    for name, secret in (("wrong password", canary.WRONG), ("wrong key", canary.WRONG_KEY)):
        search.plant(name, secret)
    with site.running(PYTHONASYNCIODEBUG="1"):
        site.account(certificates="server-key")
        site.account("plain")
        own = canary.create_by_command_line(site, tmp_path, search)
        canary.be_refused(site, own)
        (site.folder.parent / "password.txt").write_text(canary.CHOSEN)
        canary.fail_inside(site, own, search)
        canary.walk(site, own, search)
        found = search.in_text("metrics", Watch(port).text())
        for path in ("/healthz", "/readyz"):
            found += search.in_text(path, Watch(port).ask(path)[1])
    found += search.in_text("log", site.log.read_bytes())
    assert not found
    assert "[redacted]" not in site.log.read_text()
    assert told(site, "provision.confirmed", client_id="canary")
