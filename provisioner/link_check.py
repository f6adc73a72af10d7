"""A look at the broker in the place of the gate: whether strangers stay out, the service is joined, and who cannot log
in there."""

import secrets
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from provisioner.account_brokers.mosquitto_check import Check
from provisioner.link.probe import Login, Probe, door_of
from provisioner.link_settings import MosquittoLinkSettings
from provisioner.links import link_context
from provisioner.model.secret import Secret

WITHIN_S = 5.0
_TO_DO = "delete each and create it again, with its password in a file (--password-file) or under a new username"


def look_at(link: MosquittoLinkSettings, base: Path, status: Mapping[str, Any] | None) -> list[Check]:
    """status: ``provision_link`` of the running service; None when it does not answer. Blocks. Raises InvalidInput."""
    checks = [_strangers(link, link_context(link, base))]
    if status is None:
        return [*checks, Check("provision link", False, "the service does not answer: start it, then look again")]
    is_up = bool(status["up"])
    joined = f"the service is joined to {link.url}"
    checks.append(Check("provision link", is_up, joined if is_up else f"the service is not joined to {link.url}"))
    return [*checks, _logins(status["requests_without_login"], status["without_login"])]


def _strangers(link: MosquittoLinkSettings, context: ssl.SSLContext | None) -> Check:
    """Under a client id of nobody: the service's own would throw it out."""
    name = f"fleetgate-check-{secrets.token_hex(6)}"
    door = door_of(link.url, context or ssl.create_default_context())
    stranger = Probe(door, name, Login(name, Secret(secrets.token_hex(16))), time.monotonic() + WITHIN_S)
    let_in = stranger.connect()
    stranger.leave()
    if let_in:
        return Check("provision strangers", False, f"{link.url} lets in whoever comes: set allow_anonymous false")
    if not stranger.answered:
        return Check("provision strangers", False, f"{link.url}: {stranger.failure}")
    return Check("provision strangers", True, "an unknown login is refused")


def _logins(count: int, named: list[str]) -> Check:
    if not count:
        return Check("provision logins", True, "every open request has one")
    more = f" and {count - len(named)} more" if count > len(named) else ""
    who = f"{', '.join(named)}{more}"
    return Check(
        "provision logins", False, f"made before provision_link, so that their devices stay out: {who}; {_TO_DO}"
    )
