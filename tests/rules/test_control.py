"""The administrators' door: envelopes, every verb, and what never comes out of it."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from provisioner.doors import control_listings, control_verbs
from provisioner.doors.control_verbs import VERBS
from provisioner.model.audit import AuditEvent
from provisioner.model.errors import Unavailable
from provisioner.model.ports import Unit
from provisioner.model.request import ProvisionRequest
from tests.rules.admin_desk import ADMIN, BROKER, Desk, NotDone, open_desk

CANARY = "Canary-Pass-word1"
WRITING = {
    *("account.create", "account.update", "account.delete", "request.create", "request.update", "request.delete"),
    *("request.revoke", "request.rearm", "request.approve", "request.reject", "request.import"),
    *("device.enable", "device.disable", "device.revoke", "device.kick"),
}


def at_desk(test: Callable[[Desk], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    """Run an asynchronous test on a desk of its own, with an account."""

    def run(tmp_path: Path) -> None:
        async def opened() -> None:
            async with open_desk(tmp_path) as desk:
                await desk.account()
                await test(desk)

        asyncio.run(opened())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def refused(asking: Coroutine[Any, Any, Any]) -> dict[str, Any]:
    """The error that the door answered with."""
    with pytest.raises(NotDone) as caught:
        await asking
    return caught.value.error


async def stored(desk: Desk) -> tuple[int, int]:
    """How many requests there are, and how long the audit log is."""
    rows = await desk.platform.store.audit_page(limit=1, newest_first=True)
    return await desk.platform.store.count(ProvisionRequest), rows[0].seq if rows else 0


BAD_ENVELOPES = (
    (b"", "JSON"),
    (b"\xff\xfe", "UTF-8"),
    (b"[]", "object of id, verb and params"),
    (b'{"id":"1","verb":"status","extra":1}', "object of id, verb and params"),
    (b'{"id":"1","id":"2","verb":"status"}', "repeat a key"),
    (b'{"id":"1","verb":"status","params":{"x":NaN}}', "NaN"),
    (b'{"id":1,"verb":"status"}', "id must be text"),
    (b'{"id":"","verb":"status"}', "id must be text"),
    (b'{"id":"' + b"9" * 65 + b'","verb":"status"}', "id must be text"),
    (b'{"verb":"status"}', "id must be text"),
    (b'{"id":"1","verb":"status","params":{"x":"' + b"x" * 4_000_000 + b'"}}', "at most 4000000 bytes"),
    (b'{"id":"1","verb":"status","params":' + b"[" * 41 + b"]" * 41 + b"}", "levels deep"),
)


@at_desk
async def test_f37_envelope_that_is_none_is_answered_as_usage(desk: Desk) -> None:
    """F-37: whatever the bytes are, the answer is an error that names the rule and shows nothing of them."""
    for payload, told in BAD_ENVELOPES:
        answer = json.loads(await desk.control.answer(ADMIN, payload))
        assert answer["ok"] is False
        assert answer["error"]["kind"] == "usage", payload[:80]
        assert told in answer["error"]["message"], payload[:80]


@at_desk
async def test_verb_that_does_not_exist_is_answered_with_those_that_do(desk: Desk) -> None:
    """An unknown verb is usage, and keeps the id of its question."""
    for verb in ("request.explode", "", None, 7):
        answer = json.loads(await desk.control.answer(ADMIN, json.dumps({"id": "q", "verb": verb}).encode()))
        assert answer["id"] == "q"
        assert answer["error"]["kind"] == "usage"
        assert "request.create" in answer["error"]["message"]


@at_desk
async def test_every_verb_refuses_parameters_that_it_does_not_know(desk: Desk) -> None:
    """A misspelt parameter is never dropped in silence, whichever verb it is given to."""
    for verb in VERBS:
        error = await refused(desk.ask(verb, dry_rum=True))
        assert error["kind"] == "invalid_input", verb
        assert "dry_rum" in {problem["field"] for problem in error["problems"]}, verb


@at_desk
async def test_every_verb_names_the_parameters_that_are_missing(desk: Desk) -> None:
    """What a verb cannot do without is asked for by name, all of it at once."""
    for verb, missing in (
        ("user.show", {"account", "username"}),
        ("account.update", {"id", "fields"}),
        ("request.import", {"rows"}),
        ("device.kick", {"id"}),
    ):
        error = await refused(desk.ask(verb))
        assert {problem["field"] for problem in error["problems"]} == missing


BAD_PARAMS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("request.page", {"limit": 0}, "limit"),
    ("request.page", {"limit": 1_001}, "limit"),
    ("request.page", {"limit": True}, "limit"),
    ("request.page", {"state": "no-such-state"}, "state"),
    ("device.page", {"state": "active"}, "state"),
    ("request.page", {"account": 7}, "account"),
    ("audit.page", {"after": -1}, "after"),
    ("audit.wait", {"wait_s": 21}, "wait_s"),
    ("request.create", {"fields": []}, "fields"),
    ("request.import", {"rows": []}, "rows"),
    ("request.import", {"rows": [[1, {}]] * 1_001}, "rows"),
    ("request.import", {"rows": [["1", {}]]}, "rows[0]"),
    ("request.import", {"rows": [[1, {}], [True, {}]]}, "rows[1]"),
    ("request.import", {"rows": [{"line": 1}]}, "rows[0]"),
    ("request.explain", {"id": "gw1", "at": "yesterday"}, "at"),
    ("request.delete", {"id": "gw1", "dry_run": "perhaps"}, "dry_run"),
)


@at_desk
async def test_parameter_of_the_wrong_shape_is_named(desk: Desk) -> None:
    """A parameter that is out of range or of another type is refused by name, and nothing is done."""
    await desk.request()
    before = await stored(desk)
    for verb, params, field in BAD_PARAMS:
        error = await refused(desk.ask(verb, **params))
        assert error["kind"] == "invalid_input", (verb, params)
        assert [problem["field"] for problem in error["problems"]] == [field], (verb, params)
    assert await stored(desk) == before


@at_desk
async def test_params_that_are_no_object_are_refused(desk: Desk) -> None:
    """The parameters are an object or left out."""
    answer = json.loads(await desk.control.answer(ADMIN, b'{"id":"1","verb":"status","params":[]}'))
    assert answer["error"]["problems"][0]["field"] == "params"


@at_desk
async def test_status_counts_what_there_is(desk: Desk) -> None:
    """Status tells the service's own figures and how many records there are of each kind."""
    confirmed, granted = await desk.request("gw1"), await desk.request("gw2")
    await desk.request("gw3")
    await desk.confirm(await desk.grant(confirmed))
    await desk.grant(granted)
    status = await desk.ask("status")
    assert status["uptime_s"] == 7
    assert status["requests"] == {"pending": 1, "granted": 1, "confirmed": 1, "revoked": 0}
    assert (status["accounts"], status["devices"], status["effects_waiting"]) == (1, 2, 0)
    assert status["audit_seq"] == (await stored(desk))[1]


@at_desk
async def test_ec11_provision_user_is_seen_in_the_provision_account(desk: Desk) -> None:
    """EC-11: a request's username is a user of the provision account, owned by one account."""
    await desk.request(username="lobby")
    page = await desk.ask("user.page", account="provision")
    assert [(user["username"], user["account"], user["kind"]) for user in page["items"]] == [
        ("lobby", "acme", "provision")
    ]
    assert (await desk.ask("user.show", account="provision", username="lobby"))["account"] == "acme"
    await desk.account("globex")
    error = await refused(desk.request("gw2", account="globex", username="lobby"))
    assert error["kind"] == "conflict"


@at_desk
async def test_ec31_account_user_may_exactly_connect(desk: Desk) -> None:
    """EC-31: the user that a grant makes is shown in its account with broker:connect and nothing else."""
    answer = await desk.grant(await desk.request())
    assert answer.delivery is not None
    user = await desk.ask("user.show", account="acme", username=answer.delivery.username)
    assert user["permissions"] == ["broker:connect"]
    assert [u["username"] for u in (await desk.ask("user.page", account="acme"))["items"]] == [answer.delivery.username]


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


async def every(desk: Desk, verb: str, **params: Any) -> list[dict[str, Any]]:
    """All items of a listing, page after page."""
    items, after = [], None
    while True:
        page = await desk.ask(verb, after=after, **params)
        items += page["items"]
        if (after := page["after"]) is None:
            return items


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


def test_import_answers_for_the_rows_it_got_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When time or room runs out the rest is left to be sent again: no row's secret is ever lost."""

    async def walk() -> None:
        async with open_desk(tmp_path) as desk:
            await desk.account()
            rows = [[n, {"account": "acme", "client_id": f"gw{n}", "username": f"user-{n}"}] for n in range(5)]
            monkeypatch.setattr(control_verbs, "IMPORT_SLICE", 1)
            monkeypatch.setattr(control_listings, "PAGE_BYTES_MAX", 600)
            results = (await desk.ask("request.import", rows=rows))["rows"]
            assert 1 <= len(results) < 5
            monkeypatch.setattr(control_listings, "PAGE_BYTES_MAX", 100_000)
            monkeypatch.setattr(control_verbs, "IMPORT_S_MAX", -1.0)
            more = (await desk.ask("request.import", rows=rows[len(results) :]))["rows"]
            assert [row["line"] for row in more] == [len(results)]
            assert await desk.platform.store.count(ProvisionRequest) == len(results) + 1

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


@at_desk
async def test_dry_run_of_every_writing_verb_changes_nothing(desk: Desk) -> None:
    """Every verb that writes takes dry_run, answers as if it had been done, and leaves no trace."""
    await desk.confirm(await desk.grant(await desk.request("gw1")))
    await desk.request("asking", require_approval=True)
    await desk.account("empty")
    fields = {"account": "acme", "client_id": "new", "username": "new-user"}
    params: dict[str, dict[str, Any]] = {
        "account.create": {"fields": {"name": "newer", "broker": BROKER}},
        "account.update": {"id": "acme", "fields": {"enabled": False}},
        "account.delete": {"id": "empty"},
        "request.create": {"fields": fields},
        "request.update": {"id": "asking", "fields": {"max_attempts": 2}},
        "request.delete": {"id": "asking"},
        "request.revoke": {"id": "asking"},
        "request.rearm": {"id": "gw1"},
        "request.approve": {"id": "asking"},
        "request.reject": {"id": "asking"},
        "request.import": {"rows": [[1, fields]]},
        "device.enable": {"id": "gw1"},
        "device.disable": {"id": "gw1"},
        "device.revoke": {"id": "gw1"},
        "device.kick": {"id": "gw1"},
    }
    assert params.keys() == WRITING
    for state, verbs in (("connected", WRITING - {"device.enable"}), ("disabled", {"device.enable"})):
        before, users = await everything(desk), dict(desk.broker.known)
        assert f'"state": "{state}"' in before
        for verb in verbs:
            told = await desk.ask(verb, dry_run=True, **params[verb])
            assert "Fg-" not in json.dumps(told), f"{verb} showed a secret that opens nothing"
        assert await everything(desk) == before
        assert desk.broker.known == users
        assert (desk.cuts, desk.broker.kicked) == ([], [])
        if state == "connected":
            await desk.ask("device.disable", id="gw1")
            desk.cuts.clear()


async def everything(desk: Desk) -> str:
    """What an administrator can see of all records, and the audit log."""
    listed = [await every(desk, verb) for verb in ("account.page", "request.page", "device.page", "audit.page")]
    return json.dumps([*listed, await every(desk, "user.page", account="acme")])


@at_desk
async def test_device_is_disabled_enabled_and_kicked(desk: Desk) -> None:
    """AZ-05: disabling reaches the account broker with the answer; kicking says whether anybody was there."""
    answer = await desk.grant(await desk.request())
    assert answer.delivery is not None
    user = ("acme", answer.delivery.username)
    assert (await desk.ask("device.disable", id="gw1", account="acme"))["state"] == "disabled"
    assert desk.broker.known[user].enabled is False
    assert (await desk.ask("device.enable", id="gw1"))["state"] == "provisioned"
    assert desk.broker.known[user].enabled is True
    assert (await desk.ask("device.kick", id="gw1"))["cut"] is True
    assert (await refused(desk.ask("device.show", id="gw1", account="globex")))["kind"] == "not_found"


@at_desk
async def test_device_is_revoked(desk: Desk) -> None:
    """AZ-04: its account broker has forgotten it when the answer comes, its request is closed, and it is listed so."""
    await desk.grant(await desk.request())
    assert (await desk.ask("device.revoke", id="gw1", account="acme"))["state"] == "revoked"
    assert desk.broker.known == {}
    assert (await desk.ask("request.show", id="gw1"))["state"] == "revoked"
    assert [each["client_id"] for each in await every(desk, "device.page", state="revoked")] == ["gw1"]


@at_desk
async def test_what_an_accounts_broker_can_do_is_shown(desk: Desk) -> None:
    """EC-26: with the account and in the status, so that nobody expects of a broker what it cannot."""
    shown = (await desk.ask("account.show", id="acme"))["broker_capabilities"]
    assert {"kicks", "reports_sightings", "refuses_subscribe", "checks_client_id", "loose", "users_max"} <= shown.keys()
    assert (await desk.ask("status"))["account_brokers"] == {BROKER: shown}


@at_desk
async def test_account_lives_and_goes(desk: Desk) -> None:
    """An account is shown, changed and deleted; one that still has requests conflicts."""
    assert (await desk.ask("account.update", id="acme", fields={"coupling": "LOOSE"}))["coupling"] == "LOOSE"
    assert (await desk.ask("account.show", id="acme"))["coupling"] == "LOOSE"
    await desk.request()
    assert (await refused(desk.ask("account.delete", id="acme")))["kind"] == "conflict"
    await desk.ask("request.delete", id="gw1")
    await desk.ask("account.delete", id="acme")
    assert (await desk.ask("account.page"))["items"] == []


@at_desk
async def test_audit_is_read_by_page_and_by_kind(desk: Desk) -> None:
    """Rows come in order, each once, and can be narrowed to an action, a noun, an account or a client id."""
    await desk.request("gw1")
    await desk.request("gw2")
    await desk.ask("request.revoke", id="gw1")
    rows = await every(desk, "audit.page", limit=2)
    assert [row["seq"] for row in rows] == [1, 2, 3, 4]
    assert {row["actor"] for row in rows} == {ADMIN}
    for filters, expected in (
        ({"action": "request"}, [2, 3, 4]),
        ({"action": "request.revoke"}, [4]),
        ({"action": "requ"}, []),
        ({"client_id": "gw1"}, [2, 4]),
        ({"account": "globex"}, []),
    ):
        assert [row["seq"] for row in await every(desk, "audit.page", limit=2, **filters)] == expected, filters


@at_desk
async def test_audit_wait_returns_with_the_next_row(desk: Desk) -> None:
    """A long poll ends as soon as something happens, and says where the next one goes on."""
    start = (await desk.ask("audit.wait"))["after"]
    waiting = asyncio.create_task(desk.ask("audit.wait", after=start, wait_s=20))
    await asyncio.sleep(0)
    assert not waiting.done()
    await desk.request()
    page = await asyncio.wait_for(waiting, 5)
    assert [row["action"] for row in page["items"]] == ["request.create"]
    assert page["after"] == start + 1


@at_desk
async def test_audit_wait_ends_empty_when_nothing_happens(desk: Desk) -> None:
    """Without an event the answer is empty and comes when the time is over."""
    page = await asyncio.wait_for(desk.ask("audit.wait", wait_s=1), 5)
    assert page["items"] == []
    assert page["after"] == (await stored(desk))[1]


@at_desk
async def test_store_that_is_away_is_unavailable(desk: Desk) -> None:
    """A closed store answers unavailable to status, to reading and to writing."""
    await desk.platform.store.close()
    for verb, params in (
        ("status", {}),
        ("request.page", {}),
        ("account.create", {"fields": {"name": "new", "broker": BROKER}}),
    ):
        assert (await refused(desk.ask(verb, **params)))["kind"] == "unavailable", verb


def test_unforeseen_error_shows_its_type_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """F-39: what nobody foresaw becomes a failure that holds nothing of the values involved, in answer and log."""

    def broken() -> dict[str, Any]:
        raise KeyError(CANARY)

    async def walk() -> None:
        async with open_desk(tmp_path, status=broken) as desk:
            error = await refused(desk.ask("status"))
            assert error == {"kind": "failure", "message": "internal error: KeyError", "problems": []}

    asyncio.run(walk())
    assert "test_control.py" in caplog.text
    assert CANARY not in caplog.text


def test_limit_is_told_as_a_limit(tmp_path: Path) -> None:
    """A store that is full says so with a kind of its own, and what to do about it."""

    async def walk() -> None:
        async with open_desk(tmp_path, requests_max=1) as desk:
            await desk.account()
            await desk.request("gw1")
            error = await refused(desk.request("gw2"))
            assert error["kind"] == "limit"
            assert "fleetgate store migrate" in error["message"]

    asyncio.run(walk())


@at_desk
async def test_selftest_passes_on_a_sound_installation_and_names_what_is_not(desk: Desk) -> None:
    """Each part is tried; a broker that is away fails its own check and no other."""
    assert (await desk.ask("selftest"))["ok"] is True
    desk.broker.reachable = False
    result = await desk.ask("selftest")
    assert result["ok"] is False
    assert [check["name"] for check in result["checks"] if not check["passed"]] == [f"account broker {BROKER}"]


def test_f32_selftest_sees_a_clock_behind_the_log(tmp_path: Path) -> None:
    """F-32: when the newest audit row is of the future, the clock has jumped back, and the self-test says so."""
    now = datetime.now(UTC)

    async def walk() -> None:
        async with open_desk(tmp_path, now=lambda: now) as desk:
            later = AuditEvent(at=now + timedelta(hours=1), actor="gate", action="alert")
            await desk.platform.store.commit(Unit(audit=[later]))
            failed = [check for check in (await desk.ask("selftest"))["checks"] if not check["passed"]]
            assert [check["name"] for check in failed] == ["clock"]

    asyncio.run(walk())


def test_selftest_warns_of_an_authority_that_ends_soon(tmp_path: Path) -> None:
    """In the last thirty days of the authority's certificate its check fails; before that it passes."""
    made = datetime.now(UTC)

    async def failed(days: int) -> list[str]:
        (tmp_path / str(days)).mkdir()
        async with open_desk(tmp_path / str(days), now=lambda: made + timedelta(days=days)) as desk:
            return [check["name"] for check in (await desk.ask("selftest"))["checks"] if not check["passed"]]

    assert asyncio.run(failed(3_650 - 31)) == []
    assert asyncio.run(failed(3_650 - 29)) == ["authority"]
