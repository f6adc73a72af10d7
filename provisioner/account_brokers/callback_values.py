"""What an account broker asks over HTTP, as values; each broker's own way of asking is a `CallbackFormat`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from provisioner.model.topics import DeviceTopics

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """headers: names in lower case; of a name that comes twice the last value. path: without the query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """headers: beside content-type and content-length."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain"
    headers: Mapping[str, str] = field(default_factory=dict)


class Act(StrEnum):
    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    RECEIVE = "receive"


@dataclass(frozen=True, slots=True)
class Login:
    """May this client connect? arrives: nothing else will tell that it did, so that an accepted login is a sighting."""

    username: str
    password: bytes = field(repr=False)
    client_id: str
    address: str | None = None
    arrives: bool = False


@dataclass(frozen=True, slots=True)
class Topics:
    """May it do this with each of these topics or filters?"""

    username: str
    client_id: str
    act: Act
    topics: Sequence[str]


@dataclass(frozen=True, slots=True)
class Arrival:
    """It is in: the broker's last question, or its report. connection: see ``Sighting``."""

    username: str
    client_id: str
    address: str | None = None
    connection: str | None = None


@dataclass(frozen=True, slots=True)
class Departure:
    """It left, and nobody took its place. lost: neither it nor the broker's administrator said so."""

    username: str
    client_id: str
    connection: str | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """A question whose answer depends on no user."""

    allowed: bool


Question = Login | Topics | Arrival | Departure | Settled


@dataclass(frozen=True, slots=True)
class Verdict:
    """granted: one for each topic that was asked about, else one. own: the topics of a client that was let in."""

    granted: Sequence[bool]
    own: DeviceTopics | None = None

    @property
    def allowed(self) -> bool:
        return bool(self.granted) and all(self.granted)


class CallbackFormat(Protocol):
    """One broker's requests and responses. Pure.

    mqtt5, reports_leaving, refusal_disconnects, client_id_forbidden: see ``Capabilities``.
    """

    @property
    def mqtt5(self) -> bool: ...
    @property
    def reports_leaving(self) -> bool: ...
    @property
    def refusal_disconnects(self) -> bool: ...
    @property
    def client_id_forbidden(self) -> str: ...

    def read(self, request: HttpRequest) -> Question | None:
        """None: no message of this broker."""

    def answer(self, request: HttpRequest, question: Question, verdict: Verdict, now: datetime) -> HttpResponse: ...


def json_body(request: HttpRequest) -> Mapping[str, Any]:
    """The object in the body; empty when there is none, so that nothing in it is found."""
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def text(body: Mapping[str, Any], name: str) -> str | None:
    """A text that can be one, None for anything else."""
    value = body.get(name)
    return value if isinstance(value, str) and _encodes(value) else None


def json_response(body: object, status: int = 200, **headers: str) -> HttpResponse:
    """headers: ``cache_control`` stands for cache-control."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpResponse(status, json.dumps(body).encode(), JSON, named)


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
