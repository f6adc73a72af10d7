"""The administrators' door: one JSON envelope in, one out, over whatever carries it (D11).

In:  ``{"id": "7", "verb": "request.create", "params": {...}}``; the id is the asker's and comes back as it was.
Out: ``{"id", "ok": true, "result": ...}`` or ``{"id", "ok": false, "error": {"kind", "message", "problems"}}``.
On the admin listener an administrator publishes to ``ctl/v1/<client-id>/request`` and is answered on
``ctl/v1/<client-id>/response``.
"""

import json
import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from provisioner.dialects import strict_json
from provisioner.doors import control_verbs, views
from provisioner.doors.control_params import Verb
from provisioner.doors.control_verbs import Services
from provisioner.model.errors import FleetgateError, InvalidInput, Problem, shape
from provisioner.services.accounts import Accounts
from provisioner.services.devices import Devices
from provisioner.services.platform import Platform
from provisioner.services.proving import Proving
from provisioner.services.request_import import RequestImport
from provisioner.services.requests import Requests

log = logging.getLogger(__name__)

PAYLOAD_BYTES_MAX = 4_000_000
DEPTH_MAX = 40  # a configuration of the deepest kind, in a row of an import
ID_CHARACTERS_MAX = 64


class Usage(FleetgateError):
    """The envelope is not one, or names a verb that does not exist."""


class Control:
    """Translates: parse, call one service, render. Keeps nothing between two messages."""

    def __init__(
        self,
        *,
        platform: Platform,
        accounts: Accounts,
        requests: Requests,
        devices: Devices,
        status: Callable[[], Mapping[str, Any]],
        proving: Proving | None = None,
        verbs: Mapping[str, Verb] = control_verbs.VERBS,
    ) -> None:
        """status: what the running service says of itself beside the store's figures."""
        self._verbs = verbs
        self._services = Services(
            platform=platform,
            accounts=accounts,
            requests=requests,
            importing=RequestImport(requests.making, platform.now),
            devices=devices,
            status=status,
            proving=proving,
        )

    async def answer(self, actor: str, payload: bytes) -> bytes:
        """The answer to one message; never raises. actor: ``admin:<name>``, for the audit."""
        id: str | None = None
        try:
            envelope = _envelope(payload)
            id = envelope["id"]
            result = await self._run(actor, envelope.get("verb"), envelope.get("params", {}))
            return _encode({"id": id, "ok": True, "result": result})
        except FleetgateError as error:
            return _encode({"id": id, "ok": False, "error": views.error(error)})
        except Exception as error:
            # The text of an unforeseen error may hold what must not leave; its type and its place do not.
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error("control verb failed: %s at %s:%s", type(error).__name__, place.filename, place.lineno)
            failure = {"kind": "failure", "message": f"internal error: {type(error).__name__}", "problems": []}
            return _encode({"id": id, "ok": False, "error": failure})

    async def _run(self, actor: str, name: object, params: object) -> Any:
        verb = self._verbs.get(name) if isinstance(name, str) else None
        if not isinstance(params, dict):
            raise InvalidInput([Problem("params", "must be an object", shape(params))])
        if verb is None:
            raise Usage(f"no such verb; known are {', '.join(sorted(self._verbs))}")
        return await verb.run(self._services, actor, **verb.read(params))


def _envelope(payload: bytes) -> Mapping[str, Any]:
    """Raises Usage; the message names the rule and shows nothing of the payload."""
    try:
        whole = strict_json.loads(payload, bytes_max=PAYLOAD_BYTES_MAX, depth_max=DEPTH_MAX)
    except strict_json.NotStrictJson as error:
        raise Usage(f"the message {error}") from None
    if not isinstance(whole, dict) or whole.keys() - {"id", "verb", "params"}:
        raise Usage("the message must be an object of id, verb and params")
    id = whole.get("id")
    if not isinstance(id, str) or not 1 <= len(id) <= ID_CHARACTERS_MAX:
        raise Usage(f"id must be text of 1 to {ID_CHARACTERS_MAX} characters")
    return whole


def _encode(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode()
