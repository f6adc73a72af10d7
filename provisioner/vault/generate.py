"""Fresh identifiers and secrets, from the operating system's random source."""

import re
import secrets
from collections.abc import Sequence
from datetime import datetime

from provisioner.model.secret import Secret

# Crockford base32: no I, L, O, U, so that a person can copy it. Five bits a letter.
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
GENERATED_PREFIX = "Fg-"
_LETTER_OF_BYTE = (CROCKFORD * 8).encode()
_PASSWORD_LETTERS = 26  # 130 bits (EC-32)
_GENERATED = re.compile(f"{GENERATED_PREFIX}[{CROCKFORD}]{{{_PASSWORD_LETTERS}}}", re.ASCII)
_KEY_GROUPS, _KEY_GROUP_LETTERS = 5, 6  # 150 bits (EC-16)
_MOMENT_LETTERS, _ID_LETTERS = 9, 9  # 45 bits of milliseconds, enough for a thousand years, and 45 random ones


def letters(count: int) -> str:
    """``count`` random Crockford letters."""
    # A byte holds eight times each of the 32 letters, so taking five bits of it favours none.
    return secrets.token_bytes(count).translate(_LETTER_OF_BYTE).decode()


def password() -> Secret:
    """130 bits that satisfy the password rules (EC-13, EC-14): the prefix has upper, lower and special."""
    return Secret(GENERATED_PREFIX + letters(_PASSWORD_LETTERS))


def looks_generated(secret: Secret) -> bool:
    """Whether a password has the form of ``password()``; a matter of its text alone."""
    return _GENERATED.fullmatch(secret.reveal()) is not None


def activation_key() -> Secret:
    """150 bits as ``XXXXXX-XXXXXX-XXXXXX-XXXXXX-XXXXXX``."""
    return Secret("-".join(letters(_KEY_GROUP_LETTERS) for _ in range(_KEY_GROUPS)))


def normal_key(key: Secret) -> Secret:
    """The key as it was made, however it was typed: case, dashes, blanks and look-alike letters do not matter."""
    text = key.reveal().upper().translate(_LOOK_ALIKES)
    return Secret("".join(c for c in text if c not in "- "))


_LOOK_ALIKES = str.maketrans("ILO", "110")


def record_id(prefix: str, at: datetime) -> str:
    """``<prefix>-``, nine letters of the time and nine random ones. No secret: a later id is the greater one.

    Records that come together lie together, so that a store writes a few pages for them and not one each."""
    moment_ms = round(at.timestamp() * 1000)
    moment = "".join(CROCKFORD[moment_ms >> 5 * place & 31] for place in reversed(range(_MOMENT_LETTERS)))
    return f"{prefix}-{moment}{letters(_ID_LETTERS)}"


def message_ids(count: int) -> Sequence[str]:
    """Unguessable ids of our own requests to gateways: signed 64-bit texts like a platform's would be forgeable,
    so these have 128 bits."""
    return [secrets.token_hex(16) for _ in range(count)]
