"""The administrators' door: envelopes, parameters, what every verb keeps, and how it fails."""

import asyncio
import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from provisioner.doors.control_verbs import VERBS
from provisioner.model.audit import AuditEvent
from provisioner.model.ports import Unit
from tests.rules.admin_desk import ADMIN, BROKER, Desk, at_desk, every, open_desk, refused, stored

CANARY = "Canary-Pass-word1"


CANARY = "Canary-Pass-word1"
WRITING = {
    *("account.create", "account.update", "account.delete", "request.create", "request.update", "request.delete"),
    *("request.revoke", "request.rearm", "request.approve", "request.reject", "request.import"),
    *("device.enable", "device.disable", "device.revoke", "device.kick"),
}


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
    assert status["epoch"] == 1


@at_desk
async def test_a_backup_goes_to_an_absolute_path(desk: Desk) -> None:
    """F-40: the service writes it, so where it stands must not matter; who made it is told in the audit log."""
    await desk.request("gw1")
    for target in ("plant.backup", "", "/a\0b"):
        assert (await refused(desk.ask("store.backup", target=target)))["kind"] == "invalid_input", target
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/plant.backup"
        written = await desk.ask("store.backup", target=path)
    assert written["target"] == path
    assert written["records"]["request"] == 1
    row = (await desk.platform.store.audit_page(limit=1, newest_first=True))[0]
    assert (row.action, row.actor, row.subject) == ("store.backup", ADMIN, "plant.backup")


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
