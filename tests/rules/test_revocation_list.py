"""Revocation lists, and the record of whose certificates are on them."""

import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from provisioner.account_brokers.certificate_record import CertificateRecord, Change, Holder
from provisioner.authority.local_ca import BACKDATED, LocalAuthority, RevocationLists
from provisioner.model.errors import InvalidInput, Unavailable

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
AUTHORITY = LocalAuthority.create("Acme provisioning", NOW)


def read(pem: str) -> x509.CertificateRevocationList:
    return x509.load_pem_x509_crl(pem.encode())


def test_a_list_names_the_serials_and_is_the_authoritys() -> None:
    """It is signed by the authority and good as long as that is, so that it never runs out and refuses everybody."""
    made = read(AUTHORITY.crl(["0a", "ff00"], NOW))
    public = AUTHORITY.certificate.public_key()
    assert made.is_signature_valid(public)  # type: ignore[arg-type]  # an elliptic curve key, as the authority's is
    assert made.next_update_utc == AUTHORITY.certificate.not_valid_after_utc
    assert sorted(each.serial_number for each in made) == [0x0A, 0xFF00]
    assert list(read(AUTHORITY.crl([], NOW))) == []


def test_each_list_is_newer_than_the_one_before(tmp_path: Path) -> None:
    """Lists are told apart by whole seconds: also two of one second, also across a restart, and never in the future."""
    former = tmp_path / "revoked.pem"
    lists = RevocationLists(AUTHORITY, lambda: NOW, former)
    dates = [read(lists.signed([])).last_update_utc for _ in range(3)]
    former.write_text(lists.signed([]))
    dates += [read(former.read_text()).last_update_utc]
    dates += [read(RevocationLists(AUTHORITY, lambda: NOW, former).signed([])).last_update_utc]
    assert dates == [NOW - BACKDATED + timedelta(seconds=n) for n in range(1, 6)]


def test_what_is_no_list_is_told(tmp_path: Path) -> None:
    """A damaged file is named, and not taken for an empty list."""
    (tmp_path / "revoked.pem").write_text("nothing")
    with pytest.raises(InvalidInput, match="revocation list"):
        RevocationLists(AUTHORITY, lambda: NOW, tmp_path / "revoked.pem")


def test_a_certificate_bears_the_given_name() -> None:
    """The common name is the login's where a broker wants one; the device's id stays in the other names."""
    made = AUTHORITY.with_new_key("dev-1", "acme", NOW, "acme/gw1")
    certificate = x509.load_pem_x509_certificate(made.certificate.encode())
    assert certificate.subject.rfc4514_string() == "CN=acme/gw1,OU=acme"


@pytest.fixture
def record(tmp_path: Path) -> CertificateRecord:
    made = CertificateRecord(tmp_path)
    made.load()
    return made


def holder(number: int, *certificates: str, client_id: str = "gw1", enabled: bool = True) -> Holder:
    return Holder("acme", f"user-{number}", client_id, certificates, enabled, 0)


def put(record: CertificateRecord, holder: Holder) -> Change:
    return _made(record, record.put(holder))


def remove(record: CertificateRecord, username: str, now_s: float) -> Change:
    return _made(record, record.remove(username, now_s))


def _made(record: CertificateRecord, holder: Holder | None) -> Change:
    if holder is None:
        return Change()
    record.write(holder)
    return record.keep(holder)


def test_only_the_last_certificate_of_who_holds_the_name_is_good(record: CertificateRecord) -> None:
    """D7: a replaced one is refused, and a former grant's; what is taken back makes the former one good again."""
    assert put(record, holder(1, "a1")) == Change()
    assert put(record, holder(1, "a1")) == Change()
    assert put(record, holder(1, "a1", "a2")) == Change(ends=True)
    assert record.refused() == ["a1"]
    assert put(record, holder(2, "b1")) == Change(ends=True)
    assert record.refused() == ["a1", "a2"]
    assert remove(record, "user-2", 5.0) == Change(ends=True, begins=True)
    assert record.refused() == ["a1", "b1"]
    assert put(record, holder(1, "a1", "a2", enabled=False)) == Change(ends=True)
    assert put(record, holder(1, "a1", "a2")) == Change(begins=True)
    assert remove(record, "nobody", 5.0) == Change()


def test_a_put_that_is_told_again_changes_no_turn(record: CertificateRecord, tmp_path: Path) -> None:
    """A start tells users in any order: who held the name before still does, after a crash too."""
    put(record, holder(2, "b1"))
    put(record, holder(1, "a1"))
    again = CertificateRecord(tmp_path)
    again.load()
    for number, serial in ((1, "a1"), (2, "b1")):
        put(again, holder(number, serial))
    assert again.refused() == ["b1"]
    assert again.at("acme/gw1") == Holder("acme", "user-1", "gw1", ("a1",), True, 2)


def test_the_record_is_ours_alone_and_bounded(record: CertificateRecord, tmp_path: Path) -> None:
    """Nobody else reads it; who is long gone, and every line but the latest of a user, is left out at a start."""
    path = tmp_path / "certificates.jsonl"
    for number in range(3):
        put(record, holder(number, f"a{number}", client_id=f"gw{number}"))
        put(record, holder(number, f"a{number}", client_id=f"gw{number}", enabled=False))
        remove(record, f"user-{number}", float(number))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().splitlines()) == 9
    again = CertificateRecord(tmp_path)
    again.load()
    again.shrink(1.5)
    assert again.refused() == ["a2"]
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize("text", ["nothing\n", "[1]\n", '["acme"]\n', "[1,2,3,4,5,6,7]\n"])
def test_a_damaged_record_is_told(tmp_path: Path, text: str) -> None:
    """A record that cannot be read must not be taken for one that refuses nobody."""
    (tmp_path / "certificates.jsonl").write_text(text)
    with pytest.raises(Unavailable):
        CertificateRecord(tmp_path).load()


def test_f_42_a_line_that_was_cut_short_is_none(record: CertificateRecord, tmp_path: Path) -> None:
    """F-42, F-23: what a full disk or a crash left of a line was told to nobody; it stands in the way of no start, and
    of no line behind it."""
    path = tmp_path / "certificates.jsonl"
    put(record, holder(1, "a1"))
    path.write_bytes(path.read_bytes() + b'["acme", "us')
    put(record, holder(2, "b1"))
    path.write_bytes(path.read_bytes() + b'["acme", "us')
    again = CertificateRecord(tmp_path)
    again.load()
    assert again.refused() == ["a1"]
    put(again, holder(3, "c1", client_id="gw3"))
    third = CertificateRecord(tmp_path)
    third.load()
    assert [each.username for each in third.present()] == ["user-1", "user-2", "user-3"]


def _steps() -> Iterator[tuple[str, int]]:
    for number in range(3):
        yield from ((what, number) for what in ("put", "renew", "disable", "remove"))


@given(st.lists(st.sampled_from(list(_steps())), max_size=12))
def test_what_is_said_of_a_change_is_what_changed(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Whatever comes in whatever order: a change is told when it is one, and a reader of the file sees the same."""
    folder = tmp_path_factory.mktemp("record")
    record = CertificateRecord(folder)
    record.load()
    given_out: dict[int, int] = {}
    for what, number in steps:
        before = set(record.refused())
        given_out[number] = given_out.get(number, 1) + (what == "renew")
        serials = [f"{number}{n:02}" for n in range(given_out[number])]
        told = (
            remove(record, f"user-{number}", 1.0)
            if what == "remove"
            else put(record, holder(number, *serials, enabled=what != "disable"))
        )
        after = set(record.refused())
        assert told == Change(ends=bool(after - before), begins=bool(before - after))
    again = CertificateRecord(folder)
    again.load()
    assert again.refused() == record.refused()
