"""The proof of isolation at the start: what leaks is told or not used, and what a crash left over is cleared away."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import broker.connection
from provisioner import config
from provisioner.account_brokers.embedded import DeviceLogin, EmbeddedAccountBroker
from provisioner.doors.control_client import Refused
from provisioner.model.errors import InvalidInput
from provisioner.model.policy import AtStart
from provisioner.model.ports import BrokerUser
from provisioner.services import proving
from tests.support.in_process import InProcess
from tests.support.installation import run_cli
from tests.support.ports import free_ports

SOON_S = 20.0
LEFT_OVER = BrokerUser(
    account="fleetgate-selftest-0123456789ABCDEF", username="left-over-1", client_id="left-over", verifier=""
)


class Leaky(EmbeddedAccountBroker):
    """Any device may read and write everything while ``leaks``."""

    leaks = True

    async def _admit(self, username: str, password: bytes, client_id: str, address: str | None) -> DeviceLogin | None:
        login = await super()._admit(username, password, client_id, address)
        return _Unbound(login.username, login.topics) if login is not None and self.leaks else login


class _Unbound(DeviceLogin):
    def may_publish(self, topic: str) -> bool:
        return True

    def may_subscribe(self, topic_filter: str) -> bool:
        return True


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., InProcess]]:
    """Installations in this process with the brokers north and south; not started."""
    monkeypatch.setattr(proving, "RETRY_S", 0.2)
    made: list[InProcess] = []

    def make(**settings: Any) -> InProcess:
        made.append(InProcess(tmp_path / f"installation-{len(made)}", brokers=("north", "south"), **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def until(reached: Callable[[], Any], what: str) -> Any:
    deadline_s = time.monotonic() + SOON_S
    while not (value := reached()):
        assert time.monotonic() < deadline_s, what
        time.sleep(0.05)
    return value


def test_a_broker_that_leaks_is_not_used_where_that_is_refused(
    make: Callable[..., InProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices of its accounts get busy, and nothing is granted; those of other brokers pass. Once it keeps devices
    apart it is used, without a restart."""
    inside = make(selftest_at_start="refuse")
    leaky = inside.embedded("south", Leaky)
    inside.serve(monkeypatch, {"north": inside.embedded("north"), "south": leaky})
    refused = until(
        lambda: "leaks" in inside.ask("status")["brokers_refused"].get("south", "") and inside.ask("status"),
        "no verdict",
    )
    assert set(refused["brokers_refused"]) == {"south"}
    assert "write-other" in refused["brokers_refused"]["south"]
    assert refused["isolation"]["account broker south"]["result"].startswith("leaks: read-retained")
    inside.account("acme", "south")
    inside.account("bolt", "north")
    assert inside.ask("account.show", id="acme")["broker_refused"] == refused["brokers_refused"]["south"]
    inside.provision(inside.request("gw1", "bolt"), broker="north")
    waiting = inside.request("gw2", "acme")
    with inside.device(waiting) as device:
        answer = device.ask()
        assert answer["status"] == "busy"
        assert answer["retry_after_s"] > 0
        (busy,) = inside.await_audit("provision.busy", client_id="gw2")
        assert "account broker south is not used" in busy["details"]["cause"]
        assert "write-other" in busy["details"]["cause"]
        assert inside.state("gw2") == "pending"
        alert = inside.await_audit("alert.isolation")[0]
        assert (alert["subject"], alert["outcome"], alert["details"]["used"]) == (
            "account broker south",
            "failed",
            False,
        )
        leaky.leaks = False
        until(lambda: not inside.ask("status")["brokers_refused"], "it is still refused")
        assert inside.await_audit("isolation.restored", subject="account broker south")
        assert device.ask("m-2")["status"] == "provisioned"


def test_users_of_a_refused_broker_come_back_with_it(
    make: Callable[..., InProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that starts to leak later is not used from the next self-test on: its devices may still be disabled
    there, but none is let in anew."""
    inside = make(selftest_at_start="refuse")
    leaky = inside.embedded("south", Leaky)
    leaky.leaks = False
    monkeypatch.setattr(proving, "RETRY_S", 600.0)
    inside.serve(monkeypatch, {"north": inside.embedded("north"), "south": leaky})
    until(lambda: not inside.ask("status")["brokers_refused"], "not used at all")
    inside.account("acme", "south")
    inside.provision(inside.request("gw1"), broker="south")
    (username,) = inside.users_of("gw1")
    leaky.leaks = True
    assert inside.ask("selftest", patience_s=60)["ok"] is False
    assert "south" in inside.ask("status")["brokers_refused"]
    inside.ask("device.disable", id="gw1")
    user = leaky._book.get(username)
    assert user is not None
    assert user.enabled is False
    inside.ask("device.enable", id="gw1")
    user = leaky._book.get(username)
    assert user is not None
    assert user.enabled is False
    leaky.leaks = False
    assert inside.ask("selftest", patience_s=60)["ok"] is True
    user = until(lambda: (known := leaky._book.get(username)) and known.enabled and known, "it does not come back")
    assert inside.ask("status")["brokers_refused"] == {}


def test_a_leak_is_told_and_the_broker_used_where_that_is_a_warning(
    make: Callable[..., InProcess], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """warn: an alert in the audit log and an error in the log name the rule, and devices go on."""
    inside = make(selftest_at_start="warn")
    inside.serve(monkeypatch, {"north": inside.embedded("north"), "south": inside.embedded("south", Leaky)})
    (alert,) = inside.await_audit("alert.isolation", timeout_s=SOON_S)
    assert alert["subject"] == "account broker south"
    assert alert["details"]["used"] is True
    assert {"read-other", "write-other", "will-retained"} <= set(alert["details"]["rules"])
    told = [record.getMessage() for record in caplog.records if record.name == "provisioner.services.proving"]
    assert [line for line in told if "write-other" in line and "To do: " in line]
    inside.account("acme", "south")
    inside.provision(inside.request("gw1"), broker="south")


def test_a_gate_that_leaks_ends_the_service_where_that_is_refused(
    make: Callable[..., InProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no other gate to use: the service ends, and says which rule leaked at which listener."""
    monkeypatch.setattr(broker.connection, "may_publish", lambda rights, permitted, topic: True)
    inside = make(selftest_at_start="refuse")
    service = inside.serve(monkeypatch)
    error = until(service.failed, "it goes on")
    assert isinstance(error, proving.GateLeaks)
    assert str(error).startswith("gate plain leaks: write-other; nobody is served")


def test_a_broker_that_cannot_be_reached_is_not_proved_and_not_accused(
    make: Callable[..., InProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing leaked there, so that a broker in use stays in use; one that was never proved waits. No user is left."""
    inside = make(selftest_at_start="refuse")
    south = inside.embedded("south")
    (elsewhere,) = free_ports(1)
    inside.account_brokers["south"] = inside.account_brokers["south"].__class__(elsewhere)
    inside.serve(monkeypatch, {"north": inside.embedded("north"), "south": south})
    why = until(lambda: "connect" in (text := inside.ask("status")["brokers_refused"].get("south", "")) and text, "no")
    assert why.startswith("its isolation is not proved yet: not tried: a device with valid credentials cannot connect")
    report = inside.prove()["account broker south"]
    assert report.leaks == []
    assert [(verdict.rule, verdict.held) for verdict in report.verdicts] == [("own-topics", None)]
    until(lambda: south._book.all() == [], "its users are left")  # it is tried again and again meanwhile
    assert inside.audit("alert.isolation") == []
    assert inside.prove()["account broker north"].holds
    assert set(inside.ask("status")["brokers_refused"]) == {"south"}


def test_what_a_crash_left_of_a_selftest_is_cleared_away(
    make: Callable[..., InProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users of an interrupted self-test go at the next start, whatever the setting, and at the next self-test; in the
    meantime they are no inconsistency."""
    inside = make()
    south = inside.embedded("south")
    south._book.put(LEFT_OVER)
    inside.serve(monkeypatch, {"north": inside.embedded("north"), "south": south})
    until(lambda: south._book.all() == [], "it is still there")
    south._book.put(LEFT_OVER)
    assert inside.ask("fsck")["findings"] == []
    assert "south" not in inside.ask("status")["isolation"]
    assert inside.prove()["account broker south"].holds
    assert south._book.all() == []


def test_no_account_has_the_name_of_a_selftests(
    make: Callable[..., InProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its users would be cleared away with what is left of self-tests."""
    inside = make()
    inside.serve(monkeypatch)
    with pytest.raises(Refused, match="reserved"):
        inside.account(LEFT_OVER.account, "south")
    inside.account("fleetgate-selftest-plant", "south")


def test_the_setting_is_a_word_and_init_chooses_to_warn(tmp_path: Path) -> None:
    """YAML reads a bare ``off`` as false; it means off here. A new installation warns."""
    run_cli("init", str(tmp_path / "made"))
    file = tmp_path / "made" / "fleetgate.yaml"
    assert config.read(file, {}).selftest_at_start is AtStart.WARN
    values = yaml.safe_load(file.read_text())
    for given, read in (("off", AtStart.OFF), (False, AtStart.OFF), ("refuse", AtStart.REFUSE)):
        file.write_text(json.dumps(values | {"selftest_at_start": given}))
        assert config.read(file, {}).selftest_at_start is read
    file.write_text(file.read_text().replace('"refuse"', "off"))
    assert config.read(file, {}).selftest_at_start is AtStart.OFF
    file.write_text(json.dumps(values | {"selftest_at_start": "perhaps"}))
    with pytest.raises(InvalidInput, match="selftest_at_start"):
        config.read(file, {})
