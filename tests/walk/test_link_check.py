"""`fleetgate broker check` where a mosquitto stands in the place of the gate."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.installation import Installation
from tests.support.mosquitto_gate import MosquittoGate, await_link, connected

BROKER = "embedded"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Installation, MosquittoGate]]:
    """mosquitto runs, the service not yet; it was used without a link before, and has an open request from then."""
    gate = MosquittoGate(tmp_path / "installation")
    installation = gate.installation()
    settings = installation.config.read_text()
    without = {name: value for name, value in yaml.safe_load(settings).items() if name != "provision_link"}
    installation.config.write_text(yaml.safe_dump(without))
    with installation.running():
        installation.account()
        installation.request("before")
    installation.config.write_text(settings)
    with gate:
        yield installation, gate


def checked(installation: Installation, *, status: int = 0) -> dict[str, dict[str, Any]]:
    """The rows about the provision broker, by name."""
    rows = json.loads(installation.cli("broker", "check", BROKER, "-o", "json", status=status).stdout)
    return {row["name"].removeprefix("provision "): row for row in rows if row["name"].startswith("provision ")}


def test_who_cannot_log_in_is_named_and_what_to_do(site: tuple[Installation, MosquittoGate]) -> None:
    """EC-02: a request from before the link has no login at mosquitto; the check names its device and the way out,
    and passes once that was gone. It throws nobody out."""
    installation, gate = site
    away = checked(installation, status=1)
    assert (away["strangers"]["passed"], away["link"]["passed"]) == (True, False)
    with installation.running():
        await_link(installation)
        rows = checked(installation, status=1)
        assert [name for name, row in rows.items() if not row["passed"]] == ["logins"]
        assert "before" in rows["logins"]["detail"] and "--password-file" in rows["logins"]["detail"]
        installation.ask("request.delete", id="before")
        installation.request("after")
        gate.await_user("user-after")
        with connected(installation, installation.request("visitor")) as device:
            assert all(row["passed"] for row in checked(installation).values())
            assert device.ask("m-1")["status"] == "provisioned", "the link was not disturbed"
        gate.kill()
        down = checked(installation, status=1)
        assert not down["strangers"]["passed"]


def test_a_mosquitto_that_lets_anybody_in_is_found_out(site: tuple[Installation, MosquittoGate]) -> None:
    """AZ-03: a listener without its password file lets strangers in, and the check says so."""
    installation, gate = site
    gate.stop()
    settings = gate.folder / "mosquitto.conf"
    text = gate.configuration()
    gate.configuration = lambda: text.replace("allow_anonymous false", "allow_anonymous true").replace(  # type: ignore[method-assign]  # the administrator's mistake
        f"password_file {gate.folder / 'provision/passwords'}", ""
    )
    gate.start()
    assert "allow_anonymous true" in settings.read_text()
    row = checked(installation, status=1)["strangers"]
    assert not row["passed"] and "allow_anonymous false" in row["detail"]
