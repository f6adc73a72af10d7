"""Settings of an installation: one YAML file, environment variables over it, every value checked by name.

``FLEETGATE__GATE__MAX_CONNECTIONS=500`` overrides ``gate: {max_connections: ...}``. Relative paths are
relative to the folder of the file.
"""

import os
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from provisioner.broker_settings import BrokerSettings, EmbeddedBrokerSettings
from provisioner.dialects.esf import EsfSettings
from provisioner.doors.once_yaml import OnceLoader, RepeatedKey
from provisioner.link_settings import GateLinkSettings, ProvisionLink, check_policy
from provisioner.model.errors import InvalidInput, Problem, shape
from provisioner.model.policy import AtStart, Policy
from provisioner.store_settings import StoreSettings, TinyDbSettings

ENVIRONMENT_PREFIX = "FLEETGATE__"
FILE_NAME = "fleetgate.yaml"
FILE_BYTES_MAX = 1_048_576
SHARED_STORES = ("postgresql",)
SHARED_BROKERS = ("http-callback",)  # others are told of users by one process, and know no second one

Port = Field(ge=0, le=65_535)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsFiles(_Part):
    """PEM files of a listener's certificate chain and key."""

    certificate: Path = Path("tls/server.pem")
    key: Path = Path("tls/server.key")


class ListenerSettings(_Part):
    """One listener. ``kind`` is mqtt or websocket; without ``tls`` it is plain. Port 0 takes a free one.

    proxy_protocol: devices come through a load balancer that names each in a PROXY header (version 1 or 2); it comes
    from one of the networks in trusted_proxies, and nobody else may connect.
    """

    name: str = ""
    kind: Literal["mqtt", "websocket"] = "mqtt"
    host: str = "0.0.0.0"
    port: int = Port
    tls: bool = True
    proxy_protocol: bool = False
    trusted_proxies: tuple[str, ...] = ()

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for each in networks:
            try:
                ip_network(each)
            except ValueError:
                raise ValueError("each must be a network such as 10.0.0.0/24 or an address") from None
        return networks

    @model_validator(mode="after")
    def _proxies_are_named(self) -> Self:
        if self.proxy_protocol != bool(self.trusted_proxies):
            raise ValueError("proxy_protocol and trusted_proxies: set both or none, or anybody could name any address")
        return self


class GateSettings(_Part):
    """The provision broker. Plain listeners are off unless listed (EC-37).

    workers: so many processes on this host listen on the same ports; each is a gate of its own.
    """

    workers: int = Field(default=1, ge=1, le=64)
    listeners: tuple[ListenerSettings, ...] = (ListenerSettings(port=8883),)
    tls: TlsFiles = TlsFiles()
    limits: Mapping[str, float] = Field(default_factory=dict)
    drain_s: float = Field(default=10.0, ge=0, le=600)


class AdminSettings(_Part):
    """The administrators' listener and their names with the digests of their credentials."""

    host: str = "127.0.0.1"
    port: int = Field(default=8885, ge=0, le=65_535)
    tls: bool = False
    credentials: Path = Path("admins.json")


class MetricsSettings(_Part):
    """Where metrics, health and readiness are asked for over HTTP; ``port: off``: nowhere. Nobody logs in there."""

    host: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=0, le=65_535)

    @field_validator("port", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        return None if value is False or value == "off" else value

    def of_worker(self, number: int) -> Self:
        """Each has a port of its own, from this one on: what is measured is of one process. number: from 1."""
        return self.model_copy(update={"port": self.port + number - 1}) if self.port else self


class AuthoritySettings(_Part):
    certificate: Path = Path("ca/ca.pem")
    key: Path = Path("ca/ca.key")


class Settings(_Part):
    """The whole file. ``policy`` and ``esf`` take the fields of ``Policy`` and ``EsfSettings``.

    selftest_at_start: off, warn (prove isolation and tell) or refuse (use no account broker that has not passed).
    """

    gate: GateSettings = GateSettings()
    provision_link: ProvisionLink = GateLinkSettings()
    admin: AdminSettings = AdminSettings()
    store: StoreSettings = TinyDbSettings()
    account_brokers: tuple[BrokerSettings, ...] = (EmbeddedBrokerSettings(),)
    authority: AuthoritySettings = AuthoritySettings()
    key_ring: Path = Path("keys/ring.json")
    policy: Policy = Policy()
    esf: EsfSettings = EsfSettings()
    selftest_at_start: AtStart = AtStart.OFF
    metrics: MetricsSettings = MetricsSettings()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"

    @field_validator("selftest_at_start", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        return AtStart.OFF if value is False else value  # as YAML reads a bare off

    @field_validator("gate")
    @classmethod
    def _listeners_differ(cls, gate: GateSettings) -> GateSettings:
        names = [each.name for each in gate.listeners if each.name]
        if not gate.listeners or len(set(names)) != len(names):
            raise ValueError("listeners: at least one, and with different names")
        return gate

    @field_validator("account_brokers")
    @classmethod
    def _names_differ(cls, brokers: tuple[BrokerSettings, ...]) -> tuple[BrokerSettings, ...]:
        if len({broker.name for broker in brokers}) != len(brokers):
            raise ValueError("account brokers need different names")
        return brokers

    @model_validator(mode="after")
    def _link_keeps_the_policy(self) -> Self:
        check_policy(self.provision_link, self.policy)
        return self

    @model_validator(mode="after")
    def _workers_share_all(self) -> Self:
        if self.gate.workers > 1:
            _check_workers(self)
        return self


def _check_workers(settings: Settings) -> None:
    """Raises ValueError for what several processes on one host cannot have together."""
    if settings.store.kind not in SHARED_STORES:
        raise ValueError(f"gate.workers: more than one needs store.kind postgresql; {settings.store.kind} has one user")
    if settings.provision_link.kind != "gate":
        raise ValueError("gate.workers: must be 1 where provision_link stands in the place of the gate")
    if settings.admin.port == 0 or any(each.port == 0 for each in settings.gate.listeners):
        raise ValueError("gate.workers: more than one listen on the same ports, so that none may be 0")
    for each in settings.account_brokers:
        if each.kind not in SHARED_BROKERS:
            rule = f"of kind {each.kind} serves one process; use one of kind {', '.join(SHARED_BROKERS)}"
            raise ValueError(f"gate.workers: must be 1: account broker {each.name} {rule}")


def read(path: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings in ``path``, the environment over them. Raises InvalidInput naming each field and rule."""
    values = _load(path)
    for name, text in (os.environ if environment is None else environment).items():
        if name.startswith(ENVIRONMENT_PREFIX):
            _override(values, name, text)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        # The input is left out: a misplaced secret must not come back in a message.
        raise InvalidInput(_problem(e) for e in error.errors(include_url=False)) from None


def _problem(error: ErrorDetails) -> Problem:
    place = ".".join(map(str, error["loc"]))
    if error["type"] == "union_tag_invalid":
        return Problem(f"{place}.kind", f"must be one of {error['ctx']['expected_tags']}", "something else")
    return Problem(place or "file", rule_of(error), shape(error["input"]))


def rule_of(error: ErrorDetails) -> str:
    """What would be right, in the words of all other messages."""
    return _RULES.get(error["type"]) or error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")


_RULES = {
    "extra_forbidden": "is not a setting; `fleetgate config schema` lists those that are",
    "missing": "is required",
    "path_type": "must be a path",
    "model_type": "must be a mapping of settings",
    "dataclass_type": "must be a mapping of settings",
}


def schema() -> dict[str, Any]:
    """JSON Schema of the file."""
    return Settings.model_json_schema()


def _load(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        rule = "does not exist; make an installation with `fleetgate init`"
        raise InvalidInput([Problem(str(path), rule, "nothing")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput([Problem(str(path), "must be a readable UTF-8 file", type(error).__name__)]) from None
    if len(text) > FILE_BYTES_MAX:
        raise InvalidInput([Problem(str(path), f"must be at most {FILE_BYTES_MAX:,} bytes", shape(text))])
    values = _parse(text, str(path))
    if values is not None and not isinstance(values, dict):
        raise InvalidInput([Problem(str(path), "must hold a mapping of settings", shape(values))])
    return values or {}


def _override(values: dict[str, Any], variable: str, text: str) -> None:
    path = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
    for name in path[:-1]:
        below = values.setdefault(name, {})
        if not isinstance(below, dict):
            rule = "an environment variable can only override plain settings"
            raise InvalidInput([Problem(".".join(path), rule, shape(below))])
        values = below
    values[path[-1]] = _parse(text, variable)


def _parse(text: str, field: str) -> Any:
    """YAML; the text of its parser's errors is left out, for it holds that of the file."""
    try:
        return yaml.load(text, Loader=OnceLoader)
    except RepeatedKey as error:
        rule = f"must name no key twice, as line {error.line} does"
        raise InvalidInput([Problem(field, rule, "something else")]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "the text"
        raise InvalidInput([Problem(field, f"must be YAML: {where} is not", "something else")]) from None
    except (ValueError, RecursionError):  # a date that the calendar lacks, brackets without end
        raise InvalidInput([Problem(field, "must be YAML with plain values", "something else")]) from None
