"""The configuration of a broker that asks us over HTTP, of the settings that name it, in a folder to be copied."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from broker import emqx, rabbitmq, vernemq
from broker.callback_plan import CallbackPlan, Endpoint, Operator, TlsPaths
from provisioner.account_brokers.mosquitto_passwords import replace_file
from provisioner.account_brokers.mosquitto_user_files import OURS_ONLY, read_or_make_secret
from provisioner.broker_settings import BrokerSettings
from provisioner.callback_settings import LOOPBACK, HttpCallbackSettings
from provisioner.model.errors import InvalidInput, Problem, Unavailable
from provisioner.vault import generate

FOLDER_MODE = 0o700
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SALT_BYTES = 4

_RENDER: Mapping[str, Callable[[CallbackPlan], dict[str, str]]] = {
    "rabbitmq": lambda plan: rabbitmq.render(plan, secrets.token_bytes(_SALT_BYTES)),
    "emqx": emqx.render,
    "vernemq": vernemq.render,
}
_STEPS = {
    "rabbitmq": """\
1. Bring the folder to {folder} on each node, readable for the user rabbitmq alone (chown -R, chmod 700).
2. Copy rabbitmq.conf, enabled_plugins and, when it is there, advanced.config into /etc/rabbitmq; definitions.json is
   read where it is.
3. Restart rabbitmq-server. The nodes of a cluster need one and the same .erlang.cookie.
4. Close 4369 and 25672 to everybody but the nodes.""",
    "emqx": """\
1. Bring the folder to {folder} on each node, readable for the user emqx alone (chown -R, chmod 700).
2. Take authentication, authorization and node.cookie out of /etc/emqx/emqx.conf, then append fleetgate-emqx.conf to it.
3. Restart emqx. On its first start the user admin of the dashboard gets the password that is rendered; on an EMQX
   that ran before, change it yourself: everybody knows the one that it came with.
4. Close 4370 and 5370 to everybody but the nodes.""",
    "vernemq": """\
1. Copy vernemq.conf to /etc/vernemq on each node, readable for the user vernemq alone. Its binary packages want an
   accept_eula from you in it.
2. Add nodename, and in a cluster change listener.vmq.clustering to where the nodes reach each other.
3. Restart vernemq.
4. Close 4369 and the ports of the cluster to everybody but the nodes.""",
}


@dataclass(frozen=True, slots=True)
class Rendered:
    """files: that were written. next_steps: for people."""

    files: Sequence[Path]
    next_steps: str


def chosen(each: BrokerSettings) -> HttpCallbackSettings:
    """The settings as those of a broker that asks. Raises InvalidInput when they are of something else."""
    if isinstance(each, HttpCallbackSettings):
        return each
    raise InvalidInput([Problem(f"account_brokers.{each.name}.kind", "must be http-callback", repr(each.kind))])


def write_configuration(
    each: HttpCallbackSettings,
    base: Path,
    folder: Path,
    nodes: Sequence[str] = (),
    shown: tuple[Path, Path] | None = None,
) -> Rendered:
    """Everything that the broker needs, in ``folder``, for nobody but us to read; secrets are made when missing.

    nodes: of the cluster. shown: certificate and key that the broker proves itself by, where it does so.
    Raises InvalidInput for what cannot stand in a configuration, Unavailable."""
    folder = folder.absolute()
    try:
        files = _RENDER[each.product](_plan(each, base.absolute(), folder, tuple(nodes), shown))
    except ValueError as error:
        raise InvalidInput([Problem(f"account_brokers.{each.name}", str(error), "a text")]) from None
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        for name, text in files.items():
            replace_file(folder / name, text, mode=OURS_ONLY)
    except OSError as error:
        raise Unavailable(f"{folder} cannot be written: {type(error).__name__}") from None
    steps = _STEPS[each.product].format(folder=folder)
    last = f"5. Start fleetgate, then: fleetgate broker check {each.name}; fleetgate selftest"
    return Rendered([folder / name for name in files], f"Next steps:\n{steps}\n{last}")


def _plan(
    each: HttpCallbackSettings, base: Path, folder: Path, nodes: tuple[str, ...], shown: tuple[Path, Path] | None
) -> CallbackPlan:
    tls = TlsPaths(certificate=base / each.certificate, key=base / each.key, authority=base / each.authority)
    return CallbackPlan(
        name=each.name,
        folder=folder,
        host=each.host,
        port=each.port,
        tls=tls if each.tls else None,
        endpoint=_endpoint(each, base, shown),
        operator=_operator(each, base),
        cookie=_kept(each, base, "cookie") if each.product in ("emqx", "vernemq") else None,
        console_password=_kept(each, base, "dashboard") if each.product == "emqx" else None,
        nodes=nodes,
        vhost=each.vhost,
    )


def _endpoint(each: HttpCallbackSettings, base: Path, shown: tuple[Path, Path] | None) -> Endpoint:
    if each.client_ca is not None and shown is None:
        raise ValueError("client_ca is set: name the broker's certificate and key (--client-certificate, --client-key)")
    proof = {"certificate": shown[0].absolute(), "key": shown[1].absolute()} if each.client_ca and shown else {}
    secret = None if each.client_ca else read_or_make_secret(base / each.secret_file, generate.password()).reveal()
    return Endpoint(
        host=each.callback_url_host or each.callback_host,
        port=each.callback_port,
        authority=base / each.authority if each.callback_tls else None,
        secret=secret,
        **proof,
    )


def _operator(each: HttpCallbackSettings, base: Path) -> Operator | None:
    """The first of the management addresses says how the nodes open it; its password is made when missing."""
    given = each.management
    if given is None:
        return None
    first = urlsplit(given.urls[0])
    return Operator(
        username=given.username,
        password=read_or_make_secret(base / given.password, generate.password()).reveal(),
        port=first.port or _DEFAULT_PORTS[first.scheme],
        is_tls=first.scheme == "https",
        is_near=first.hostname in LOOPBACK,
    )


def _kept(each: HttpCallbackSettings, base: Path, what: str) -> str:
    """A secret beside that of the callbacks, the same whenever it is rendered."""
    return read_or_make_secret((base / each.secret_file).with_suffix(f".{what}"), generate.password()).reveal()
