"""Drafts: every broken rule of every field at once, texts from CSV cells, and never a secret in a message."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from provisioner.model.account import Coupling
from provisioner.model.draft import CONFIGURATION_BYTES_MAX, RequestDraft, read_request, read_update
from provisioner.model.errors import InvalidInput
from provisioner.model.request import Package
from provisioner.model.secret import Secret
from tests.rules.nouns import HOUR, NOON

LEAST: Mapping[str, Any] = {"account": "acme", "client_id": "gw1", "username": "lobby"}
PACKAGE = {"name": "heater", "version": "1.0", "url": "https://h.example/heater.dp"}


def problems(raw: Mapping[str, Any]) -> list[str]:
    """The fields that are refused, one entry a broken rule."""
    with pytest.raises(InvalidInput) as refused:
        read_request(raw, NOON)
    return [problem.field for problem in refused.value.problems]


def draft(**raw: Any) -> RequestDraft:
    return read_request({**LEAST, **raw}, NOON)


def test_three_fields_make_a_request() -> None:
    """EC-06, EC-15, EC-19, EC-21: account, client id and username are required, everything else has a default."""
    assert draft() == RequestDraft(account="acme", client_id="gw1", username="lobby")


def test_every_field_arrives() -> None:
    """EC-06 to EC-29: what is given is what the draft holds."""
    made = draft(
        password="Abcdefghijk!",
        activation_key=True,
        endpoint="mqtts://b.example",
        activates_on="2026-03-01T13:00:00+01:00",
        expires_on="2026-03-02T12:00:00Z",
        reserve_user=True,
        coupling="LOOSE",
        configuration={"pid": {"x": None}},
        packages=[PACKAGE | {"sha256": "Ab" * 32}],
        max_attempts=3,
        require_approval=True,
    )
    assert made == RequestDraft(
        **LEAST,
        password=Secret("Abcdefghijk!"),
        activation_key=True,
        endpoint="mqtts://b.example",
        activates_on=NOON,
        expires_on=NOON + 24 * HOUR,
        reserve_user=True,
        coupling=Coupling.LOOSE,
        configuration={"pid": {"x": None}},
        packages=(Package(**PACKAGE, sha256="Ab" * 32),),
        max_attempts=3,
        require_approval=True,
    )


def test_a_csv_row_makes_the_same_draft() -> None:
    """EC-41: CSV has nothing but texts, and empty cells mean nothing was given."""
    row = {
        **LEAST,
        "password": "",
        "activation_key": "yes",
        "endpoint": "",
        "activates_on": "",
        "expires_on": "2026-03-02T12:00:00Z",
        "reserve_user": "TRUE",
        "coupling": "strict",
        "configuration": '{"pid": {"x": [1, null]}}',
        "packages": json.dumps([PACKAGE]),
        "max_attempts": " 3 ",
        "require_approval": "0",
    }
    assert read_request(row, NOON) == draft(
        activation_key=True,
        expires_on="2026-03-02T12:00:00Z",
        reserve_user=True,
        coupling="STRICT",
        configuration={"pid": {"x": [1, None]}},
        packages=[PACKAGE],
        max_attempts=3,
    )


def test_every_broken_rule_is_reported_at_once() -> None:
    """EC-14, EC-23: one exception with all fields, sorted, unknown ones among them."""
    raw = {
        "client_id": "a/b",
        "username": "ab",
        "password": "abc",
        "activation_key": "perhaps",
        "endpoint": "http://h",
        "activates_on": "tomorrow",
        "expires_on": "2020-01-01T00:00:00Z",
        "coupling": "TIGHT",
        "configuration": [],
        "packages": "heater",
        "max_attempts": 0,
        "colour": "red",
    }
    assert problems(raw) == sorted([*raw, "account", "password", "password"])


@pytest.mark.parametrize("field", ["account", "client_id", "username"])
@pytest.mark.parametrize("value", [None, "", 7, ["x"], {}])
def test_a_required_field_must_be_there_as_text(field: str, value: object) -> None:
    """EC-06: absent, empty and not text are refused under the field's own name."""
    assert set(problems({**LEAST, field: value})) == {field}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("password", "Abcdefghij!"),
        ("password", 123456789012),
        ("activation_key", "perhaps"),
        ("activation_key", 1),
        ("reserve_user", []),
        ("require_approval", "ja"),
        ("endpoint", "tcp://h"),
        ("endpoint", 1883),
        ("coupling", "TIGHT"),
        ("coupling", True),
        ("max_attempts", 0),
        ("max_attempts", 1_000_001),
        ("max_attempts", "1.5"),
        ("max_attempts", "²"),
        ("max_attempts", "9" * 5000),
        ("max_attempts", True),
        ("max_attempts", 1.0),
        ("configuration", "{"),
        ("configuration", "[" * 100_000),
        ("configuration", '{"pid": {"x": NaN}}'),
        ("configuration", '{"pid": {"x": 1e400}}'),
        ("configuration", {"pid": {"x": float("inf")}}),
        ("configuration", {"pid": {"x": "\ud800"}}),
        ("configuration", {"pid": {"x": b"bytes"}}),
        ("configuration", {"pid": {"x": 2**64}}),
        ("configuration", {"pid": {"x": "y" * CONFIGURATION_BYTES_MAX}}),
        ("configuration", {"pid": {"x": "é" * (CONFIGURATION_BYTES_MAX // 2)}}),
        ("packages", {"name": "heater"}),
        ("packages", [PACKAGE] * 10),
        ("packages", "{"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_its_field(field: str, value: object) -> None:
    """F-37: wrong types, numbers outside, JSON that is none, and more than an answer can carry."""
    assert set(problems({**LEAST, field: value})) == {field}


def test_a_configuration_of_many_letters_is_measured_in_bytes_of_the_answer() -> None:
    """The answer is UTF-8, so a letter counts its bytes there and not its escape."""
    assert draft(configuration={"pid": {"x": "é" * (CONFIGURATION_BYTES_MAX // 2 - 100)}})


@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({"name": ""}, "packages[1].name"),
        ({"name": "heater;rm"}, "packages[1].name"),
        ({"name": "h" * 129}, "packages[1].name"),
        ({"version": None}, "packages[1].version"),
        ({"version": "1 0"}, "packages[1].version"),
        ({"url": "ftp://h/x"}, "packages[1].url"),
        ({"url": "https:///x"}, "packages[1].url"),
        ({"url": "https://u:p@h/x"}, "packages[1].url"),
        ({"url": "https://h/x y"}, "packages[1].url"),
        ({"url": "https://[h/x"}, "packages[1].url"),
        ({"url": None}, "packages[1].url"),
        ({"sha256": "ab"}, "packages[1].sha256"),
        ({"sha256": "zz" * 32}, "packages[1].sha256"),
        ({"colour": "red"}, "packages[1]"),
    ],
)
def test_a_bad_package_is_named_by_its_place(changes: dict[str, Any], at: str) -> None:
    """EC-35: the index and the field of the package that is wrong."""
    assert problems({**LEAST, "packages": [PACKAGE, PACKAGE | changes]}) == [at]


# Times.


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2030-01-31T08:00:00+01:00", datetime(2030, 1, 31, 7, tzinfo=UTC)),
        ("2030-01-31t08:00:00z", datetime(2030, 1, 31, 8, tzinfo=UTC)),
        ("2030-01-31 08:00:00.25-00:30", datetime(2030, 1, 31, 8, 30, 0, 250_000, tzinfo=UTC)),
        ("2030-03-31T02:30:00+01:00", datetime(2030, 3, 31, 1, 30, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_a_time_with_an_offset_is_an_instant(text: str, instant: datetime) -> None:
    """F-33: RFC 3339 in every spelling, kept as UTC; the offset decides, no time zone rule, up to the year 9999."""
    assert draft(activates_on=text).activates_on == instant


@pytest.mark.parametrize(
    "text",
    [
        "2030-01-31T08:00:00",
        "2030-01-31",
        "2030-01-31T08:00Z",
        "2030-01-31T08:00:00 Europe/Rome",
        "2030-01-31T08:00:00+0100",
        "2030-13-01T08:00:00Z",
        "2030-02-30T08:00:00Z",
        "2016-12-31T23:59:60Z",
        "2030-01-31T25:00:00Z",
        "2030-01-31T08:00:00+24:00",
        "9999-12-31T23:59:59-01:00",
        "0001-01-01T00:00:00+01:00",
        "10000-01-01T00:00:00Z",
        "٢٠٣٠-01-31T08:00:00Z",
        "tomorrow",
        1_900_000_000,
        True,
        datetime(2030, 1, 1),
    ],
)
@pytest.mark.parametrize("field", ["activates_on", "expires_on"])
def test_a_time_that_is_no_instant_is_refused(field: str, text: object) -> None:
    """F-33: no offset, a leap second, a day that never was, or beyond the years that a clock has."""
    assert problems({**LEAST, field: text}) == [field]


@pytest.mark.parametrize(
    ("activates_on", "expires_on", "fits"),
    [
        (None, "2026-03-01T12:00:00Z", False),
        (None, "2026-03-01T12:00:00.000001Z", True),
        ("2026-03-01T13:00:00Z", "2026-03-01T12:59:59Z", False),
        ("2026-03-01T13:00:00Z", "2026-03-01T15:00:00+02:00", False),
        ("2026-03-01T13:00:00Z", "2026-03-01T15:00:01+02:00", True),
    ],
)
def test_the_end_must_follow_the_beginning(activates_on: str | None, expires_on: str, fits: bool) -> None:
    """EC-19, EC-23: also when the beginning is left to be now, and across offsets."""
    raw = {**LEAST, "activates_on": activates_on, "expires_on": expires_on}
    if fits:
        assert read_request(raw, NOON).expires_on is not None
    else:
        assert problems(raw) == ["expires_on"]


# Updates.


def test_an_update_holds_what_is_named_and_nothing_else() -> None:
    """Null removes an end, a limit or an endpoint; a field that is absent stays as it is."""
    assert read_update({}) == {}
    removed = {"expires_on": None, "endpoint": None, "max_attempts": None}
    assert read_update(removed) == removed
    assert read_update({"coupling": "loose", "reserve_user": "no", "configuration": "", "packages": []}) == {
        "coupling": Coupling.LOOSE,
        "reserve_user": False,
        "configuration": {},
        "packages": (),
    }


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        ({"client_id": "gw2"}, ["client_id"]),
        ({"password": "Abcdefghijk!"}, ["password"]),
        ({"activates_on": None}, ["activates_on"]),
        ({"activates_on": "2030-01-31T08:00:00", "endpoint": "http://h"}, ["activates_on", "activates_on", "endpoint"]),
        ({"max_attempts": 0, "packages": 7, "coupling": "TIGHT"}, ["coupling", "max_attempts", "packages"]),
    ],
)
def test_an_update_that_breaks_rules_names_them_all(raw: dict[str, Any], fields: list[str]) -> None:
    """EC-06: who the device is cannot be changed; what can be is checked as at creation."""
    with pytest.raises(InvalidInput) as refused:
        read_update(raw)
    assert [problem.field for problem in refused.value.problems] == fields


# Secrets.


@pytest.mark.parametrize(
    "raw",
    [
        {"password": "canary-7f3a"},
        {"password": ["Canary-7f3a-Word"]},
        {"password": "Canary-7f3a-Word\x00"},
        {"client_id": "a/b", "password": "Canary-7f3a-Word"},
        {"endpoint": "mqtt://user:Canary-7f3a@h"},
        {"configuration": '{"pid": "Canary-7f3a'},
        {"configuration": {"pid": "Canary-7f3a"}},
        {"packages": [PACKAGE | {"url": "https://u:Canary-7f3a@h/x"}]},
    ],
)
def test_no_message_shows_a_secret(raw: dict[str, Any]) -> None:
    """F-39: a refusal describes the value by type and length, in its text and in its repr."""
    with pytest.raises(InvalidInput) as refused:
        read_request({**LEAST, **raw}, NOON)
    shown = f"{refused.value} {refused.value!r} {refused.value.problems!r}"
    assert "anary-7f3a" not in shown
    assert "got " in shown


def test_a_draft_does_not_show_its_password() -> None:
    """F-39: also not in the repr of what passed."""
    assert "Canary" not in repr(draft(password="Canary-7f3a-Word"))
