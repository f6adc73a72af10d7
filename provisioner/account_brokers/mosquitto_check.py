"""A look at a running mosquitto: whether it lets the service in, tells it who connects, and keeps strangers out."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from provisioner.account_brokers.dynsec_commands import RESPONSES, DynsecCommands
from provisioner.account_brokers.mosquitto_link import ControlAddress, MosquittoLink
from provisioner.account_brokers.mosquitto_log import NOTICES, Arrived, read_notice
from provisioner.account_brokers.mosquitto_passwords import Reload
from provisioner.model.errors import Unavailable
from provisioner.model.secret import Secret

WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """detail: what was found, for people."""

    name: str
    passed: bool
    detail: str


class _Look:
    """One connection of its own, beside that of a running service."""

    def __init__(self, control: ControlAddress, filters: tuple[str, ...]) -> None:
        own = replace(control, client_id=f"fleetgate-check-{secrets.token_hex(6)}", lasts=False)
        self.client_id = own.client_id
        self.link = MosquittoLink(own, filters)
        self.commands = DynsecCommands(self.link)
        self.arrivals: set[str] = set()
        self.arrived = asyncio.Event()

    def hear(self, topic: str, payload: bytes) -> None:
        if topic == RESPONSES:
            self.commands.hear(payload)
        elif isinstance(notice := read_notice(payload), Arrived):
            self.arrivals.add(notice.client_id)
            self.arrived.set()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["_Look"]:
        await self.link.start(lambda kept: None, self.hear)
        try:
            await self.link.wait_up(WITHIN_S)
            yield self
        finally:
            await self.link.stop()


async def look_at(control: ControlAddress, reload: Reload | None) -> list[Check]:
    """reload: how it is told of files; None for one with the dynamic security plugin."""
    filters = (NOTICES,) if reload is not None else (NOTICES, RESPONSES)
    async with _Look(control, filters).connected() as look:
        if not look.link.is_up:
            why = look.link.refused or "nothing answers"
            return [Check("connection", False, f"{control.host}:{control.port}: {why}")]
        checks = [Check("connection", True, f"{control.host}:{control.port} lets {control.username} in")]
        checks.append(await _log(control, look))
        checks.append(await _strangers(control))
        checks.append(await _signs(reload) if reload is not None else await _plugin(look.commands))
        return checks


async def _log(control: ControlAddress, look: _Look) -> Check:
    """Sightings, and with them confirmations, come by this way only."""
    async with _Look(control, (NOTICES,)).connected() as other:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WITHIN_S):
                while other.client_id not in look.arrivals:
                    look.arrived.clear()
                    await look.arrived.wait()
    told = other.client_id in look.arrivals
    detail = "it tells who connects" if told else "it does not tell who connects: set log_dest topic, log_type notice"
    return Check("log", told, detail)


async def _strangers(control: ControlAddress) -> Check:
    async with _Look(replace(control, password=Secret(secrets.token_hex(16))), (NOTICES,)).connected() as stranger:
        out = not stranger.link.is_up and stranger.link.refused is not None
    return Check("strangers", out, "a wrong password is refused" if out else "a wrong password is not refused")


async def _signs(reload: Reload) -> Check:
    try:
        await asyncio.to_thread(reload)
    except Unavailable as error:
        return Check("sign", False, str(error))
    return Check("sign", True, "it can be told to read its files again")


async def _plugin(commands: DynsecCommands) -> Check:
    try:
        (result,) = await commands.run({"command": "getDefaultACLAccess"})
    except Unavailable as error:
        return Check("dynamic security", False, str(error))
    open_to_all = [each["acltype"] for each in result["data"]["acls"] if each["allow"]]
    allowed = sorted({*open_to_all} - {"unsubscribe"})
    detail = "nothing is allowed that no role allows" if not allowed else f"anybody may {', '.join(allowed)}"
    return Check("dynamic security", not allowed, detail)
