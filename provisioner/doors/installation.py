"""A new installation on disk: settings, key ring, authority, server certificate and the first administrator.

Nothing that exists is overwritten. Files that hold secrets are 0600, folders 0700.
"""

import json
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from string import Template

from provisioner.authority.local_ca import LocalAuthority
from provisioner.model.errors import Conflict, InvalidInput, Problem, shape
from provisioner.model.secret import Secret
from provisioner.vault import generate
from provisioner.vault.keyring import KeyRing, new_ring_text

ADMIN_PURPOSE = "admin"  # of the verifier in admins.json
SETTINGS_FILE = "fleetgate.yaml"
CREDENTIAL_FILE = "admin-credential.json"
RING_FILE, ADMINS_FILE = "keys/ring.json", "admins.json"
CA_FILE, CA_KEY_FILE = "ca/ca.pem", "ca/ca.key"
SERVER_FILE, SERVER_KEY_FILE = "tls/server.pem", "tls/server.key"
DATA_FOLDER = "data"
DB_PASSWORD_FILE = "keys/db-password"
PRIVATE, READABLE, PRIVATE_FOLDER = 0o600, 0o644, 0o700
CREDENTIAL_BYTES_MAX = 4_096
ADMIN_CHARACTERS_MAX, HOST_CHARACTERS_MAX = 64, 253
_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*", re.ASCII)
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
# Kind of store -> what stands below ``store:`` in the settings.
STORES = {
    "tinydb": f"kind: tinydb\n  path: {DATA_FOLDER}",
    "sqlite": f"kind: sqlite\n  path: {DATA_FOLDER}/fleetgate.db",
    "postgresql": (
        "kind: postgresql\n  host: 127.0.0.1\n  port: 5432\n  database: fleetgate\n  user: fleetgate\n"
        f"  # Its password on one line, in a file that is yours to make, 0600.\n  password_file: {DB_PASSWORD_FILE}"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be made. ports: of the gate, of the embedded account broker, of the admin listener and of metrics.

    hosts: names and addresses, beside the local ones, under which the server is reached. store: one of ``STORES``."""

    admin: str = "admin"
    store: str = "tinydb"
    hosts: Sequence[str] = ()
    gate_port: int = 8883
    broker_port: int = 8884
    admin_port: int = 8885
    metrics_port: int = 9464


def create(directory: Path, plan: Plan, now: datetime) -> list[Path]:
    """Make the installation; the files, in order. Raises InvalidInput, and Conflict when there is one, or any of its
    files, already; then nothing was made."""
    _check(plan)
    files = (SETTINGS_FILE, CREDENTIAL_FILE, RING_FILE, ADMINS_FILE, CA_FILE, CA_KEY_FILE, SERVER_FILE, SERVER_KEY_FILE)
    for name in (*files, DATA_FOLDER):
        if (directory / name).exists() or (directory / name).is_symlink():
            raise Conflict(f"{directory / name} exists; an installation is never overwritten")
    made: list[Path] = []
    try:
        _make(directory, plan, now, made)
    except OSError as error:
        for path in reversed(made):
            path.unlink(missing_ok=True)
        problem = Problem(str(directory), f"must be a folder to write in: {error.strerror}", type(error).__name__)
        raise InvalidInput([problem]) from None
    return made


def read_credential(path: Path) -> tuple[str, Secret]:
    """Name and credential of an administrator. Refuses a file that others can read."""
    try:
        with path.open("rb") as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read(CREDENTIAL_BYTES_MAX)
    except OSError as error:
        rule = f"must be a readable credential file: {error.strerror}"
        raise InvalidInput([Problem(str(path), rule, type(error).__name__)]) from None
    if mode & 0o077:
        raise InvalidInput([Problem(str(path), "must not be readable by others (chmod 600)", "a wider mode")])
    try:
        whole = json.loads(text)
        name, credential = whole["name"], whole["credential"]
    except (ValueError, KeyError, TypeError):
        name = credential = None
    if not isinstance(name, str) or not isinstance(credential, str):
        raise InvalidInput([Problem(str(path), "must be JSON with name and credential", "something else")])
    return name, Secret(credential)


def read_admins(path: Path) -> dict[str, str]:
    """Name of each administrator -> verifier of the credential. Raises InvalidInput."""
    try:
        whole = json.loads(path.read_bytes())
    except OSError as error:
        rule = f"must be a readable file: {error.strerror}"
        raise InvalidInput([Problem(str(path), rule, type(error).__name__)]) from None
    except ValueError:
        whole = None
    if not isinstance(whole, dict) or not all(isinstance(verifier, str) for verifier in whole.values()):
        rule = "must be a JSON object: the name of each administrator, and the verifier that `fleetgate init` wrote"
        raise InvalidInput([Problem(str(path), rule, "something else")])
    return whole


def _make(directory: Path, plan: Plan, now: datetime, made: list[Path]) -> None:
    for folder in ("", "keys", "ca", "tls", DATA_FOLDER):
        (directory / folder).mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)

    def write(name: str, text: str, mode: int) -> Path:
        path = directory / name
        _write_new(path, text, mode)
        made.append(path)
        return path

    ring = KeyRing.read(write(RING_FILE, new_ring_text(), PRIVATE))
    authority = LocalAuthority.create("fleetgate authority", now)
    certificate, key = authority.server(_hosts(plan), now)
    write(CA_FILE, authority.pem, READABLE)
    write(CA_KEY_FILE, authority.key_pem().reveal(), PRIVATE)
    write(SERVER_FILE, certificate, READABLE)
    write(SERVER_KEY_FILE, key.reveal(), PRIVATE)
    credential = generate.password()
    admins = {plan.admin: ring.verifier(credential, ADMIN_PURPOSE, plan.admin)}
    write(ADMINS_FILE, json.dumps(admins, indent=1) + "\n", PRIVATE)
    own = {"name": plan.admin, "credential": credential.reveal()}
    write(CREDENTIAL_FILE, json.dumps(own, indent=1) + "\n", PRIVATE)
    # Last, for it is what makes the folder an installation.
    write(SETTINGS_FILE, settings_text(plan), READABLE)


def _check(plan: Plan) -> None:
    problems = [
        Problem(
            "host",
            "must be an address, or a host name of ASCII letters, digits and '-' (xn--... for others)",
            shape(host),
        )
        for host in plan.hosts
        if not _is_host(host)
    ]
    if not 1 <= len(plan.admin) <= ADMIN_CHARACTERS_MAX or not plan.admin.isprintable() or " " in plan.admin:
        rule = f"must be 1 to {ADMIN_CHARACTERS_MAX} printable characters without a blank"
        problems.append(Problem("admin", rule, shape(plan.admin)))
    taken: dict[int, str] = {}
    for name in ("gate_port", "broker_port", "admin_port", "metrics_port"):
        port = getattr(plan, name)
        if port and taken.setdefault(port, name) != name:
            problems.append(Problem(name, f"must not be that of {taken[port]}", str(port)))
    if problems:
        raise InvalidInput(problems)


def _is_host(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return len(host) <= HOST_CHARACTERS_MAX and _HOST.fullmatch(host) is not None
    return True


def _hosts(plan: Plan) -> list[str]:
    own = socket.gethostname()
    return list(dict.fromkeys((*LOCAL_HOSTS, *([own] if _is_host(own) else ()), *plan.hosts)))


def _write_new(path: Path, text: str, mode: int) -> None:
    """The mode holds from the first byte on, and whatever is there already stays."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def settings_text(plan: Plan) -> str:
    """fleetgate.yaml with what an administrator changes first, and why."""
    return _SETTINGS.substitute(
        gate_port=plan.gate_port,
        admin_port=plan.admin_port,
        broker_port=plan.broker_port,
        metrics_port=plan.metrics_port,
        server=SERVER_FILE,
        server_key=SERVER_KEY_FILE,
        admins=ADMINS_FILE,
        store=STORES[plan.store],
        ca=CA_FILE,
        ca_key=CA_KEY_FILE,
        ring=RING_FILE,
    )


_SETTINGS = Template("""\
# Settings of this fleetgate installation. Relative paths are relative to this file.
# `fleetgate config schema` lists every setting, `fleetgate config check` judges this file,
# and an environment variable overrides a value: FLEETGATE__ADMIN__PORT=9885

gate:
  # Where factory-fresh devices connect. Add {kind: websocket, port: 443} for devices behind a web proxy.
  listeners:
    - {kind: mqtt, host: "0.0.0.0", port: $gate_port, tls: true}
  # Renewed files are taken on SIGHUP.
  tls:
    certificate: $server
    key: $server_key

admin:
  # Where this command line talks to the service. Keep it on the loopback, or set tls: true.
  host: 127.0.0.1
  port: $admin_port
  tls: false
  # Names of administrators with the digests of their credentials.
  credentials: $admins

store:
  $store

account_brokers:
  # The account broker inside the service, for evaluation: loopback only.
  - name: embedded
    kind: embedded
    host: 127.0.0.1
    port: $broker_port
    tls: true

authority:
  certificate: $ca
  key: $ca_key

# Seals what devices may ask for again. Without this file the data is worth nothing: back it up apart from the data.
key_ring: $ring

policy:
  # Several requests may use one username and password; then each of them needs an activation key.
  shared_credentials_require_key: true
  # platform: a client id is taken once among all open requests. account: once in each account.
  client_id_scope: platform

# At the start two throw-away devices try to read and write each other's topics at the gate and at every account broker.
# warn: tell when one succeeds. refuse: then let no device in at that broker. off: only `fleetgate selftest` tries.
selftest_at_start: warn

# /metrics for Prometheus, /healthz and /readyz for whoever restarts and balances, at http://127.0.0.1:$metrics_port.
# They tell no secret, and whoever reaches them may read them. port: off opens nothing.
metrics: {host: 127.0.0.1, port: $metrics_port}

# text: a line a person reads. json: one object a line.
log_format: text
log_level: INFO
""")
