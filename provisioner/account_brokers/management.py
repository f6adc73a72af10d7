"""Cutting live connections through a broker's own management interface."""

import json
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from provisioner.account_brokers.callback_values import HttpResponse
from provisioner.account_brokers.http_client import ManagementClient
from provisioner.model.errors import Unavailable


class Management(Protocol):
    """How a connection that was let in is ended. Raises Unavailable."""

    async def cut(self, username: str, client_id: str | None) -> bool:
        """End the connections of this user; under this client id alone where the broker can tell. False: none was.

        client_id: None for all of the user's."""

    async def reach(self) -> None:
        """Returns when connections could be looked for just now."""


@dataclass(frozen=True, slots=True)
class RabbitManagement:
    """RabbitMQ's management plugin, of any node for the whole cluster.

    Its list by user is exact at once; the one that knows client ids lags seconds behind, so a user is cut whole."""

    client: ManagementClient

    async def cut(self, username: str, client_id: str | None) -> bool:
        path = f"/api/connections/username/{quote(username, safe='')}"
        if not _listed(await self.client.ask("GET", path)):
            return False
        _granted(await self.client.ask("DELETE", path))
        return True

    async def reach(self) -> None:
        _granted(await self.client.ask("GET", "/api/connections?page=1&page_size=1"))


@dataclass(frozen=True, slots=True)
class EmqxManagement:
    """EMQX's REST interface, with an API key as user and its secret as password."""

    client: ManagementClient

    async def cut(self, username: str, client_id: str | None) -> bool:
        if client_id is not None:
            return await self._cut(client_id)
        answer = await self.client.ask("GET", f"/api/v5/clients?limit=1000&username={quote(username, safe='')}")
        # A list, so that all of them are cut.
        return any([await self._cut(str(each.get("clientid"))) for each in _listed(answer, "data")])

    async def reach(self) -> None:
        _granted(await self.client.ask("GET", "/api/v5/clients?limit=1"))

    async def _cut(self, client_id: str) -> bool:
        cut = await self.client.ask("DELETE", f"/api/v5/clients/{quote(client_id, safe='')}")
        if cut.status == 404:
            return False
        _granted(cut)
        return True


def _listed(response: HttpResponse, *path: str) -> list[Any]:
    """The list in its body, or below these names there."""
    body = _granted(response)
    try:
        found = json.loads(body)
        for name in path:
            found = found[name]
    except (ValueError, LookupError, TypeError):
        found = None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Unavailable("what answers lists no connections: it is no management interface of this broker")
    return found


def _granted(response: HttpResponse) -> bytes:
    """Its body."""
    if response.status not in (200, 204):
        raise Unavailable(f"the broker's management interface refused with status {response.status}")
    return response.body
