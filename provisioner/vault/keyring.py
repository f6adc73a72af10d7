"""The key ring: seals what must be said again, verifies what must only be recognised (D7, D8).

Boxes read ``gcm1$<key id>$<base64 of nonce and ciphertext>``; verifiers ``hmac1$<key id>$<base64>`` or the
PHC text of argon2id. The first key of the ring seals and signs; all of them open and verify.
"""

import base64
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from provisioner.model.errors import InvalidInput, Problem, Unavailable
from provisioner.model.secret import Secret

KEY_BYTES = 32
NONCE_BYTES = 12  # NIST SP 800-38D 8.2.1: 96 bits, random


@dataclass(frozen=True, slots=True)
class _Key:
    """One master key and the two keys derived from it, so that no key serves two purposes."""

    id: str
    # Keyed once and copied for each digest: setting up the key costs more than the digest itself.
    pepper: hmac.HMAC = field(repr=False)
    seal: AESGCM = field(repr=False)


class KeyRing:
    """Holds the keys; none of its methods ever puts a secret into an exception."""

    def __init__(self, masters: Mapping[str, bytes]) -> None:
        """masters: key id -> 32 bytes, newest first."""
        if not masters or any(len(master) != KEY_BYTES or not key_id.isalnum() for key_id, master in masters.items()):
            raise InvalidInput([Problem("key ring", f"needs at least one key of {KEY_BYTES} bytes", "something else")])
        self._keys = {key_id: _derive(key_id, master) for key_id, master in masters.items()}
        self._newest = next(iter(self._keys.values()))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open the ring file; refuses one that others can read. Raises InvalidInput."""
        try:
            mode, text = path.stat().st_mode, path.read_bytes()
        except OSError as error:
            rule = f"{path} must be a readable file: {error.strerror}"
            raise InvalidInput([Problem("key ring", rule, type(error).__name__)]) from None
        if mode & 0o077:
            raise InvalidInput(
                [Problem("key ring", f"{path} must not be readable by others (chmod 600)", "a wider mode")]
            )
        try:
            entries = json.loads(text)
            masters = {str(entry["id"]): base64.b64decode(entry["key"], validate=True) for entry in entries}
        except (ValueError, TypeError, KeyError):
            # From None: what the parsers raise holds the text of the file.
            raise InvalidInput([Problem("key ring", f"{path} must list ids and keys as JSON", "other text")]) from None
        return cls(masters)

    def seal(self, clear: bytes, record: str, part: str) -> str:
        """Encrypt for one field of one record; the box opens nowhere else (AAD)."""
        nonce = os.urandom(NONCE_BYTES)
        box = nonce + self._newest.seal.encrypt(nonce, clear, _aad(record, part))
        return f"gcm1${self._newest.id}${base64.b64encode(box).decode()}"

    def open(self, box: str, record: str, part: str) -> bytes:
        """Raises Unavailable when the ring lacks the key or the box was moved or changed."""
        scheme, _, rest = box.partition("$")
        key_id, _, text = rest.partition("$")
        key = self._keys.get(key_id)
        if scheme != "gcm1" or key is None:
            raise Unavailable(f"a sealed {part} of {record} needs a key that the key ring lacks")
        try:
            raw = base64.b64decode(text, validate=True)
            return key.seal.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _aad(record, part))
        except (InvalidTag, ValueError):
            raise Unavailable(f"a sealed {part} of {record} was altered or belongs to another record") from None

    def verifier(self, secret: Secret, purpose: str, record: str) -> str:
        """Digest of a secret of at least 128 bits; equal secrets of two records give different digests."""
        return f"hmac1${self._newest.id}${_digest(self._newest, secret, purpose, record)}"

    def verify(self, verifier: str | None, secret: Secret | None, purpose: str, record: str) -> bool:
        """Constant time; None on either side does the same work and is False."""
        _, _, rest = (verifier or "").partition("$")
        key_id, _, expected = rest.partition("$")
        key = self._keys.get(key_id)
        actual = _digest(key or self._newest, secret or Secret(""), purpose, record)
        same = hmac.compare_digest(actual.encode(), expected.encode())
        return same and key is not None and verifier is not None and secret is not None and bool(secret)

    def mark(self, secret: Secret, purpose: str) -> bytes:
        """A digest that recognises the same secret again in memory, for caches."""
        return _hmac(self._newest.pepper, purpose.encode() + b"\0" + _bytes(secret))


def new_ring_text() -> str:
    """The text of a ring file with one fresh key."""
    key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
    return json.dumps([{"id": secrets.token_hex(4), "key": key}], indent=1) + "\n"


def _derive(key_id: str, master: bytes) -> _Key:
    pepper = hmac.digest(master, b"fleetgate verifier pepper v1", "sha256")
    sealing = hmac.digest(master, b"fleetgate sealing key v1", "sha256")
    return _Key(key_id, hmac.new(pepper, digestmod="sha256"), AESGCM(sealing))


def _hmac(keyed: hmac.HMAC, message: bytes) -> bytes:
    digest = keyed.copy()
    digest.update(message)
    return digest.digest()


def _digest(key: _Key, secret: Secret, purpose: str, record: str) -> str:
    context = "\0".join(("v1", purpose, record, "")).encode()
    return base64.b64encode(_hmac(key.pepper, context + _bytes(secret))).decode()


def _bytes(secret: Secret) -> bytes:
    # What a device sends need not encode: it is then simply wrong.
    return secret.reveal().encode("utf-8", "surrogatepass")


def _aad(record: str, part: str) -> bytes:
    return f"{record}|{part}".encode()
