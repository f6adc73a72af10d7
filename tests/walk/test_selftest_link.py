"""The proof of isolation at a mosquitto that stands in the place of the gate."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioner.services.isolation import RULES
from tests.support.installation import Installation
from tests.support.mosquitto_gate import MosquittoGate, await_link, connected

TARGET = "provision broker"
ALL = {rule.name for rule in RULES}
Site = tuple[Installation, MosquittoGate]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    gate = MosquittoGate(tmp_path / "installation")
    installation = gate.installation()
    with gate, installation.running():
        await_link(installation)
        installation.account()
        yield installation, gate


def proved(installation: Installation) -> dict[str, Any]:
    """The report about the provision broker."""
    reports = installation.ask("selftest", patience_s=90)["isolation"]
    return {each["target"]: each for each in reports}[TARGET]


def leaks(installation: Installation) -> set[str]:
    checks = installation.ask("selftest", patience_s=90)["checks"]
    prefix = f"{TARGET}: "
    names = {check["name"].removeprefix(prefix) for check in checks if not check["passed"]}
    assert all("LEAK" in check["detail"] for check in checks if check["name"] in {f"{prefix}{n}" for n in names & ALL})
    return names & ALL


def test_isolation_is_proved_where_mosquitto_stands_for_the_gate(site: Site) -> None:
    """EC-04, EC-05, F-01, F-05, F-07, AZ-03: every rule is tried with throw-away logins in mosquitto's own files, and
    holds; afterwards they are gone, nothing was stored, and a device is served meanwhile."""
    installation, gate = site
    before = installation.ask("status")
    credentials = installation.request("dev1")
    with connected(installation, credentials) as device:
        checks = installation.ask("selftest", patience_s=90)["checks"]
        assert [check for check in checks if not check["passed"]] == []
        assert {f"{TARGET}: {rule}" for rule in ALL} <= {check["name"] for check in checks}
        assert device.wire.heard() == []
        assert device.ask("m-1")["status"] == "provisioned"
    assert installation.ask("status")["isolation"][TARGET]["result"] == "holds"
    installation.request("dev2")
    gate.await_user("user-dev2")
    for name in ("passwords", "acl"):
        assert "selftest" not in (gate.folder / "provision" / name).read_text()
    assert installation.ask("status")["devices"] == before["devices"] + 1
    assert [row for row in installation.audit() if "selftest" in json.dumps(row)] == []


@pytest.mark.parametrize(
    ("mistake", "found"),
    [
        (
            lambda text: re.sub(r"acl_file .*provision/acl\n", "", text),
            {"read-other", "read-all", "write-other", "will"},
        ),
        (
            lambda text: text.replace("allow_anonymous false", "allow_anonymous true").replace(
                "use_username_as_clientid true", "use_username_as_clientid false"
            ),
            {"no-anonymous"},
        ),
        (
            lambda text: text.replace("use_username_as_clientid true", "use_username_as_clientid false"),
            {"takeover-other-user"},
        ),
    ],
    ids=["no rights", "anybody", "client ids"],
)
def test_a_mistake_in_its_configuration_is_found(
    tmp_path: Path, mistake: Callable[[str], str], found: set[str]
) -> None:
    """What an administrator may get wrong in mosquitto.conf is named by the rule that does not hold any more."""
    gate = MosquittoGate(tmp_path / "installation")
    right = gate.configuration
    installation = gate.installation()
    wrong = mistake(right())
    assert wrong != right()
    gate.configuration = lambda: wrong  # type: ignore[method-assign]  # the administrator's mistake
    with gate, installation.running():
        await_link(installation)
        assert found <= leaks(installation)


def test_a_mosquitto_that_is_away_proves_nothing(site: Site) -> None:
    """Without it nothing is tried, and the report says that it is not known."""
    installation, gate = site
    gate.kill()
    assert proved(installation)["holds"] is False
    assert installation.ask("status")["isolation"][TARGET]["result"].startswith("not tried")
