"""The words of mosquitto's dynamic security plugin: commands in, results out, over one MQTT connection.

Its answers go to everybody who may read them, so that each of ours carries data that only we can know.
"""

import asyncio
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from provisioner.account_brokers.mosquitto_link import MosquittoLink
from provisioner.model.errors import Unavailable

COMMANDS = "$CONTROL/dynamic-security/v1"
RESPONSES = "$CONTROL/dynamic-security/v1/response"
ANSWER_WITHIN_S = 20.0  # with 10,000 clients a command takes a quarter of a second, and others may be in front
_PAGE = 100

Command = Mapping[str, Any]


class CommandFailed(Unavailable):
    """The plugin refused a command, in these words of its own."""

    def __init__(self, command: str, words: str) -> None:
        super().__init__(f"mosquitto's dynamic security plugin refused {command}: {words}")
        self.words = words


class DynsecCommands:
    """Sends commands and matches the answers. ``hear`` is given every message on `RESPONSES`."""

    def __init__(self, link: MosquittoLink) -> None:
        self._link = link
        self._waiting: dict[str, asyncio.Future[list[dict[str, Any]]]] = {}

    async def run(self, *commands: Command, ignoring: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Their results in order; the plugin goes on after an error. Raises CommandFailed for the first one whose
        words are not in ``ignoring``, Unavailable when no answer comes."""
        key = secrets.token_hex(8)
        payload = json.dumps({"commands": [{**each, "correlationData": key} for each in commands]})
        answered = self._waiting[key] = asyncio.get_running_loop().create_future()
        try:
            self._link.publish(COMMANDS, payload.encode())
            results: list[dict[str, Any]] = await asyncio.wait_for(answered, ANSWER_WITHIN_S)
        except TimeoutError:
            raise Unavailable("mosquitto's dynamic security plugin does not answer") from None
        finally:
            del self._waiting[key]
        for result in results:
            words = str(result.get("error", ""))
            if words and words not in ignoring:
                raise CommandFailed(str(result.get("command")), words)
        return results

    async def every(self, command: str, key: str, *, verbose: bool) -> list[Any]:
        """All entries of a listing, ``key`` being their name in its data."""
        found: list[Any] = []
        while True:
            asked = {"command": command, "count": _PAGE, "offset": len(found), "verbose": verbose}
            (result,) = await self.run(asked)
            page = result.get("data", {}).get(key, [])
            found += page
            if len(page) < _PAGE:
                return found

    def hear(self, payload: bytes) -> None:
        try:
            results = json.loads(payload)["responses"]
            key = results[0]["correlationData"]
        except (ValueError, LookupError, TypeError):
            return
        waiting = self._waiting.get(key) if isinstance(key, str) else None
        if waiting is not None and not waiting.done():
            waiting.set_result(results)

    def lost(self) -> None:
        """The connection is gone, and with it every answer."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Unavailable("mosquitto went away before it answered"))
