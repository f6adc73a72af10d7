"""The administrators' door: requests, alone and many at once."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from provisioner.doors import control_listings, control_verbs
from provisioner.model.errors import Unavailable
from provisioner.model.ports import Unit
from provisioner.model.request import ProvisionRequest
from tests.rules.admin_desk import Desk, at_desk, every, open_desk, refused, stored

CANARY = "Canary-Pass-word1"


@at_desk
async def test_ec16_activation_key_and_password_are_shown_once(desk: Desk) -> None:
    """EC-15, EC-16: generated secrets are in the answer that made them, and in no later one."""
    made = await desk.request(activation_key=True)
    assert set(made["secrets"]) == {"password", "activation_key"}
    assert made["activation_key"] is True
    shown = await desk.ask("request.show", id="gw1")
    assert "secrets" not in shown
    assert (await desk.request("gw2"))["activation_key"] is False
    everything = json.dumps([shown, await desk.ask("request.page"), await desk.ask("audit.page")])
    assert not any(secret in everything for secret in made["secrets"].values())


@at_desk
async def test_given_password_does_not_come_back(desk: Desk) -> None:
    """A password that the administrator brought is not repeated to him."""
    made = await desk.request(password=CANARY)
    assert made["secrets"] == {}
    assert CANARY not in json.dumps(made)


@at_desk
async def test_f39_no_secret_leaves_by_any_reading_verb(desk: Desk) -> None:
    """F-39, D7: verifiers, sealed answers and passwords are in no answer, whatever is asked."""
    made = await desk.request(activation_key=True, password=CANARY)
    answer = await desk.grant(made)
    stored_request = await desk.platform.store.get(ProvisionRequest, made["id"])
    assert answer.delivery is not None
    assert stored_request is not None
    assert stored_request.grant is not None
    assert stored_request.key_verifier is not None
    assert stored_request.grant.sealed is not None
    secrets = (
        CANARY,
        made["secrets"]["activation_key"],
        answer.delivery.password.reveal(),
        stored_request.key_verifier,
        stored_request.grant.sealed,
        "hmac1$",
        "gcm1$",
        "$argon2id$",
    )
    user = answer.delivery.username
    told = [
        await desk.ask(verb, **params)
        for verb, params in (
            *(("request.show", {"id": "gw1"}), ("request.page", {}), ("request.explain", {"id": "gw1"})),
            *(("request.preview", {"id": "gw1"}), ("device.show", {"id": "gw1"}), ("device.page", {})),
            *(("user.page", {"account": "acme"}), ("user.page", {"account": "provision"}), ("audit.page", {})),
            *(("user.show", {"account": "acme", "username": user}), ("account.page", {}), ("status", {})),
            *(("selftest", {}), ("fsck", {}), ("audit.wait", {"after": 0})),
        )
    ]
    text = json.dumps(told)
    assert [secret for secret in secrets if secret in text] == []


@at_desk
async def test_every_broken_rule_is_reported_at_once(desk: Desk) -> None:
    """EC-06, EC-09, EC-13, EC-14, EC-18, EC-23: one answer names each field and rule, and nothing is stored."""
    before = await stored(desk)
    error = await refused(
        desk.request("", username="ab", password="short", endpoint="http://x", expires_on="2001-01-01T00:00:00Z")
    )
    assert error["kind"] == "invalid_input"
    fields = [problem["field"] for problem in error["problems"]]
    assert set(fields) == {"client_id", "username", "password", "endpoint", "expires_on"}
    assert fields.count("password") == 3  # twelve characters, upper case, special
    assert "short" not in json.dumps(error)
    assert await stored(desk) == before


@at_desk
async def test_ec07_second_open_request_of_a_client_id_conflicts(desk: Desk) -> None:
    """EC-07: the answer is a conflict that names the holder; once that is revoked, the id is free."""
    made = await desk.request("gw1")
    error = await refused(desk.request("gw1", username="other"))
    assert error["kind"] == "conflict"
    assert made["id"] in error["message"]
    await desk.ask("request.revoke", id="gw1")
    assert (await desk.request("gw1", username="other"))["state"] == "pending"


@at_desk
async def test_ec12_one_pair_for_all_requests_of_an_account(desk: Desk) -> None:
    """EC-12: one username and password back many requests; another password for it conflicts."""
    for number in range(20):
        await desk.request(f"gw{number}", username="shared", password=CANARY, activation_key=True)
    error = await refused(desk.request("gw99", username="shared", password="Another-Pass1", activation_key=True))
    assert error["kind"] == "conflict"
    assert (await desk.platform.store.count(ProvisionRequest, where={"username": "shared"})) == 20


@at_desk
async def test_ec19_ec21_window_defaults_to_now_and_never(desk: Desk) -> None:
    """EC-19, EC-21: without instants a request is active from now on and never expires."""
    made = await desk.request()
    age = datetime.now(UTC) - datetime.fromisoformat(made["activates_on"])
    assert timedelta(0) <= age < timedelta(seconds=1)
    assert made["expires_on"] is None
    assert made["phase"] == "active"


@at_desk
async def test_phases_can_be_listed(desk: Desk) -> None:
    """D5: scheduled, active and waiting are not stored, and yet found; listings go on over pages without a match."""
    future = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    for number in range(6):
        await desk.request(f"now{number}")
    await desk.request("later", activates_on=future)
    await desk.request("asking", require_approval=True)
    for state, expected in (
        ("scheduled", {"later"}),
        ("waiting", {"asking"}),
        ("active", {f"now{n}" for n in range(6)}),
    ):
        assert {request["client_id"] for request in await every(desk, "request.page", limit=2, state=state)} == expected
    assert len(await every(desk, "request.page", limit=3, state="pending")) == 8


@at_desk
async def test_filters_narrow_a_listing_together(desk: Desk) -> None:
    """Account, username, client id and state are asked for together."""
    await desk.account("globex")
    await desk.request("gw1")
    await desk.request("gw2")
    await desk.request("gw3", account="globex")
    for filters, expected in (
        ({"account": "acme"}, {"gw1", "gw2"}),
        ({"account": "acme", "client_id": "gw2"}, {"gw2"}),
        ({"account": "globex", "client_id": "gw2"}, set()),
        ({"username": "user-gw3", "state": "pending"}, {"gw3"}),
    ):
        assert {request["client_id"] for request in await every(desk, "request.page", **filters)} == expected


def test_page_is_cut_before_its_answer_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page holds what one connection may have unacknowledged, at least one record, and goes on where it was cut."""

    async def walk() -> None:
        async with open_desk(tmp_path) as desk:
            await desk.account()
            for number in range(9):
                await desk.request(f"gw{number}", configuration={"pid": {"text": "x" * 700}})
            monkeypatch.setattr(control_listings, "PAGE_BYTES_MAX", 3_000)
            first = await desk.ask("request.page", limit=100)
            assert 1 <= len(first["items"]) < 9
            found = await every(desk, "request.page", limit=100)
            assert sorted(request["client_id"] for request in found) == [f"gw{number}" for number in range(9)]
            monkeypatch.setattr(control_listings, "PAGE_BYTES_MAX", 10)
            assert len((await desk.ask("request.page"))["items"]) == 1
            seqs = [row["seq"] for row in await every(desk, "audit.page", limit=4)]
            assert seqs == list(range(1, 11))

    asyncio.run(walk())


@at_desk
async def test_update_changes_the_named_fields_only(desk: Desk) -> None:
    """A field that is not named stays; one that is named as null goes."""
    await desk.request(expires_on="2099-01-01T00:00:00Z", max_attempts=3, endpoint="mqtts://there.example")
    updated = await desk.ask("request.update", id="gw1", fields={"max_attempts": 5, "endpoint": None})
    assert updated["max_attempts"] == 5
    assert updated["endpoint"] is None
    assert updated["expires_on"] == "2099-01-01T00:00:00+00:00"


@at_desk
async def test_revoke_cuts_the_connection_at_the_gate(desk: Desk) -> None:
    """F-08: revoking and deleting close the connection of the request."""
    first, second = await desk.request("gw1"), await desk.request("gw2")
    assert (await desk.ask("request.revoke", id="gw1"))["state"] == "revoked"
    await desk.ask("request.delete", id=second["id"])
    assert desk.cuts == [first["id"], second["id"]]
    assert (await refused(desk.ask("request.show", id="gw2")))["kind"] == "not_found"


@at_desk
async def test_rearm_opens_a_request_again(desk: Desk) -> None:
    """A confirmed request is re-armed for new credentials; a pending one is simply armed once more."""
    await desk.confirm(await desk.grant(await desk.request()))
    assert (await desk.ask("request.show", id="gw1"))["state"] == "confirmed"
    armed = await desk.ask("request.rearm", id="gw1")
    assert (armed["state"], armed["arm"], armed["grant"]) == ("pending", 2, None)


@at_desk
async def test_approval_is_given_and_taken(desk: Desk) -> None:
    """A request that waits is approved or rejected; one that does not wait conflicts."""
    await desk.request("asking", require_approval=True)
    await desk.request("free")
    assert (await desk.ask("request.reject", id="asking"))["approval"] == "rejected"
    assert (await desk.ask("request.approve", id="asking"))["approval"] == "approved"
    assert (await refused(desk.ask("request.approve", id="free")))["kind"] == "conflict"


@at_desk
async def test_ec22_ec24_explain_walks_every_check_at_any_instant(desk: Desk) -> None:
    """EC-20, EC-22, EC-24: at the opening instant it is granted, at the closing one refused as expired."""
    await desk.request(activates_on="2030-01-01T00:00:00Z", expires_on="2030-02-01T00:00:00Z")
    for at, status in (
        ("2029-12-31T23:59:59Z", "not_yet_active"),
        ("2030-01-01T00:00:00Z", None),
        ("2030-01-31T23:59:59.999999Z", None),
        ("2030-02-01T01:00:00+01:00", "expired"),
    ):
        told = await desk.ask("request.explain", id="gw1", at=at)
        assert (told["refusal"] or {}).get("status") == status, at
        assert told["granted"] is (status is None)
        assert sum(not check["passed"] for check in told["checks"]) == (0 if status is None else 1)
    assert (await desk.ask("request.explain", id="gw1"))["refusal"]["reason"] == "not_yet_active"


@at_desk
async def test_ec29_preview_and_creation_warn_of_what_is_overridden(desk: Desk) -> None:
    """EC-29: the five parameters are the gate's in the preview, and the attempt to set them is named."""
    evil = {"org.eclipse.kura.core.data.transport.mqtt.MqttDataTransport": {"broker-url": "evil", "password": CANARY}}
    made = await desk.request(configuration=evil)
    assert sum("overridden" in warning for warning in made["warnings"]) == 2
    preview = await desk.ask("request.preview", id="gw1")
    text = json.dumps(preview["configuration"])
    assert "evil" not in text
    assert CANARY not in text
    assert len(preview["overridden"]) == 2


@at_desk
async def test_ec41_import_reports_row_by_row(desk: Desk) -> None:
    """EC-41, ID-11: good rows are made with their secrets, bad ones reported by line; none stops another."""
    rows = [
        [2, {"account": "acme", "client_id": "gw1", "username": "user-1"}],
        [3, {"account": "acme", "client_id": "gw1", "username": "user-2"}],
        [4, {"account": "nobody", "client_id": "gw4", "username": "user-4"}],
        [5, {"account": "acme", "client_id": "g/w", "username": "x", "colour": "red"}],
        [6, {"account": "acme", "client_id": "gw6", "username": "user-6", "activation_key": "yes"}],
    ]
    results = (await desk.ask("request.import", rows=rows))["rows"]
    assert [(result["line"], result["ok"]) for result in results] == [
        (2, True),
        (3, False),
        (4, False),
        (5, False),
        (6, True),
    ]
    assert set(results[4]["secrets"]) == {"password", "activation_key"}
    assert results[1]["error"]["kind"] == "conflict"
    assert {problem["field"] for problem in results[3]["error"]["problems"]} == {"client_id", "username", "colour"}
    assert await desk.platform.store.count(ProvisionRequest) == 2


@pytest.mark.parametrize("dry_run", [False, True])
def test_import_answers_for_the_rows_it_got_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry_run: bool) -> None:
    """When time or room runs out the rest is left to be sent again: no row's secret is ever lost, and no trial of
    many passwords outlasts the asker."""

    async def walk() -> None:
        async with open_desk(tmp_path) as desk:
            await desk.account()
            rows = [[n, {"account": "acme", "client_id": f"gw{n}", "username": f"user-{n}"}] for n in range(5)]
            monkeypatch.setattr(control_verbs, "IMPORT_SLICE", 1)
            monkeypatch.setattr(control_listings, "PAGE_BYTES_MAX", 600)
            results = (await desk.ask("request.import", rows=rows, dry_run=dry_run))["rows"]
            assert 1 <= len(results) < 5
            monkeypatch.setattr(control_listings, "PAGE_BYTES_MAX", 100_000)
            monkeypatch.setattr(control_verbs, "IMPORT_S_MAX", -1.0)
            more = (await desk.ask("request.import", rows=rows[len(results) :], dry_run=dry_run))["rows"]
            assert [row["line"] for row in more] == [len(results)]
            made = 0 if dry_run else len(results) + 1
            assert await desk.platform.store.count(ProvisionRequest) == made

    asyncio.run(walk())


def test_import_tells_what_was_made_before_the_store_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that fails behind the second row does not take the first one's secrets with it."""

    async def walk() -> None:
        async with open_desk(tmp_path) as desk:
            await desk.account()
            rows = [[n, {"account": "acme", "client_id": f"gw{n}", "username": f"user-{n}"}] for n in range(3)]
            store = desk.platform.store
            commit, left = store.commit, [2]

            async def failing(unit: Unit) -> int:
                left[0] -= 1
                if left[0] < 0:
                    raise Unavailable("the disk is full")
                return await commit(unit)

            monkeypatch.setattr(store, "commit", failing)
            monkeypatch.setattr(control_verbs, "IMPORT_SLICE", 1)
            results = (await desk.ask("request.import", rows=rows))["rows"]
            assert [(result["line"], "password" in result["secrets"]) for result in results] == [(0, True), (1, True)]
            assert (await refused(desk.ask("request.import", rows=rows[2:])))["kind"] == "unavailable"

    asyncio.run(walk())
