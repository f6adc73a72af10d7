"""How the service writes its log: lines that a person reads, or JSON, one object a line; each says whom it is about.

No part of the service logs a secret. What looks like one is taken out here all the same, as the last line of defence.
"""

import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from provisioner.services import subject

GONE = "[redacted]"
SHOWN_CHARACTERS_MAX = 256
_PLAIN = re.compile(r"[!#-<>-~]+")  # needs no quotes behind "name="
_CROCKFORD = "[0-9A-HJKMNP-TV-Z]"
_SECRETS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), GONE),
    (re.compile(rf"Fg-{_CROCKFORD}{{26}}"), GONE),  # a password of ours
    (re.compile(rf"(?:{_CROCKFORD}{{6}}-){{4}}{_CROCKFORD}{{6}}", re.I), GONE),  # an activation key
    (re.compile(r"(?:hmac1|gcm1)\$\w+\$[\w+/=]+"), GONE),  # what stands for one in the store
    (re.compile(r"\$(?:argon2id?|6|7)\$[\w+/=.,$-]+"), GONE),  # or in a password file
    (re.compile(r"(\w://[^\s/:@]*:)[^\s/@]+@"), rf"\1{GONE}@"),
    (re.compile(r"\b(basic|bearer) +[\w+/=.~-]{12,}", re.I), rf"\1 {GONE}"),
    (
        re.compile(
            r"""((?:password|passwd|secret|credential|activation[_-]key|private[_-]key|pepper)["']?\s*[=:]\s*)"""
            r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s,;}\]]+)""",
            re.I,
        ),
        rf"\1{GONE}",
    ),
)


def configure(level: str, form: str, stream: TextIO) -> None:
    """Everything that is logged from now on goes there, and nowhere else. form: ``text`` or ``json``."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # where a line cannot be written, it would be shown as it was before ``redacted``


def redacted(text: str) -> str:
    """The text without what looks like a secret of any form that passes through the service."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class TextLines(logging.Formatter):
    """``2026-01-01T12:00:00.000Z INFO logger: event client_id=press17``; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        # A line is one line, whatever a stranger sent: it could look like another one.
        event = redacted(record.getMessage()).translate(_CONTROLS)
        about = "".join(f" {name}={_shown(value)}" for name, value in _about(record).items())
        line = f"{_instant(record)} {record.levelname} {record.name}: {event}{about}"
        return line if record.exc_info is None else f"{line}\n{_traceback(self, record)}"


class JsonLines(logging.Formatter):
    """``ts`` (RFC 3339), ``level``, ``logger``, ``event``, then whom it is about, as far as that is known."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": _instant(record),
            "level": record.levelname,
            "logger": record.name,
            "event": redacted(record.getMessage()),
            **{name: _short(value) for name, value in _about(record).items()},
        }
        if record.exc_info is not None:
            line["traceback"] = _traceback(self, record)
        return json.dumps(line, default=str, separators=(",", ":"))  # ASCII, so that a line is one line everywhere


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}


def _about(record: logging.LogRecord) -> Mapping[str, object]:
    """What the record says of itself counts more than what the work at hand is about."""
    return {**subject.current(), **getattr(record, "about", {})}


def _instant(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return redacted(formatter.formatException(record.exc_info)) if record.exc_info else ""


def _short(value: object) -> object:
    return redacted(value[:SHOWN_CHARACTERS_MAX]) if isinstance(value, str) else value


def _shown(value: object) -> str:
    text = str(_short(value))
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
