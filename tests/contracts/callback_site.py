"""An endpoint that account brokers ask, without a broker: a test asks in its place."""

import base64
import http.client
import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from provisioner.account_brokers.callback_values import CallbackFormat
from provisioner.account_brokers.http_callback import HttpCallbackBroker
from provisioner.account_brokers.http_server import Handler, HttpLimits, HttpServer
from provisioner.model.errors import Unavailable
from provisioner.model.ports import BrokerUser, Gap, Sighting
from provisioner.model.secret import Secret
from tests.contracts.account_broker_stage import LoopThread, verify

SECRET = secrets.token_urlsafe(16)
BASIC = {"authorization": "Basic " + base64.b64encode(f"caller:{SECRET}".encode()).decode()}

LOGIN = {"username": "user-1", "password": "Pass-word-1", "vhost": "/", "client_id": "gw1"}


@dataclass
class Cuts:
    """Stands for a management interface. down: it does not answer."""

    made: list[tuple[str, str | None]] = field(default_factory=list)
    down: bool = False

    async def cut(self, username: str, client_id: str | None) -> bool:
        if self.down:
            raise Unavailable("down")
        self.made.append((username, client_id))
        return True

    async def reach(self) -> None:
        """Always."""


@dataclass
class Site:
    broker: HttpCallbackBroker
    server: HttpServer
    loop: LoopThread
    cuts: Cuts
    sightings: list[Sighting]
    gaps: list[Gap]

    @property
    def port(self) -> int:
        return self.server.address[1]

    def ask(self, path: str, sent: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("POST", path, sent, BASIC if headers is None else headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def form(self, path: str, **fields: str) -> bytes:
        return self.ask(path, urlencode(fields).encode())[1]

    def json(self, path: str, headers: dict[str, str] | None = None, **fields: Any) -> Any:
        return json.loads(self.ask(path, json.dumps(fields).encode(), BASIC | (headers or {}))[1] or b"null")


@contextmanager
def site(
    format: CallbackFormat, limits: HttpLimits | None = None, *, before: Sequence[BrokerUser] = ()
) -> Iterator[Site]:
    """before: users that are put before it begins."""
    loop, cuts, sightings = LoopThread(), Cuts(), list[Sighting]()
    made: list[HttpServer] = []

    def serve(handler: Handler) -> HttpServer:
        made.append(HttpServer("127.0.0.1", 0, handler, limits=limits))
        return made[0]

    broker = HttpCallbackBroker(
        "asked", format, serve, verify, lambda: datetime.now(UTC), secret=Secret(SECRET), management=cuts
    )
    try:
        for each in before:
            loop.run(broker.put_user(each))
        gaps: list[Gap] = []
        loop.run(broker.start(sightings.append, gaps.append))
        yield Site(broker, made[0], loop, cuts, sightings, gaps)
        loop.run(broker.stop())
    finally:
        loop.close()
