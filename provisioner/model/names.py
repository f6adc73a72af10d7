"""Rules of the names that people and devices bring: client ids, usernames, passwords, addresses.

Each ``check_*`` returns the broken rules as texts (none when all hold) and never quotes the value.
"""

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import urlsplit

CLIENT_ID_BYTES_MAX = 255  # the column size of Kapua; MQTT itself allows 65,535 [MQTT-1.5.3]
CLIENT_ID_PORTABLE_MAX = 23  # every MQTT server must accept 1-23 of [0-9A-Za-z] [MQTT-3.1.3-5]
USERNAME_CHARACTERS_MIN, USERNAME_CHARACTERS_MAX = 3, 255
PASSWORD_CHARACTERS_MIN = 12
PASSWORD_CHARACTERS_MAX = 256
ENDPOINT_SCHEMES = ("mqtt", "mqtts", "ws", "wss")
DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}

_USERNAME = re.compile(r"[A-Za-z0-9_-]{3,255}", re.ASCII)
_PLAIN_CLIENT_ID = re.compile(r"[A-Za-z0-9_-]{1,255}", re.ASCII)
# MQTT wildcards and separators, and what Kapua's own client id rule refuses besides them.
_CLIENT_ID_FORBIDDEN = frozenset("#+/*&,?>%\\")


def check_client_id(client_id: str) -> Iterator[str]:
    """EC-06, EC-08, F-09: a client id becomes one topic level, so nothing in it may act in a topic."""
    if _PLAIN_CLIENT_ID.fullmatch(client_id):
        return  # what nearly all are, without a look at each character
    if not client_id:
        yield "must not be empty"
        return
    try:
        size = len(client_id.encode())
    except UnicodeEncodeError:
        yield "must be valid UTF-8 without surrogates"
        return
    if size > CLIENT_ID_BYTES_MAX:
        yield f"must be at most {CLIENT_ID_BYTES_MAX} bytes"
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for c in client_id):
        yield "must not contain control, format or unassigned characters"
    if _CLIENT_ID_FORBIDDEN & set(client_id):
        yield "must not contain any of # + / * & , ? > % \\"
    if "::" in client_id or ".." in client_id:
        yield "must not contain '::' or '..'"
    if client_id != client_id.strip():
        yield "must not begin or end with white space"


def is_plain(client_id: str) -> bool:
    """Letters, digits, '-' and '_' alone: it stands anywhere as it is, in a file of lines as in a user's name."""
    return _PLAIN_CLIENT_ID.fullmatch(client_id) is not None


def warn_client_id(client_id: str) -> Iterator[str]:
    """What is legal but not portable (EC-08); refusals under ``strict_mqtt31``."""
    if len(client_id) > CLIENT_ID_PORTABLE_MAX:
        yield f"is longer than the {CLIENT_ID_PORTABLE_MAX} characters that MQTT 3.1 allows"
    if not client_id.isascii() or not client_id.isalnum():
        yield "has characters beyond 0-9 A-Z a-z, which not every MQTT server accepts"


def check_username(username: str) -> Iterator[str]:
    """EC-09, EC-10; the same rule as Kapua's ``^[a-zA-Z0-9_-]{3,}$``."""
    if len(username) < USERNAME_CHARACTERS_MIN:
        yield f"must be at least {USERNAME_CHARACTERS_MIN} characters"
    elif not _USERNAME.fullmatch(username):
        yield "must contain only letters, digits, '-' and '_' (at most 255)"


def check_password(password: str) -> Iterator[str]:
    """EC-13, EC-14: twelve characters with a lower-case, an upper-case and a special one."""
    if len(password) < PASSWORD_CHARACTERS_MIN:
        yield f"must be at least {PASSWORD_CHARACTERS_MIN} characters"
    if len(password) > PASSWORD_CHARACTERS_MAX:
        yield f"must be at most {PASSWORD_CHARACTERS_MAX} characters"
    if not any(c.islower() for c in password):
        yield "must contain a lower-case character"
    if not any(c.isupper() for c in password):
        yield "must contain an upper-case character"
    if all(c.isalnum() for c in password):
        yield "must contain a special character"
    if "\x00" in password or not _encodes(password):
        yield "must be valid UTF-8 without NUL"


def check_endpoint(url: str) -> Iterator[str]:
    """EC-18: where a device goes next: ``scheme://host[:port][/path]`` without credentials."""
    if len(url) > 2048 or any(c.isspace() or unicodedata.category(c) in ("Cc", "Cs") for c in url):
        yield "must be at most 2,048 characters without white space"
        return
    try:
        parts = urlsplit(url)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        yield "must be scheme://host[:port] with a port from 1 to 65535"
        return
    if parts.scheme not in ENDPOINT_SCHEMES:
        yield "must begin with mqtt://, mqtts://, ws:// or wss://"
    if not parts.hostname or not port_ok:
        yield "must name a host, and a port from 1 to 65535 if any"
    if parts.username is not None or parts.password is not None:
        yield "must not carry credentials"


def case_folded(client_id: str) -> str:
    """The form under which look-alikes collide (F-10): compatibility-normalised and case-folded."""
    return unicodedata.normalize("NFKC", client_id).casefold()


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
