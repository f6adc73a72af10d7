"""What the configuration of a broker that asks us over HTTP is rendered from, whichever product it is.

docs/hardening.md says of each rendered setting what it stops.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

PACKET_BYTES_MAX = 1_048_576
CONNECTIONS_MAX = 20_000
BACKLOG = 4_096
CONNECT_WITHIN_S = 10
ASK_WITHIN_S = 5
SESSION_KEPT_S = 86_400
# The service's own endpoint is one process: more connections would only wait for each other.
POOL = 32
CIPHERS_13 = ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256")
CIPHERS_12 = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]+")  # [RFC 3986 2.3]
_CALLER = "broker"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPaths:
    """PEM files on the host of the broker. authority: who signed the certificate."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the broker asks, and how it proves itself: by a secret, or by a certificate of its own.

    authority: who signed what the endpoint shows, None for plain HTTP. ValueError for a secret that cannot stand in
    an address, or for neither proof."""

    host: str
    port: int
    authority: Path | None = None
    secret: str | None = field(default=None, repr=False)
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if self.secret is None and (self.certificate is None or self.key is None):
            raise ValueError("the broker needs a secret, or a certificate and its key, to prove itself by")
        if self.secret is not None and not _UNRESERVED.fullmatch(self.secret):
            raise ValueError("the secret is part of an address: letters, digits, '-', '.', '_' and '~' alone")

    @property
    def is_tls(self) -> bool:
        return self.authority is not None

    @property
    def url(self) -> str:
        """Without the secret."""
        return f"{self._scheme}://{bracketed(self.host)}:{self.port}"

    @property
    def url_with_secret(self) -> str:
        """As HTTP Basic for brokers that can send no header of ours."""
        user = f"{_CALLER}:{self.secret}@" if self.secret is not None else ""
        return f"{self._scheme}://{user}{bracketed(self.host)}:{self.port}"

    @property
    def _scheme(self) -> str:
        return "https" if self.is_tls else "http"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """The user that live connections are cut by, at the broker's management interface. password: clear."""

    username: str
    password: str = field(repr=False)
    port: int
    is_tls: bool
    is_near: bool  # the interface is wanted on the loopback interface only


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackPlan:
    """folder: where the rendered files will be read from. tls: of the devices' listener, None for plain TCP.

    cookie: what the nodes of one cluster know each other by, None where the product makes its own.
    console_password: of the first user of the product's web console, None where there is none.
    nodes: of the cluster, by their Erlang names; empty for a broker of one node."""

    name: str
    folder: Path
    host: str
    port: int
    tls: TlsPaths | None
    endpoint: Endpoint
    operator: Operator | None = None
    cookie: str | None = field(default=None, repr=False)
    console_password: str | None = field(default=None, repr=False)
    nodes: tuple[str, ...] = ()
    vhost: str = "/"

    def __post_init__(self) -> None:
        operator = () if self.operator is None else (self.operator.username,)
        for text in (self.name, self.host, self.vhost, self.endpoint.host, *operator, *self.nodes):
            in_one_line(text)
        if self.operator is not None and self.operator.is_tls and self.tls is None:
            raise ValueError("a management interface over https needs tls: it shows the listener's certificate")


def in_one_line(text: str | Path) -> str:
    """The text, which a setting may have as its value. Raises ValueError: a line break would begin one of its own."""
    value = str(text)
    if not value.isprintable() or value != value.strip() or not value or set(value) & set("\"'#\\"):
        raise ValueError("a value in the configuration has no control characters, quotes, '#', nor spaces at its ends")
    return value


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def headed(plan: CallbackPlan, product: str, lines: Iterable[str]) -> str:
    """The text of a file whose comments begin with ``#``."""
    head = f"# {product} as account broker {plan.name!r}, rendered by fleetgate. Change the settings, render again."
    return "\n".join((head, *lines, ""))
