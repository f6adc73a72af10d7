"""The files that the settings name, and the limits in them, judged before anything is opened; all at once."""

import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from provisioner.authority.local_ca import LocalAuthority
from provisioner.broker_settings import EmbeddedBrokerSettings
from provisioner.callback_settings import HttpCallbackSettings
from provisioner.config import Settings
from provisioner.doors.installation import read_admins
from provisioner.gate_setup import limits_of
from provisioner.model.errors import InvalidInput, Problem
from provisioner.vault.keyring import KeyRing


def judge(settings: Settings, base: Path) -> None:
    """Raises InvalidInput. A data folder may be missing: the store makes it."""
    problems = list(_missing(settings, base)) or list(_unfit(settings, base))
    if problems:
        raise InvalidInput(problems)


def judge_certificate(settings: Settings, base: Path) -> None:
    """As ``judge``, of the certificate alone that our servers show; fine where none does."""
    if _shows_certificate(settings):
        if problems := list(_unreadable(_certificate(settings), base)):
            raise InvalidInput(problems)
        _check_pair(settings, base)


def _missing(settings: Settings, base: Path) -> Iterator[Problem]:
    named = {
        "key_ring": settings.key_ring,
        "authority.certificate": settings.authority.certificate,
        "authority.key": settings.authority.key,
        "admin.credentials": settings.admin.credentials,
    }
    if _shows_certificate(settings):
        named |= _certificate(settings)
    link = settings.provision_link
    if link.kind == "mosquitto":
        named["provision_link.password_file"] = link.password_file
        if link.ca is not None:
            named["provision_link.ca"] = link.ca
    return _unreadable(named, base)


def _certificate(settings: Settings) -> dict[str, Path]:
    return {"gate.tls.certificate": settings.gate.tls.certificate, "gate.tls.key": settings.gate.tls.key}


def _unreadable(named: Mapping[str, Path], base: Path) -> Iterator[Problem]:
    for field, path in named.items():
        try:
            (base / path).open("rb").close()
        except OSError as error:
            rule = f"must name a readable file, {base / path} is none; bring it back from where it is kept"
            yield Problem(field, rule, error.strerror or type(error).__name__)


def _unfit(settings: Settings, base: Path) -> Iterator[Problem]:
    authority = settings.authority
    parts: list[tuple[str, Callable[[], object]]] = [
        ("gate.limits", lambda: limits_of(settings.gate.limits)),
        ("key_ring", lambda: KeyRing.read(base / settings.key_ring)),
        ("authority", lambda: LocalAuthority.read(base / authority.certificate, base / authority.key)),
        ("admin.credentials", lambda: read_admins(base / settings.admin.credentials)),
    ]
    if _shows_certificate(settings):
        parts.append(("gate.tls", lambda: _check_pair(settings, base)))
    for field, read in parts:
        try:
            read()
        except InvalidInput as error:
            yield from (Problem(_told(field, each.field), each.rule, each.shape) for each in error.problems)


def _told(setting: str, field: str) -> str:
    """The setting's name, and the file's where there may be several."""
    if field.startswith(setting):
        return field
    return f"{setting}: {field}" if Path(field).is_absolute() else setting


def _shows_certificate(settings: Settings) -> bool:
    """Whether anything of ours speaks TLS as a server; the broker of the evaluation mode has it at hand always."""
    at_gate = settings.provision_link.kind == "gate" and any(each.tls for each in settings.gate.listeners)
    return at_gate or settings.admin.tls or any(map(_asks_for_it, settings.account_brokers))


def _asks_for_it(each: object) -> bool:
    return isinstance(each, EmbeddedBrokerSettings) or (isinstance(each, HttpCallbackSettings) and each.callback_tls)


def _check_pair(settings: Settings, base: Path) -> None:
    certificate, key = base / settings.gate.tls.certificate, base / settings.gate.tls.key
    try:
        x509.load_pem_x509_certificates(certificate.read_bytes())
    except ValueError:
        raise _unlike("certificate", f"{certificate} must be a PEM certificate with its chain") from None
    try:
        serialization.load_pem_private_key(key.read_bytes(), None)
    except (ValueError, TypeError):
        raise _unlike("key", f"{key} must be a PEM private key without a pass phrase") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise _unlike("key", f"{key} must be the key of {certificate}: {error.reason}") from None


def _unlike(part: str, rule: str) -> InvalidInput:
    return InvalidInput([Problem(f"gate.tls.{part}", rule, "something else")])
