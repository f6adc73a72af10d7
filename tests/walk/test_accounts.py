"""One gate in front of accounts that live on different brokers: who ends where, and what a new user may do there."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.packets import V5, V311, Version
from tests.support.device import Address, Wire, connect_to_account
from tests.support.installation import Installation, run_cli

FreshId = Callable[[], str]
HOMES = {"acme": "north", "bolt": "south"}


def test_ec_01_one_gate_serves_accounts_on_two_brokers(shared_installation: Installation, fresh_id: FreshId) -> None:
    """Devices of two accounts ask at one gate, which is neither's broker, and each ends on its own account's broker."""
    site = shared_installation
    answers = {}
    for account, home in HOMES.items():
        requested = site.request(fresh_id(), account)
        answers[account] = site.provision(requested, broker=home)
        (granted,) = site.audit("provision.granted", client_id=requested.client_id)
        assert granted["account"] == account
        with Wire(site.account_brokers[home]) as stranger:
            assert stranger.connect(requested.client_id, requested.username, requested.password) == 5
    ports = {name: address.port for name, address in site.account_brokers.items()}
    assert {account: answer["broker_url"] for account, answer in answers.items()} == {
        account: f"mqtts://localhost:{ports[home]}" for account, home in HOMES.items()
    }
    assert not set(ports.values()) & set(site.ask("status")["gate_ports"].values())
    for account, foreign in (("acme", "south"), ("bolt", "north")):
        with pytest.raises(ConnectionRefusedError):
            site.account_wire(answers[account], foreign)


def test_ec_11_a_username_belongs_to_one_account(shared_installation: Installation, fresh_id: FreshId) -> None:
    """Account B cannot reuse the username of account A, which is listed as a user of the provision account."""
    site, first, second = shared_installation, fresh_id(), fresh_id()
    taken = site.request(first, "acme")
    before = site.ask("status")["requests"]
    create = ("request", "create", "--account", "bolt", "--client-id", second, "--username", taken.username)
    assert "username" in site.cli(*create, status=5).stderr
    assert site.ask("status")["requests"] == before
    assert site.audit(client_id=second) == []
    users = json.loads(site.cli("user", "list", "--account", "provision").stdout)
    assert [user["account"] for user in users if user["username"] == taken.username] == ["acme"]
    assert taken.username not in site.cli("user", "list", "--account", "acme", "-q").stdout


def test_ec_30_a_device_lands_in_the_account_that_holds_its_request(
    shared_installation: Installation, fresh_id: FreshId
) -> None:
    """The delivered account is the request's, wherever it stands in the answer, and the user exists in it alone."""
    site, requested = shared_installation, shared_installation.request(fresh_id(), "bolt")
    answer = site.provision(requested, broker="south")
    assert answer["account"] == "bolt"
    transport = answer["configuration"]["org.eclipse.kura.core.data.transport.mqtt.MqttDataTransport"]
    assert transport["topic.context.account-name"] == "bolt"
    assert site.users_of(requested.client_id, "bolt") == [answer["username"]]
    assert site.users_of(requested.client_id, "acme") == []
    assert site.ask("device.show", id=requested.client_id)["account"] == "bolt"
    with connect_to_account(answer, site.account_brokers["south"]) as wire:
        own, foreign = f"bolt/{requested.client_id}/#", f"acme/{requested.client_id}/#"
        assert wire.subscribe(own, foreign) == (1, 0x80)


def test_ec_31_a_new_user_may_connect_and_no_more(
    shared_installation: Installation, fresh_id: FreshId, tmp_path: Path
) -> None:
    """The new user has exactly broker:connect: its account broker takes it, every administrators' door refuses it."""
    site, requested = shared_installation, shared_installation.request(fresh_id())
    answer = site.provision(requested, broker="north")
    user = json.loads(site.cli("user", "show", answer["username"], "--account", "acme").stdout)
    assert (user["permissions"], user["account"]) == (["broker:connect"], "acme")
    site.account_wire(answer, "north").leave()

    refusals: tuple[tuple[Version, int], ...] = ((V311, 5), (V5, 0x87))
    for version, code in refusals:
        with Wire(Address(site.admin_port), version) as wire:
            assert wire.connect(f"admin-{version}", answer["username"], answer["password"]) == code
    refused = site.await_audit("connect.refused", 2, username=answer["username"])
    assert {row["reason"] for row in refused} == {"admin_credential"}
    shutil.copy(site.config, tmp_path)
    credential = tmp_path / "admin-credential.json"
    credential.write_text(json.dumps({"name": answer["username"], "credential": answer["password"]}))
    credential.chmod(0o600)
    run_cli("account", "list", "-c", str(tmp_path / site.config.name), status=3)
