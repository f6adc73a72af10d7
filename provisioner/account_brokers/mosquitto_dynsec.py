"""mosquitto with its dynamic security plugin as an account broker: a role and a client per device, told over MQTT.

The plugin writes its whole state for each command, and the broker stands still meanwhile: 19 ms with 1,000 clients, a
second with 50,000. So this is for small fleets, and for brokers on another host.
"""

import asyncio
import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from provisioner.account_brokers.dynsec_commands import RESPONSES, Command, DynsecCommands
from provisioner.account_brokers.mosquitto_link import ControlAddress, MosquittoLink
from provisioner.account_brokers.mosquitto_log import NOTICES, Arrived
from provisioner.account_brokers.mosquitto_presence import Awaited, Presence
from provisioner.model import names
from provisioner.model.capabilities import Capabilities
from provisioner.model.errors import Conflict, Unavailable
from provisioner.model.ports import BrokerUser, Gap, Sighting, heedless
from provisioner.model.topics import DeviceTopics

_log = logging.getLogger(__name__)

UP_WITHIN_S = 3.0
AGAIN_S = 2.0
EARLY_MAX = 20_000
ROLE_PREFIX = "fleetgate/"
_GONE = ("Client not found", "Role not found")
_DENIED = ("publishClientSend", "publishClientReceive", "subscribe")
_RIGHTS = ("publishClientSend", "publishClientReceive", "subscribePattern")


@dataclass(frozen=True, slots=True)
class _Client:
    """mark: tells one password from another, without telling it."""

    account: str
    username: str
    client_id: str
    mark: str
    enabled: bool = True


class MosquittoDynsec:
    """An `AccountBroker`. Usernames and client ids are unique on it, for mosquitto knows no accounts."""

    def __init__(
        self, name: str, control: ControlAddress, *, users_max: int = 1_000, control_prefix: str = "$EDC"
    ) -> None:
        self._name, self._users_max, self._control_prefix = name, users_max, control_prefix
        self._own_name = control.username
        self._link = MosquittoLink(control, (NOTICES, RESPONSES))
        self._commands = DynsecCommands(self._link)
        self._presence = Presence(self._sighting, self._there_before)
        self._awaited = Awaited()
        self._clients: dict[str, _Client] = {}
        self._lock = asyncio.Lock()
        self._ready = asyncio.Event()
        self._early: deque[bytes] = deque(maxlen=EARLY_MAX)  # notices that came before the users were known

    @property
    def name(self) -> str:
        return self._name

    @property
    def is_up(self) -> bool:
        return self._ready.is_set()

    def capabilities(self) -> Capabilities:
        return Capabilities(
            kicks=True,
            reports_sightings=True,
            refuses_subscribe=True,
            mqtt5=True,
            loose=False,
            client_ids_shared=True,
            users_max=self._users_max,
        )

    async def start(self, seen: Callable[[Sighting], None], gap: Callable[[Gap], None] = heedless) -> None:
        """Wait a little for mosquitto, but not for ever."""
        self._presence.tell, self._presence.gap = seen, gap
        await self._link.start(self._up, self._hear, self._down)
        try:
            await asyncio.wait_for(self._ready.wait(), UP_WITHIN_S)
        except TimeoutError:
            _log.warning("account broker %s: mosquitto does not answer yet", self._name)

    async def stop(self) -> None:
        await self._link.stop()

    async def put_user(self, user: BrokerUser) -> None:
        """As the port says; Conflict when the name or the client id is taken by another account on this broker."""
        async with self._lock:
            self._check_ready()
            former = self._clients.get(user.username)
            wanted = self._wanted(user, former)
            self._check_free(wanted, former)
            if commands := list(self._changes(user, former, wanted)):
                await self._told(*commands)
                self._clients[user.username] = wanted
            if user.enabled and user.password is not None and self._is_unheard(wanted, former is not None):
                await self._told(_cut(wanted))

    async def remove_user(self, account: str, username: str) -> None:
        async with self._lock:
            self._check_ready()
            client = self._clients.get(username)
            if client is None or client.account != account:
                return
            await self._told(
                {"command": "deleteClient", "username": username},
                {"command": "deleteRole", "rolename": _role(client)},
                ignoring=_GONE,
            )
            del self._clients[username]
            self._awaited.forget(username)

    async def kick(self, account: str, client_id: str) -> bool:
        async with self._lock:
            self._check_ready()
            made_for = [c for c in self._clients.values() if (c.account, c.client_id) == (account, client_id)]
            left = self._presence.departures[client_id]
            if made_for:
                await self._told(*map(_cut, made_for))
            return self._presence.departures[client_id] > left

    async def users(self) -> Sequence[tuple[str, str]]:
        self._check_ready()
        return sorted((client.account, client.username) for client in self._clients.values())

    def _wanted(self, user: BrokerUser, former: _Client | None) -> _Client:
        mark = former.mark if former is not None else ""
        if user.password is not None:
            mark = hashlib.sha256(user.verifier.encode()).hexdigest()[:32]
        return _Client(user.account, user.username, user.client_id, mark, user.enabled)

    def _check_free(self, wanted: _Client, former: _Client | None) -> None:
        problem = next(iter([*names.check_username(wanted.username), *names.check_client_id(wanted.client_id)]), None)
        if problem is not None or wanted.username == self._own_name:
            raise Conflict(f"mosquitto cannot be given this user: {problem or 'the name is that of the service'}")
        if former is not None and former.account != wanted.account:
            raise Conflict("another account on this broker has a user of that name")
        others = (c for c in self._clients.values() if c.client_id == wanted.client_id and c.account != wanted.account)
        if any(others):
            raise Conflict("another account on this broker has a device of that client id")
        if former is None and len(self._clients) >= self._users_max:
            raise Unavailable(
                f"account broker {self._name} has its {self._users_max:,} users (users_max): the dynamic security "
                "plugin writes all of them for every change; use a broker of kind mosquitto-files"
            )

    def _changes(self, user: BrokerUser, former: _Client | None, wanted: _Client) -> Iterator[Command]:
        """What is different, and no more: most of these commands cut the connection."""
        name = {"username": wanted.username}
        if former is not None and former.client_id != wanted.client_id:
            yield {"command": "deleteClient", **name}
            yield {"command": "deleteRole", "rolename": _role(former)}
            former = None
        if former is None:
            if user.password is None:
                raise Unavailable(
                    f"account broker {self._name} does not know {user.username}, whose password is kept nowhere"
                )
            yield {"command": "createRole", "rolename": _role(wanted), "acls": self._rights(wanted)}
            yield {
                "command": "createClient",
                **name,
                "password": user.password.reveal(),
                "clientid": wanted.client_id,
                "textdescription": _description(wanted),
                "roles": [{"rolename": _role(wanted)}],
            }
        elif user.password is not None and former.mark != wanted.mark:
            yield {"command": "setClientPassword", **name, "password": user.password.reveal()}
            yield {"command": "modifyClient", **name, "textdescription": _description(wanted)}
        if not wanted.enabled and (former is None or former.enabled):
            yield {"command": "disableClient", **name}
        elif wanted.enabled and former is not None and not former.enabled:
            yield {"command": "enableClient", **name}

    def _rights(self, client: _Client) -> list[dict[str, Any]]:
        home = DeviceTopics(client.account, client.client_id, self._control_prefix).home
        topics = (f"{home}/#", f"{self._control_prefix}/{home}/#")
        return [{"acltype": kind, "topic": topic, "allow": True} for kind in _RIGHTS for topic in topics]

    def _is_unheard(self, client: _Client, known: bool) -> bool:
        there = self._presence.is_there(client.client_id)
        return self._awaited.granted(client.username, known=known, is_there=there)

    def _check_ready(self) -> None:
        if not self._ready.is_set():
            raise Unavailable(f"account broker {self._name}: mosquitto does not answer")

    def _up(self, kept_session: bool) -> None:
        unheard: set[str] = set()
        if not kept_session:
            self._presence.begin_anew(self._name)
            unheard = self._awaited.gap()
        self._link.soon(self._load(unheard))

    def _down(self) -> None:
        self._ready.clear()
        self._commands.lost()

    async def _told(self, *commands: Command, ignoring: Sequence[str] = ()) -> None:
        """What became of commands that failed nobody knows: what the plugin has is learned anew before the next one."""
        try:
            await self._commands.run(*commands, ignoring=ignoring)
        except BaseException:
            self._ready.clear()
            self._link.soon(self._load(set()))
            raise

    async def _load(self, unheard: set[str]) -> None:
        """Try until it is done, or the connection is lost: it is begun again with the next one."""
        while self._link.is_up:
            try:
                async with self._lock:
                    await self._learn(unheard)
                return
            except Unavailable as error:
                _log.warning("account broker %s: %s", self._name, error)
            await asyncio.sleep(AGAIN_S)

    async def _learn(self, unheard: set[str]) -> None:
        """Learn what the plugin knows, take away what a crash left half made, and deny what nothing allows."""
        denied = [{"acltype": each, "allow": False} for each in _DENIED]
        await self._commands.run({"command": "setDefaultACLAccess", "acls": denied})
        listed = await self._commands.every("listClients", "clients", verbose=True)
        self._clients = {client.username: client for client in map(_read, listed) if client is not None}
        await self._sweep()
        if cut := [_cut(self._clients[name]) for name in unheard if name in self._clients]:
            await self._commands.run(*cut)
        self._ready.set()
        while self._early:
            self._presence.hear(self._early.popleft())

    async def _sweep(self) -> None:
        roles = await self._commands.every("listRoles", "roles", verbose=False)
        ours = {_role(client) for client in self._clients.values()}
        left = [name for name in roles if str(name).startswith(ROLE_PREFIX) and name not in ours]
        if left:
            await self._commands.run(*({"command": "deleteRole", "rolename": name} for name in left), ignoring=_GONE)

    def _hear(self, topic: str, payload: bytes) -> None:
        if topic == NOTICES and not self._ready.is_set():
            self._early.append(payload)
        elif topic == NOTICES:
            self._presence.hear(payload)
        elif topic == RESPONSES:
            self._commands.hear(payload)

    def _there_before(self, client_id: str) -> Iterator[Sighting]:
        """It may have come by any user that was made for it."""
        for client in self._clients.values():
            if client.client_id == client_id:
                yield Sighting(account=client.account, username=client.username, client_id=client_id, address=None)

    def _sighting(self, arrived: Arrived) -> Sighting | None:
        client = self._clients.get(arrived.username)
        if client is None or client.client_id != arrived.client_id:
            return None
        self._awaited.seen(client.username)
        return Sighting(
            account=client.account, username=client.username, client_id=client.client_id, address=arrived.address
        )


def _role(client: _Client) -> str:
    return f"{ROLE_PREFIX}{client.account}/{client.username}"


def _cut(client: _Client) -> Command:
    """Binding the client id anew, to the same one, ends the connection and changes nothing."""
    return {"command": "setClientId", "username": client.username, "clientid": client.client_id}


def _description(client: _Client) -> str:
    return json.dumps({"account": client.account, "mark": client.mark})


def _read(listed: Any) -> _Client | None:
    """None for a client that is not ours."""
    try:
        kept = json.loads(listed["textdescription"])
        client = _Client(kept["account"], listed["username"], listed["clientid"], kept["mark"])
    except (LookupError, ValueError, TypeError):
        return None
    return replace(client, enabled=not listed.get("disabled", False))
