"""Every configuration that is rendered, in all its variants, and the names of the settings in it."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from broker import emqx, rabbitmq, vernemq
from broker.callback_plan import CallbackPlan, Endpoint, Operator, TlsPaths
from broker.mosquitto import MosquittoListener, MosquittoPlan, render

ROOT = Path(__file__).parents[2]
TLS = TlsPaths(certificate=Path("/tls/server.pem"), key=Path("/tls/server.key"), authority=Path("/tls/ca.pem"))
SECRET = "Fg-0123456789ABCDEFGHJKMNPQR"
OPERATOR = Operator(username="operator", password="Operator-word-1", port=15672, is_tls=False, is_near=True)
PLAN = CallbackPlan(
    name="site",
    folder=Path("/etc/site"),
    host="0.0.0.0",
    port=8883,
    tls=TLS,
    endpoint=Endpoint(host="gate.example", port=8886, secret=SECRET),
    operator=OPERATOR,
    cookie="Fg-cookie",
    console_password="Fg-console",
)
_LISTENER = MosquittoListener(host="0.0.0.0", port=8883, certificate=TLS.certificate, key=TLS.key)
MOSQUITTO_PLAN = MosquittoPlan(
    name="south",
    users="files",
    folder=Path("/var/lib/south"),
    devices=_LISTENER,
    control=MosquittoListener(host="127.0.0.1", port=1884),
    pid_file=Path("/run/south.pid"),
    system_user="mosquitto",
    authority=Path("/tls/ca.pem"),
)


def plans() -> Iterator[CallbackPlan]:
    """Every setting of every product is in one of them."""
    asked = Endpoint(host="gate.example", port=8886, authority=TLS.authority, certificate=TLS.certificate, key=TLS.key)
    yield PLAN
    yield replace(PLAN, tls=None, operator=None)
    yield replace(PLAN, endpoint=asked, nodes=("rabbit@one", "rabbit@two"))
    yield replace(PLAN, operator=replace(OPERATOR, is_tls=True, is_near=False))


def mosquitto_settings() -> set[str]:
    texts = [render(replace(MOSQUITTO_PLAN, users=users)) for users in ("files", "dynsec", "certificates")]
    return {name for text in texts for name in _first_words(text)}


def provision_settings() -> set[str]:
    """Of the mosquitto.conf at the root."""
    return set(_first_words((ROOT / "mosquitto.conf").read_text()))


def rabbitmq_settings() -> set[str]:
    texts = [rabbitmq.render(plan, b"salt")[rabbitmq.CONFIGURATION] for plan in plans()]
    return {name for text in texts for name in _assigned(text)}


def vernemq_settings() -> set[str]:
    return {name for plan in plans() for name in _assigned(vernemq.render(plan)[vernemq.CONFIGURATION])}


def emqx_settings() -> set[str]:
    return {name for plan in plans() for name in hocon_names(emqx.render(plan)[emqx.CONFIGURATION])}


def _first_words(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line and not line.startswith("#"):
            yield line.split()[0]


def _assigned(text: str) -> Iterator[str]:
    """A number, and a name that we chose, is ``*``."""
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name = line.partition(" = ")[0]
            parts = ["*" if re.fullmatch(r"(fleetgate)?\d+", part) else part for part in name.split(".")]
            yield "loopback_users.*" if parts[0] == "loopback_users" else ".".join(parts)


def hocon_names(text: str) -> Iterator[str]:
    """Of what stands one setting on a line, in blocks; an entry of a list has the name of the list."""
    path: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if line.endswith(("{", "[")):
            path.append(line.removesuffix("[").removesuffix("{").removesuffix(" ").removesuffix("=").strip().strip('"'))
        elif line in ("}", "]"):
            path.pop()
        else:
            name = line.partition(" = ")[0].strip('"')
            yield ".".join(part for part in (*path, name) if part)
