"""The proof of isolation: it passes where devices are kept apart, and names the rule where mosquitto does not."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from provisioner.model.capabilities import Capabilities
from provisioner.model.ports import BrokerUser, Gap, Sighting, heedless
from provisioner.services.isolation import RULES
from tests.support.device import Address
from tests.support.in_process import READING, WRITING, InProcess, explained
from tests.support.installation import Installation
from tests.support.machine import patience
from tests.support.mosquitto import KINDS, PROGRAM, MosquittoServer, mosquitto_settings
from tests.support.ports import free_ports, serves

PROMISED_S = 2.0
ALL = {rule.name for rule in RULES}


def test_selftest_passes_and_leaves_nothing(shared_installation: Installation) -> None:
    """EC-04, EC-31, F-01, F-05, F-07, AZ-03: every rule holds at every listener and broker, within the promised time,
    and nobody sees that it was tried."""
    before = settled(shared_installation)
    result = shared_installation.ask("selftest", patience_s=60)
    assert [check for check in result["checks"] if not check["passed"]] == []
    targets = {each["target"]: each for each in result["isolation"]}
    assert set(targets) == {"gate plain", "gate secure", "gate ws", "account broker north", "account broker south"}
    names = {check["name"] for check in result["checks"]}
    assert {f"{target}: {rule}" for target in targets for rule in ALL} <= names
    assert all(each["took_s"] < PROMISED_S * patience() for each in targets.values())
    after = shared_installation.ask("status")
    for figure in ("accounts", "requests", "devices", "effects_waiting"):
        assert after[figure] == before[figure]
    assert after["isolation"]["gate plain"]["result"] == "holds"
    assert shared_installation.ask("fsck")["findings"] == []
    rows = shared_installation.audit()
    assert [row for row in rows if "selftest" in json.dumps(row)] == []
    assert [row for row in rows if row["seq"] > before["audit_seq"] and row["actor"] == "gate"] == []


def settled(installation: Installation) -> Mapping[str, Any]:
    """The status, once a moment has passed in which nothing was noted: what strangers did before is summed up for a
    second."""
    until_s = time.monotonic() + 20
    while True:
        before = installation.ask("status")
        time.sleep(1.5)
        after: Mapping[str, Any] = installation.ask("status")
        if after["audit_seq"] == before["audit_seq"]:
            return after
        assert time.monotonic() < until_s, "there is no end of it"


def test_the_command_prints_a_table_and_ends_with_0(shared_installation: Installation) -> None:
    """`fleetgate selftest` has a line for each rule at each target."""
    table = shared_installation.cli("selftest", "-o", "table").stdout
    for rule in ALL:
        assert f"account broker south: {rule} " in table
    assert "holds; tried in " in table


@pytest.mark.parametrize("kind", [*KINDS, "certificate"])
def test_real_mosquitto_passes(tmp_path: Path, kind: str) -> None:
    """mosquitto as we configure it keeps devices apart, whether it refuses a filter or delivers nothing."""
    settings = mosquitto_settings(kind, "south", tls=True)
    installation = Installation(tmp_path / "installation", brokers=("unused",), account_brokers=[settings])
    installation.cli("broker", "render", "mosquitto", "--write")
    with MosquittoServer(settings, installation.folder), installation.running():
        result = installation.ask("selftest", patience_s=60)
        assert [check for check in result["checks"] if not check["passed"]] == []
        assert result["isolation"][-1]["target"] == "account broker south"
        assert result["isolation"][-1]["took_s"] < PROMISED_S * patience()
        assert installation.ask("fsck")["findings"] == []


def await_server(port: int) -> None:
    until_s = time.monotonic() + 10
    while not serves(port):
        assert time.monotonic() < until_s, "mosquitto does not come up"
        time.sleep(0.01)


class OpenDoor:
    """An account broker that tells nobody anything: whatever listens there is as it is."""

    name = "embedded"

    def capabilities(self) -> Capabilities:
        return Capabilities(kicks=False, reports_sightings=False, refuses_subscribe=False, mqtt5=True)

    async def start(self, seen: Callable[[Sighting], None], gap: Callable[[Gap], None] = heedless) -> None: ...
    async def stop(self) -> None: ...
    async def put_user(self, user: BrokerUser) -> None: ...
    async def remove_user(self, account: str, username: str) -> None: ...

    async def kick(self, account: str, client_id: str) -> bool:
        return False

    async def users(self) -> Sequence[tuple[str, str]]:
        return ()


def test_an_open_mosquitto_breaks_every_rule(
    inside: InProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A real mosquitto that asks for no password and has no access list fails all that can fail."""
    (port,) = free_ports(1)
    configuration = tmp_path / "open.conf"
    configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nuser root\n")
    inside.account_brokers = {"embedded": Address(port)}
    with (tmp_path / "open.log").open("wb") as log:
        server = subprocess.Popen([PROGRAM, "-c", str(configuration)], stdout=log, stderr=log)
    try:
        await_server(port)
        inside.serve(monkeypatch, {"embedded": OpenDoor()})
        report = inside.prove()["account broker embedded"]
        assert set(report.leaks) == ALL - {"own-topics"}
        assert explained(report)
    finally:
        server.terminate()
        server.wait(10)


MISCONFIGURED: dict[str, tuple[str, str, set[str]]] = {
    "no access list": ("mosquitto-files", "acl_file", READING | WRITING),
    "no bound client id": ("mosquitto-files", "use_username_as_clientid", {"takeover-other-user"}),
    "no access list for certificates": ("certificate", "acl_file", READING | WRITING),
    "no client id bound to a certificate": ("certificate", "use_username_as_clientid", {"takeover-other-user"}),
}


@pytest.mark.parametrize("mistake", MISCONFIGURED)
def test_a_mosquitto_with_a_line_missing_is_found_out(tmp_path: Path, mistake: str) -> None:
    """The configuration that we render, less one line on the devices' listener: the rules that it stood for fail."""
    kind, line, rules = MISCONFIGURED[mistake]
    settings = mosquitto_settings(kind, "south", tls=True)
    installation = Installation(tmp_path / "installation", brokers=("unused",), account_brokers=[settings])
    installation.cli("broker", "render", "mosquitto", "--write")
    server = MosquittoServer(settings, installation.folder)
    rendered = server.folder / "mosquitto.conf"
    before, mark, behind = rendered.read_text().partition("# For the service alone.")
    kept = [each for each in before.splitlines() if not each.startswith(line)]
    rendered.write_text("\n".join([*kept, mark]) + behind)
    with server, installation.running():
        result = installation.cli("selftest", "-o", "json", status=1)
        assert "error: the self-test failed" in result.stderr
        (report,) = [each for each in installation.ask("selftest", patience_s=60)["isolation"] if each["leaks"]]
        assert report["target"] == "account broker south"
        assert set(report["leaks"]) == rules
        assert {row["subject"] for row in installation.await_audit("alert.isolation")} == {"account broker south"}


def test_stopping_does_not_wait_for_a_proof(make_installation: Callable[..., Installation]) -> None:
    """SIGTERM while the throw-away devices are at work ends the service as ever, and in time."""
    installation = make_installation(selftest_at_start="warn")
    installation.start()
    started_s = time.monotonic()
    assert installation.stop() == 0
    assert time.monotonic() - started_s < 8.0
