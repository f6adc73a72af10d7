"""Nouns to JSON rows and back."""

import json
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.model import records
from provisioner.model.account import Account, CertificateMode, Coupling
from provisioner.model.audit import AuditEvent
from provisioner.model.device import DeviceConnection, DeviceState
from provisioner.model.effect import Effect, EffectVerb
from provisioner.model.ports import Noun
from provisioner.model.request import Approval, Package, ProvisionRequest, RequestState
from provisioner.model.user import AccountUser, ProvisionUser
from tests.rules.nouns import HOUR, NOON, a_device, a_grant, a_request, an_account

ODD_TIME = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=45)))
# One of every noun, with every field set to something that is not its default.
FULL: list[Noun | AuditEvent] = [
    an_account(coupling=Coupling.LOOSE, certificates=CertificateMode.SERVER_KEY, enabled=False, version=3),
    ProvisionUser(
        id="lobby", account="acme", verifier="hmac1$k$x", created_at=ODD_TIME, link_verifier="$7$101$x", version=1
    ),
    a_request(
        expires_on=NOON + HOUR,
        key_verifier="hmac1$k$x",
        endpoint="mqtts://b.example",
        reserve_user=True,
        coupling=Coupling.STRICT,
        configuration={"größe": {"x": [1, 2.5, None, True, {"y": "\u2603"}]}},
        packages=(
            Package(name="a", version="1", url="https://h/a", sha256="0" * 64),
            Package(name="b", version="2", url="https://h/b"),
        ),
        max_attempts=3,
        approval=Approval.AWAITING,
        state=RequestState.GRANTED,
        attempts=2,
        key_failures=1,
        key_blocked_until=ODD_TIME,
        arm=4,
        epoch=2,
        grant=a_grant(csr_digest="ab", certificate_serial="7f", certificate_ends_at=ODD_TIME),
        confirmed_at=NOON,
        version=9,
    ),
    a_device(
        connection=DeviceConnection(
            user="u", coupling=Coupling.LOOSE, reserved_user="u", last_seen_at=ODD_TIME, address="192.0.2.7"
        ),
        state=DeviceState.DISABLED,
        metadata={"serial_number": "S1", "floor": 3},
        certificate_serial="7f",
        certificate_ends_at=NOON,
        version=2,
    ),
    AccountUser(
        id="acme/dev-1-1",
        account="acme",
        username="dev-1-1",
        client_id="gw1",
        broker="local",
        device_id="dev-1",
        verifier="hmac1$k$x",
        created_at=NOON,
        permissions=("broker:connect", "other"),
        certificates=("0a1b", "2c3d"),
        reserved=True,
        coupling=Coupling.LOOSE,
        enabled=False,
        version=2,
    ),
    Effect(
        id="acme/dev-1-1",
        verb=EffectVerb.REMOVE,
        broker="local",
        account="acme",
        username="dev-1-1",
        created_at=NOON,
        version=1,
    ),
    AuditEvent(
        at=ODD_TIME,
        actor="gate",
        action="connect.refused",
        outcome="refused",
        reason="password",
        account="acme",
        client_id="gw1",
        username="lobby",
        subject="req-1",
        address="::1",
        details={"count": 3},
        seq=17,
    ),
]


@pytest.mark.parametrize("noun", FULL, ids=lambda noun: noun.kind)
def test_a_noun_comes_back_from_json_as_it_was(noun: Noun | AuditEvent) -> None:
    """Every field of every noun survives the row, types and offsets included, and so do those left to default."""
    row = json.loads(json.dumps(records.dump(noun)))
    assert records.load(type(noun), row) == noun


@pytest.mark.parametrize("noun", FULL, ids=lambda noun: noun.kind)
def test_the_sample_of_a_noun_leaves_no_field_at_its_default(noun: Noun | AuditEvent) -> None:
    """A field that is added to a noun has to be added to the samples above."""
    left = [f.name for f in fields(noun) if getattr(noun, f.name) == f.default]  # type: ignore[arg-type]  # a dataclass
    assert left == []


@given(
    st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)),
    st.integers(-23 * 60, 23 * 60),
    st.text(max_size=20),
)
def test_any_instant_and_text_survive(wall: datetime, offset_min: int, text: str) -> None:
    """F-33: microseconds and odd offsets are kept, and whatever a device calls itself."""
    at = wall.replace(tzinfo=timezone(timedelta(minutes=offset_min)))
    noun = a_device(created_at=at, metadata={"serial_number": text})
    assert records.load(type(noun), json.loads(json.dumps(records.dump(noun)))) == noun


def test_a_row_shows_each_field_under_its_name() -> None:
    """The form on disk is the noun's own: enums by value, instants as RFC 3339 text, tuples as lists."""
    row = records.dump(FULL[2])
    assert row["state"] == "granted"
    assert row["activates_on"] == "2026-03-01T11:00:00+00:00"
    assert row["packages"][1] == {"name": "b", "version": "2", "url": "https://h/b", "sha256": None}
    assert row["grant"]["certificate_serial"] == "7f"


def test_an_absent_field_takes_its_default() -> None:
    """F-44: a row that was written before a field existed still loads."""
    row = records.dump(a_request(max_attempts=5, reserve_user=True))
    del row["max_attempts"], row["reserve_user"]
    assert records.load(ProvisionRequest, row) == a_request()


def test_a_field_that_does_not_exist_is_refused() -> None:
    """F-44: a row of a newer program is not read as if it were ours."""
    row = records.dump(an_account()) | {"colour": "red"}
    with pytest.raises(TypeError, match="colour"):
        records.load(Account, row)


def test_what_breaks_a_rule_of_its_noun_does_not_load() -> None:
    """A value that exists is valid, also when it comes from a disk."""
    row = records.dump(an_account()) | {"broker_url": "http://h"}
    with pytest.raises(ValueError, match="broker_url"):
        records.load(Account, row)


@pytest.mark.parametrize("noun", FULL, ids=lambda noun: noun.kind)
def test_stamping_changes_one_field_of_a_copy(noun: Noun | AuditEvent) -> None:
    """The version or seq of the copy, and nothing of the original."""
    field = "seq" if isinstance(noun, AuditEvent) else "version"
    before = records.dump(noun)
    stamped = records.stamped(noun, field, 77)
    assert stamped == replace(noun, **{field: 77})  # type: ignore[type-var]  # a dataclass
    assert records.dump(noun) == before


@dataclass(frozen=True, slots=True)
class Single:
    at: datetime


def test_a_noun_of_one_field_is_a_noun_too() -> None:
    """The shortest record round-trips as well."""
    assert records.load(Single, records.dump(Single(datetime(2030, 1, 1, tzinfo=UTC)))) == Single(
        datetime(2030, 1, 1, tzinfo=UTC)
    )


def test_only_dataclasses_are_records() -> None:
    """Anything else is a mistake of the caller."""
    with pytest.raises(TypeError, match="dataclasses"):
        records.dump(7)
