"""The key ring: boxes that open in one place only, verifiers that recognise one secret of one record."""

import base64
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.model.errors import InvalidInput, Unavailable
from provisioner.model.secret import Secret
from provisioner.vault import keyring
from provisioner.vault.keyring import KeyRing, new_ring_text

OLD, NEW = b"\x01" * 32, b"\x02" * 32
RING = KeyRing({"k1": OLD})
ROTATED = KeyRing({"k2": NEW, "k1": OLD})
LACKING = KeyRing({"k2": NEW})
CLEAR = b"Canary-7f3a"
SECRET = Secret("Canary-7f3a")


# Sealing.


@given(st.binary(max_size=200), st.text(), st.text())
def test_a_box_opens_to_what_was_sealed(clear: bytes, record: str, part: str) -> None:
    """D7: any bytes, for any record and part."""
    assert RING.open(RING.seal(clear, record, part), record, part) == clear


def test_no_two_boxes_are_alike() -> None:
    """D7: a fresh nonce each time, so equal secrets cannot be seen to be equal."""
    assert len({RING.seal(CLEAR, "req-1", "answer") for _ in range(1000)}) == 1000


@pytest.mark.parametrize(("record", "part"), [("req-2", "answer"), ("req-1", "key"), ("", ""), ("answer", "req-1")])
def test_a_box_belongs_to_one_part_of_one_record(record: str, part: str) -> None:
    """D7: moved to another record or part it does not open."""
    box = RING.seal(CLEAR, "req-1", "answer")
    with pytest.raises(Unavailable, match="altered or belongs to another record"):
        RING.open(box, record, part)


def swapped(text: str, at: int) -> str:
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


@given(st.integers(0, 51))
def test_a_box_with_one_letter_changed_does_not_open(at: int) -> None:
    """F-41: nonce, ciphertext and tag are all authenticated."""
    head, _, text = RING.seal(CLEAR, "req-1", "answer").rpartition("$")
    assert len(text) == 52  # 12 + 11 + 16 bytes: no letter is padding
    with pytest.raises(Unavailable):
        RING.open(f"{head}${swapped(text, at)}", "req-1", "answer")


@pytest.mark.parametrize(
    "damage",
    [
        lambda box: "",
        lambda box: "gcm1",
        lambda box: "gcm1$k1",
        lambda box: "gcm1$k1$",
        lambda box: "gcm1$k1$AAAA",
        lambda box: "gcm1$k1$A",
        lambda box: "gcm1$k1$\u00e9",
        lambda box: box[:-1],
        lambda box: box[:-8],
        lambda box: box + "AAAA",
        lambda box: box.replace("gcm1", "gcm2"),
        lambda box: box.replace("k1", "k9"),
        lambda box: f"gcm1$k1$ {box.rpartition('$')[2]}",
    ],
)
def test_a_damaged_box_is_unavailable(damage: Callable[[str], str]) -> None:
    """F-42: cut, lengthened or unknown, it raises Unavailable and nothing else."""
    with pytest.raises(Unavailable, match="answer of req-1"):
        RING.open(damage(RING.seal(CLEAR, "req-1", "answer")), "req-1", "answer")


# Verifying.


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_verifier_recognises_its_secret_and_no_other(secret: str, other: str) -> None:
    """D8: the same text and nothing else."""
    verifier = RING.verifier(Secret(secret), "activation key", "req-1")
    assert RING.verify(verifier, Secret(secret), "activation key", "req-1")
    assert RING.verify(verifier, Secret(other), "activation key", "req-1") == (secret == other)


@pytest.mark.parametrize(
    ("purpose", "record"),
    [("activation key", "req-2"), ("account user", "req-1"), ("activation keyreq", "-1"), ("", "activation keyreq-1")],
)
def test_a_verifier_serves_one_purpose_of_one_record(purpose: str, record: str) -> None:
    """F-17: the key of one request opens no other, and equal secrets have unequal verifiers."""
    verifier = RING.verifier(SECRET, "activation key", "req-1")
    assert not RING.verify(verifier, SECRET, purpose, record)
    assert RING.verifier(SECRET, purpose, record) != verifier


def test_a_text_that_has_no_utf_8_is_merely_wrong() -> None:
    """F-38: a device may send half a character."""
    assert not RING.verify(RING.verifier(SECRET, "p", "r"), Secret("\ud800"), "p", "r")


VERIFIER = RING.verifier(SECRET, "p", "r")


@pytest.mark.parametrize(
    ("verifier", "secret"),
    [
        (VERIFIER, SECRET),
        (VERIFIER, Secret("wrong")),
        (VERIFIER, Secret("")),
        (VERIFIER, None),
        (None, SECRET),
        (None, None),
        ("", SECRET),
        ("hmac1", SECRET),
        ("hmac1$k9$" + VERIFIER.rpartition("$")[2], SECRET),
        (VERIFIER[:-4], SECRET),
        ("$argon2id$v=19$m=19456,t=2,p=1$AAAA$AAAA", SECRET),
    ],
)
def test_every_verification_is_one_digest_and_one_constant_time_comparison(
    verifier: str | None, secret: Secret | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F-18, F-20: whatever is there or missing, known or unknown, the work is the same; only one row is True."""
    work: list[str] = []

    def counted(name: str, genuine: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            work.append(name)
            return genuine(*args)

        return call

    monkeypatch.setattr(keyring, "_digest", counted("digest", keyring._digest))
    monkeypatch.setattr(hmac, "compare_digest", counted("compare", hmac.compare_digest))
    assert RING.verify(verifier, secret, "p", "r") is (verifier == VERIFIER and secret == SECRET)
    assert work == ["digest", "compare"]


def test_a_secret_is_recognised_in_memory_by_its_mark() -> None:
    """D8: caches hold a mark, which differs by purpose and does not contain the secret."""
    assert RING.mark(SECRET, "lobby") == RING.mark(Secret("Canary-7f3a"), "lobby")
    assert len({RING.mark(SECRET, "lobby"), RING.mark(SECRET, "cellar"), RING.mark(Secret("x"), "lobby")}) == 3
    assert CLEAR not in RING.mark(SECRET, "lobby")


# Rotation.


def test_after_a_rotation_what_was_made_before_still_opens_and_verifies() -> None:
    """D7: all keys of the ring open and verify."""
    box, verifier = RING.seal(CLEAR, "req-1", "answer"), RING.verifier(SECRET, "p", "r")
    assert ROTATED.open(box, "req-1", "answer") == CLEAR
    assert ROTATED.verify(verifier, SECRET, "p", "r")


def test_after_a_rotation_the_newest_key_is_used() -> None:
    """D7: what is made now no longer needs the old key."""
    assert LACKING.open(ROTATED.seal(CLEAR, "req-1", "answer"), "req-1", "answer") == CLEAR
    assert LACKING.verify(ROTATED.verifier(SECRET, "p", "r"), SECRET, "p", "r")


def test_a_key_that_is_gone_opens_nothing() -> None:
    """D7: the ring says that it lacks the key; a verifier of it is simply not met."""
    with pytest.raises(Unavailable, match="lacks"):
        LACKING.open(RING.seal(CLEAR, "req-1", "answer"), "req-1", "answer")
    assert not LACKING.verify(RING.verifier(SECRET, "p", "r"), SECRET, "p", "r")


# The ring file.


@pytest.mark.parametrize("masters", [{}, {"k1": b"short"}, {"k1": OLD + b"x"}, {"k$1": OLD}, {"": OLD}])
def test_a_ring_needs_proper_keys(masters: dict[str, bytes]) -> None:
    """At least one key of 32 bytes, with an id that can stand in a box."""
    with pytest.raises(InvalidInput, match="key ring"):
        KeyRing(masters)


def ring_file(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "key-ring.json"
    path.write_text(text, "utf-8")
    path.chmod(mode)
    return path


def test_a_fresh_ring_file_is_read_back(tmp_path: Path) -> None:
    """Two rings read from one file open each other's boxes; two fresh ones do not."""
    path = ring_file(tmp_path, new_ring_text())
    box = KeyRing.read(path).seal(CLEAR, "r", "p")
    assert KeyRing.read(path).open(box, "r", "p") == CLEAR
    with pytest.raises(Unavailable):
        KeyRing.read(ring_file(tmp_path, new_ring_text())).open(box, "r", "p")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_ring_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """F-39: the key ring is for its owner alone."""
    with pytest.raises(InvalidInput, match="chmod 600"):
        KeyRing.read(ring_file(tmp_path, new_ring_text(), mode))


KEY_TEXT = base64.b64encode(b"Canary-7f3a-Canary-7f3a-Canary-7").decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        f'[{{"id": "k1", "key": "{KEY_TEXT}"',
        f'[{{"id": "k1", "key": "{KEY_TEXT}!"}}]',
        f'[{{"id": "k1", "kez": "{KEY_TEXT}"}}]',
        f'["{KEY_TEXT}"]',
        f'{{"k1": "{KEY_TEXT}"}}',
        json.dumps([{"id": "k1", "key": KEY_TEXT[:-8]}]),
        "[]",
    ],
)
def test_a_ring_file_that_cannot_be_read_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    """F-39: not even the exception behind the exception holds a key."""
    with pytest.raises(InvalidInput, match="key ring") as refused:
        KeyRing.read(ring_file(tmp_path, text))
    error: BaseException | None = refused.value
    assert error is not None
    assert KEY_TEXT[:12] not in f"{error!r} {error.__cause__!r}"
    assert error.__context__ is None or error.__suppress_context__


def test_neither_ring_nor_secret_can_be_seen() -> None:
    """F-39: reprs of the ring, of its keys and of what it failed to open show no key and no secret."""
    ring = KeyRing({"k1": b"Canary-7f3a-Canary-7f3a-Canary-7"})
    keys = vars(ring)
    with pytest.raises(Unavailable) as refused:
        ring.open(ring.seal(CLEAR, "req-1", "answer"), "req-2", "answer")
    shown = f"{ring!r} {keys!r} {refused.value!r} {SECRET!r} {SECRET}"
    assert "Canary" not in shown
    assert repr(keys["_newest"]) == "_Key(id='k1')"
