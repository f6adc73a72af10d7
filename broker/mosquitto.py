"""Renders the configuration of a mosquitto 2 that serves as an account broker: hardened, and nothing left to guess.

Two listeners: one for devices, one for the service itself, which hears there who connected. docs/account-brokers.md
says of each line what it stops.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from broker.tls import CIPHERS

PLUGIN = Path("/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so")
PACKET_BYTES_MAX = 1_048_576
QUEUED_MAX = 20_000
NOTICES = "$SYS/broker/log/N"
_DYNSEC = "$CONTROL/dynamic-security/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class MosquittoListener:
    """certificate and key: PEM files; None for plain TCP."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MosquittoPlan:
    """folder: of the files that mosquitto reads users from, or keeps its state in.

    pid_file: where it leaves its process id. system_user: whom it becomes when it was started by root.
    authority: PEM file, where devices are known by certificates."""

    name: str
    users: Literal["files", "dynsec", "certificates"]
    folder: Path
    devices: MosquittoListener
    control: MosquittoListener
    pid_file: Path | None = None
    system_user: str | None = None
    plugin: Path = PLUGIN
    authority: Path | None = None


def render(plan: MosquittoPlan) -> str:
    """The text of mosquitto.conf. Raises ValueError for a path or a name that cannot stand there."""
    return "\n".join((*_common(plan), *_listener(plan, plan.devices, "devices"), *_listener(plan, plan.control, "us")))


def dynsec_state(username: str, digest: str) -> str:
    """The plugin's first state: the service alone, who may command and hear, and nothing allowed to anybody else.

    digest: of the service's password, ``$7$<iterations>$<salt>$<PBKDF2-SHA512>``."""
    _, _, iterations, salt, derived = digest.split("$")
    rights = [
        ("publishClientSend", _DYNSEC),
        *((kind, f"{_DYNSEC}/response") for kind in ("publishClientReceive", "subscribeLiteral")),
        *((kind, NOTICES) for kind in ("publishClientReceive", "subscribeLiteral")),
    ]
    role = {"rolename": "service", "acls": [{"acltype": k, "topic": t, "allow": True} for k, t in rights]}
    service = {"username": username, "password": derived, "salt": salt, "iterations": int(iterations)}
    denied = dict.fromkeys(("publishClientSend", "publishClientReceive", "subscribe"), False)
    state = {
        "clients": [{**service, "roles": [{"rolename": "service"}]}],
        "roles": [role],
        "defaultACLAccess": {**denied, "unsubscribe": True},
    }
    return json.dumps(state, indent=1) + "\n"


def _common(plan: MosquittoPlan) -> Iterator[str]:
    yield f"# mosquitto as account broker {plan.name!r}, rendered by fleetgate. Change the settings, then render again."
    # The plugin's state is one for the whole broker; files differ between the listeners.
    yield f"per_listener_settings {'false' if plan.users == 'dynsec' else 'true'}"
    if plan.system_user is not None:
        yield f"user {_word(plan.system_user)}"
    if plan.pid_file is not None:
        yield f"pid_file {_path(plan.pid_file)}"
    yield from ("", "# Who connects is told to the service, by the log.")
    yield from ("log_dest topic", "log_dest stdout", "connection_messages true", "log_timestamp true")
    yield from (f"log_type {kind}" for kind in ("error", "warning", "notice", "information"))
    yield from ("", "# Limits, and no waiting for more to send.")
    yield "set_tcp_nodelay true"
    yield f"max_packet_size {PACKET_BYTES_MAX}"
    yield f"max_queued_messages {QUEUED_MAX}"
    yield "persistence false"
    if plan.users == "dynsec":
        yield from ("", f"plugin {_path(plan.plugin)}")
        yield f"plugin_opt_config_file {_path(plan.folder / 'dynamic-security.json')}"
        yield from ("allow_anonymous false", "allow_zero_length_clientid false")


def _listener(plan: MosquittoPlan, listener: MosquittoListener, whose: Literal["devices", "us"]) -> Iterator[str]:
    yield from ("", f"# For {'devices' if whose == 'devices' else 'the service alone'}.")
    yield f"listener {listener.port} {_word(listener.host)}"
    if listener.certificate is not None and listener.key is not None:
        yield f"certfile {_path(listener.certificate)}"
        yield f"keyfile {_path(listener.key)}"
        yield "tls_version tlsv1.2"
        yield f"ciphers {CIPHERS}"
    if plan.users == "files":
        prefix = "" if whose == "devices" else "control-"
        yield from ("allow_anonymous false", "allow_zero_length_clientid false")
        yield f"password_file {_path(plan.folder / f'{prefix}passwords')}"
        yield f"acl_file {_path(plan.folder / f'{prefix}acl')}"
        if whose == "devices":
            yield "# A user is its client id: there is none to steal."
            yield "use_username_as_clientid true"
    if plan.users == "certificates":
        yield from _by_certificate(plan) if whose == "devices" else _by_password(plan)
    if whose == "us":
        yield "max_connections 10"
        yield ""


def _by_certificate(plan: MosquittoPlan) -> Iterator[str]:
    """Raises ValueError when the plan names no authority, for then anybody could be anybody."""
    if plan.authority is None or plan.devices.certificate is None:
        raise ValueError("devices that are known by their certificates need an authority, and a listener with TLS")
    yield f"cafile {_path(plan.authority)}"
    yield "# The certificate is the login, and its name the client id: there is none to steal."
    yield from ("require_certificate true", "use_identity_as_username true", "use_username_as_clientid true")
    yield f"crlfile {_path(plan.folder / 'revoked.pem')}"
    yield f"acl_file {_path(plan.folder / 'acl')}"


def _by_password(plan: MosquittoPlan) -> Iterator[str]:
    yield from ("allow_anonymous false", "allow_zero_length_clientid false")
    yield f"password_file {_path(plan.folder / 'control-passwords')}"
    yield f"acl_file {_path(plan.folder / 'control-acl')}"


def _path(path: Path) -> str:
    """mosquitto takes the rest of the line; a line break would begin a setting of its own. Raises ValueError."""
    text = str(path)
    if not text.isprintable() or text != text.strip():
        raise ValueError("a path in mosquitto's configuration has neither control characters nor spaces at its ends")
    return text


def _word(text: str) -> str:
    """A host or a user. Raises ValueError."""
    if not text.isprintable() or not text or " " in text:
        raise ValueError("a name in mosquitto's configuration has neither control characters nor spaces")
    return text
