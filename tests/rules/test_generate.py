"""Fresh secrets: distinct, long enough, and within the rules that people's own passwords must meet."""

import math
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from provisioner.model import names
from provisioner.model.secret import Secret
from provisioner.vault import generate
from provisioner.vault.generate import CROCKFORD

MANY = 10_000
PASSWORDS = [generate.password().reveal() for _ in range(MANY)]
KEYS = [generate.activation_key().reveal() for _ in range(MANY)]


def bits(free_letters: int) -> float:
    return free_letters * math.log2(len(set(CROCKFORD)))


def test_ten_thousand_passwords_are_distinct_and_within_the_rules() -> None:
    """EC-32, EC-13, EC-14: no two alike, each of them a password that an administrator could have set."""
    assert len(set(PASSWORDS)) == MANY
    assert [password for password in PASSWORDS if list(names.check_password(password))] == []


def test_a_password_has_128_bits_and_more() -> None:
    """EC-32: a fixed prefix and 26 free letters of a 32-letter alphabet."""
    assert all(re.fullmatch(f"Fg-[{CROCKFORD}]{{26}}", password) for password in PASSWORDS)
    assert bits(26) >= 128


def test_ten_thousand_activation_keys_are_distinct_and_readable() -> None:
    """EC-16: five groups of six unambiguous letters, 128 bits and more."""
    assert len(set(KEYS)) == MANY
    assert all(re.fullmatch(f"[{CROCKFORD}]{{6}}(-[{CROCKFORD}]{{6}}){{4}}", key) for key in KEYS)
    assert bits(30) >= 128
    assert not set("ILOU") & set(CROCKFORD)


@pytest.mark.parametrize(
    "letters",
    [[p.removeprefix("Fg-") for p in PASSWORDS], [key.replace("-", "") for key in KEYS]],
    ids=["password", "key"],
)
def test_every_place_takes_every_letter_about_equally_often(letters: list[str]) -> None:
    """EC-32: no place is fixed and no letter favoured, so the bits that are counted are there."""
    expected = MANY / 32
    for place in zip(*letters, strict=True):
        chi_square = sum((place.count(letter) - expected) ** 2 / expected for letter in CROCKFORD)
        # 31 degrees of freedom: beyond 100 once in 10^9 places; a place that lacks one letter scores over 300.
        assert chi_square < 100


@pytest.mark.parametrize("count", [1, 7, 8, 16, 26, 1000])
def test_as_many_letters_as_were_asked_for(count: int) -> None:
    """Every length, whatever remains of the last byte."""
    assert re.fullmatch(f"[{CROCKFORD}]{{{count}}}", generate.letters(count))


def test_ids_carry_their_noun_and_cannot_be_guessed() -> None:
    """Record ids of one moment differ in 45 random bits, and each says what it is of."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    ids = {generate.record_id("req", now) for _ in range(1000)}
    assert len(ids) == len({id[-9:] for id in ids}) == 1000
    assert all(re.fullmatch(f"req-[{CROCKFORD}]{{18}}", id) for id in ids)
    assert bits(9) >= 45


@given(st.lists(st.datetimes(datetime(1970, 1, 2), datetime(3000, 1, 1)), min_size=2, max_size=2))
def test_ids_stand_in_the_order_of_time(moments: list[datetime]) -> None:
    """P8: a millisecond later is a greater id, compared as stores do, so that a store appends what comes later."""
    earlier, later = sorted(each.replace(tzinfo=UTC) for each in moments)
    assume(later - earlier > timedelta(milliseconds=1))
    assert generate.record_id("req", earlier).encode() < generate.record_id("req", later).encode()


def test_ids_for_gateways_have_128_bits() -> None:
    """wire-esf: what a gateway must say back cannot be guessed by another."""
    ids = generate.message_ids(1000)
    assert len(set(ids)) == 1000
    assert all(re.fullmatch("[0-9a-f]{32}", id) for id in ids)
    assert generate.message_ids(0) == []


# Recognising.


def test_a_generated_password_looks_generated() -> None:
    """D8: what we made takes the fast path."""
    assert all(generate.looks_generated(Secret(password)) for password in PASSWORDS)


@pytest.mark.parametrize(
    "password",
    [
        "",
        "Fg-",
        "Abcdefghijk!",
        "Fg-" + "A" * 25,
        "Fg-" + "A" * 27,
        "A" * 26,
        "fg-" + "A" * 26,
        "Fg-" + "a" * 26,
        "Fg-" + "A" * 25 + "U",
        "Fg-" + "A" * 25 + "\u0661",
        "Fg-Fg-" + "A" * 23,
        "Fg-" + "A" * 26 + "\n",
    ],
)
def test_other_passwords_do_not(password: str) -> None:
    """D8: a text of another form takes the slow path."""
    assert not generate.looks_generated(Secret(password))


LOOK_ALIKES = {"1": "1IiLl", "0": "0Oo"}


@given(st.sampled_from(KEYS[:50]), st.data())
def test_a_key_may_be_typed_by_a_person(key: str, data: st.DataObject) -> None:
    """EC-16: small letters, blanks, missing dashes and look-alike letters all mean the same key."""
    typed = ""
    for letter in key:
        spellings = ["-", "", " "] if letter == "-" else list(LOOK_ALIKES.get(letter, letter + letter.lower()))
        typed += data.draw(st.sampled_from(spellings))
    assert generate.normal_key(Secret(typed)) == generate.normal_key(Secret(key)) == Secret(key.replace("-", ""))


def test_two_keys_do_not_become_one() -> None:
    """EC-16: of what makes keys distinct nothing is lost."""
    assert len({generate.normal_key(Secret(key)) for key in KEYS}) == MANY


def test_no_fresh_secret_can_be_seen() -> None:
    """F-39: passwords and keys come as secrets."""
    for secret in (generate.password(), generate.activation_key()):
        assert secret.reveal() not in f"{secret} {secret!r}"
