"""Drafts: what an administrator types, checked field by field, with every problem reported at once."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from provisioner.model import device_config, names
from provisioner.model.account import Coupling
from provisioner.model.errors import InvalidInput, Problem, shape
from provisioner.model.request import MAX_ATTEMPTS_MAX, Package, check_window
from provisioner.model.secret import Secret

CONFIGURATION_BYTES_MAX = 40_960  # the answer that carries it has to fit into one packet of 66,560 bytes
PACKAGES_MAX = 9  # as many bundles as an Everyware request takes beside its configuration
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_PACKAGE_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDraft:
    """A provision request to be made. password None: generate one, or keep the username's when it exists.

    activates_on None: from now on (EC-19)."""

    account: str
    client_id: str
    username: str
    password: Secret | None = None
    activation_key: bool = False
    endpoint: str | None = None
    activates_on: datetime | None = None
    expires_on: datetime | None = None
    reserve_user: bool = False
    coupling: Coupling = Coupling.INHERITED
    configuration: Mapping[str, object] = field(default_factory=dict)
    packages: tuple[Package, ...] = ()
    max_attempts: int | None = None
    require_approval: bool = False


class Fields:
    """Reads named fields of a mapping and collects every broken rule; ``finish`` raises them together."""

    def __init__(self, raw: Mapping[str, Any], known: frozenset[str]) -> None:
        self._raw = raw
        self.problems = [
            Problem(str(name), f"is not a field; known are {', '.join(sorted(known))}", "an unknown name")
            for name in raw.keys() - known
        ]

    def given(self, name: str) -> bool:
        return self._raw.get(name) is not None

    def text(self, name: str, *checks: Callable[[str], Any], required: bool = False) -> str | None:
        value = self._raw.get(name)
        if value is None or value == "":
            if required:
                self.problem(name, "is required", value)
            return None
        if not isinstance(value, str):
            self.problem(name, "must be text", value)
            return None
        for check in checks:
            for rule in check(value):
                self.problem(name, rule, value)
        return value

    def flag(self, name: str) -> bool:
        value = self._raw.get(name)
        if isinstance(value, str) and value.strip().lower() in _FLAGS:
            return _FLAGS[value.strip().lower()]
        if value is not None and not isinstance(value, bool):
            self.problem(name, "must be true or false", value)
        return value is True

    def number(self, name: str, least: int, most: int) -> int | None:
        value = self._raw.get(name)
        if isinstance(value, str) and value.strip().isdecimal() and len(value) < 20:
            value = int(value)
        if value is None or value == "":
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.problem(name, f"must be a whole number from {least} to {most:,}", value)
            return None
        return value

    def instant(self, name: str) -> datetime | None:
        """RFC 3339 with an offset, or nothing; never a naive time (F-33)."""
        value = self._raw.get(name)
        if value is None or value == "":
            return None
        if isinstance(value, str) and _RFC3339.fullmatch(value):
            try:
                return datetime.fromisoformat(value.upper()).astimezone(UTC)
            except (ValueError, OverflowError):
                pass  # a 13th month, a leap second: RFC 3339 in form, no instant of ours
        self.problem(name, "must be an RFC 3339 time with an offset, such as 2030-01-31T08:00:00+01:00", value)
        return None

    def problem(self, name: str, rule: str, value: object) -> None:
        self.problems.append(Problem(name, rule, shape(value)))

    def finish(self) -> None:
        if self.problems:
            raise InvalidInput(sorted(self.problems, key=lambda p: p.field))


_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}
REQUEST_FIELDS = frozenset(RequestDraft.__dataclass_fields__)
UPDATABLE = frozenset(
    ("activates_on", "expires_on", "endpoint", "reserve_user", "coupling", "configuration", "packages", "max_attempts")
)


def read_request(raw: Mapping[str, Any], now: datetime) -> RequestDraft:
    """The draft in ``raw``; texts are accepted for flags and numbers, since CSV has nothing else.

    Raises InvalidInput with every broken rule. now: UTC, the instant that ``activates_on`` defaults to."""
    fields = Fields(raw, REQUEST_FIELDS)
    password = fields.text("password", names.check_password)
    activates_on, expires_on = fields.instant("activates_on"), fields.instant("expires_on")
    if expires_on is not None:
        fields.problems += check_window(activates_on or now, expires_on)
    draft = RequestDraft(
        account=fields.text("account", required=True) or "",
        client_id=fields.text("client_id", names.check_client_id, required=True) or "",
        username=fields.text("username", names.check_username, required=True) or "",
        password=Secret(password) if password else None,
        activation_key=fields.flag("activation_key"),
        endpoint=fields.text("endpoint", names.check_endpoint),
        activates_on=activates_on,
        expires_on=expires_on,
        reserve_user=fields.flag("reserve_user"),
        coupling=read_coupling(fields, "coupling", Coupling.INHERITED),
        configuration=read_configuration(fields, raw.get("configuration")),
        packages=read_packages(fields, raw.get("packages")),
        max_attempts=fields.number("max_attempts", 1, MAX_ATTEMPTS_MAX),
        require_approval=fields.flag("require_approval"),
    )
    fields.finish()
    return draft


def read_update(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The changed fields of a request, checked; fields that are not named stay as they are."""
    fields = Fields(raw, UPDATABLE)
    readers: dict[str, Callable[[], Any]] = {
        "activates_on": lambda: fields.instant("activates_on"),
        "expires_on": lambda: fields.instant("expires_on"),
        "endpoint": lambda: fields.text("endpoint", names.check_endpoint),
        "reserve_user": lambda: fields.flag("reserve_user"),
        "coupling": lambda: read_coupling(fields, "coupling", Coupling.INHERITED),
        "configuration": lambda: read_configuration(fields, raw["configuration"]),
        "packages": lambda: read_packages(fields, raw["packages"]),
        "max_attempts": lambda: fields.number("max_attempts", 1, MAX_ATTEMPTS_MAX),
    }
    changed = {name: read() for name, read in readers.items() if name in raw}
    if "activates_on" in changed and changed["activates_on"] is None:
        fields.problem("activates_on", "cannot be removed", None)
    fields.finish()
    return changed


def read_coupling(fields: Fields, name: str, default: Coupling) -> Coupling:
    value = fields.text(name)
    if value is None:
        return default
    try:
        return Coupling(value.upper())
    except ValueError:
        fields.problem(name, "must be INHERITED, LOOSE or STRICT", value)
        return default


def read_configuration(fields: Fields, value: Any) -> Mapping[str, Any]:
    """An object of components, or the same as JSON text (a CSV cell)."""
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        value = _json_cell(fields, "configuration", value)
        if value is None:
            return {}
    rules = list(device_config.check(value))
    if not rules:
        try:
            if len(json.dumps(value, allow_nan=False, ensure_ascii=False).encode()) > CONFIGURATION_BYTES_MAX:
                rules.append(f"must be at most {CONFIGURATION_BYTES_MAX:,} bytes as JSON")
        except (TypeError, ValueError, UnicodeEncodeError):
            rules.append("must hold only texts, finite numbers, true, false, null, lists and objects")
    for rule in rules:
        fields.problem("configuration", rule, value)
    return value if not rules else {}


def read_packages(fields: Fields, value: Any) -> tuple[Package, ...]:
    """EC-35: a list of {name, version, url, sha256?}, or the same as JSON text."""
    if isinstance(value, str) and value:
        value = _json_cell(fields, "packages", value)
    if not value:
        return ()
    if not isinstance(value, list) or len(value) > PACKAGES_MAX:
        fields.problem("packages", f"must be a list of at most {PACKAGES_MAX}", value)
        return ()
    return tuple(p for index, raw in enumerate(value) if (p := _package(fields, f"packages[{index}]", raw)) is not None)


def _package(fields: Fields, at: str, raw: Any) -> Package | None:
    if not isinstance(raw, Mapping) or raw.keys() - {"name", "version", "url", "sha256"}:
        fields.problem(at, "must be an object of name, version, url and optional sha256", raw)
        return None
    name, version, url, digest = (raw.get(k) for k in ("name", "version", "url", "sha256"))
    before = len(fields.problems)
    for key, value in (("name", name), ("version", version)):
        if not isinstance(value, str) or not _PACKAGE_NAME.fullmatch(value):
            fields.problem(f"{at}.{key}", "must be 1 to 128 of A-Z a-z 0-9 . _ -", value)
    if not isinstance(url, str) or not _is_download_url(url):
        fields.problem(f"{at}.url", "must be an http or https URL with a host and without credentials", url)
    if digest is not None and (not isinstance(digest, str) or not _SHA256.fullmatch(digest)):
        fields.problem(f"{at}.sha256", "must be 64 hexadecimal digits", digest)
    if len(fields.problems) > before:
        return None
    return Package(name=str(name), version=str(version), url=str(url), sha256=digest)


def _is_download_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    plain = len(url) <= 2048 and url.isprintable() and not any(c.isspace() for c in url)
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None


def _json_cell(fields: Fields, name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        fields.problem(name, "must be JSON", text)
        return None
