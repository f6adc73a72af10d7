"""The account broker of the evaluation mode: users in memory, a server in this process that asks for each login."""

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from provisioner.model import names
from provisioner.model.coupling import may_connect
from provisioner.model.errors import Conflict
from provisioner.model.ports import BrokerUser, Capabilities, Sighting
from provisioner.model.secret import Secret
from provisioner.model.topics import DeviceTopics
from provisioner.model.user import account_user_id

_log = logging.getLogger(__name__)

Verify = Callable[[str | None, Secret, str], bool | Awaitable[bool]]
"""(verifier, password, id of the account user) -> whether the password is the verifier's. A verifier of None stands
for an unknown user, whose account is empty in the id: the same work, then False (F-20)."""


@dataclass(frozen=True, slots=True)
class DeviceLogin:
    """Who a live connection is, and what it may do."""

    username: str
    topics: DeviceTopics

    @property
    def home(self) -> str:
        return self.topics.home

    def may_publish(self, topic: str) -> bool:
        return self.topics.may_publish(topic)

    def may_subscribe(self, topic_filter: str) -> bool:
        return self.topics.may_subscribe(topic_filter)


AdmitLogin = Callable[[str, bytes, str, str | None], Awaitable[DeviceLogin | None]]
LoginSeen = Callable[[DeviceLogin, str | None, bool], None]


class Server(Protocol):
    """What is needed of the MQTT server; ``home`` is ``DeviceLogin.home``, one live connection at most has it."""

    async def start(self, admit: AdmitLogin, seen: LoginSeen) -> None: ...
    async def stop(self) -> None: ...
    def kick(self, home: str) -> bool: ...

    def connections(self) -> Sequence[DeviceLogin]:
        """Every login that was admitted and is not cut yet."""


class EmbeddedAccountBroker:
    """An `AccountBroker` for any number of accounts. Usernames are unique on it, so that one names its account."""

    def __init__(self, name: str, server: Server, verify: Verify, control_prefix: str = "$EDC") -> None:
        self._name = name
        self._server = server
        self._verify = verify
        self._control_prefix = control_prefix
        self._users: dict[str, BrokerUser] = {}
        self._made_for: dict[tuple[str, str], dict[str, BrokerUser]] = {}
        self._sighted: Callable[[Sighting], None] = _nobody

    @property
    def name(self) -> str:
        return self._name

    def capabilities(self) -> Capabilities:
        return Capabilities(kicks=True, reports_sightings=True, refuses_subscribe=True, mqtt5=False)

    async def start(self, seen: Callable[[Sighting], None]) -> None:
        self._sighted = seen
        await self._server.start(self._admit, self._seen)

    async def stop(self) -> None:
        await self._server.stop()

    async def put_user(self, user: BrokerUser) -> None:
        """As the port says; Conflict when another account on this broker has the username."""
        known = self._users.get(user.username)
        if known is not None and known.account != user.account:
            raise Conflict("another account on this broker has a user of that name")
        self._forget(user.username)
        self._users[user.username] = user
        self._made_for.setdefault((user.account, user.client_id), {})[user.username] = user
        self._cut_unlawful()

    async def remove_user(self, account: str, username: str) -> None:
        user = self._users.get(username)
        if user is not None and user.account == account:
            self._forget(username)
            self._cut_unlawful()

    async def kick(self, account: str, client_id: str) -> bool:
        return self._server.kick(f"{account}/{client_id}")

    async def users(self) -> Sequence[tuple[str, str]]:
        return sorted((user.account, user.username) for user in self._users.values())

    async def _admit(self, username: str, password: bytes, client_id: str, address: str | None) -> DeviceLogin | None:
        user = self._users.get(username)
        reason = None if await self._is_password_of(user, password, username) else "bad_credentials"
        # Checking the password may take its time, in which the user may have changed or gone.
        if user is not None and reason is None:
            reason = self._why_not(user, client_id) if self._users.get(username) is user else "user_changed"
        if user is None or reason is not None:
            _log.info("login refused from %s: %s", address, reason)
            return None
        return DeviceLogin(username, DeviceTopics(user.account, client_id, self._control_prefix))

    async def _is_password_of(self, user: BrokerUser | None, password: bytes, username: str) -> bool:
        try:
            secret = Secret(password.decode())
        except UnicodeDecodeError:
            return False
        verifier, account = (None, "") if user is None else (user.verifier, user.account)
        verdict = self._verify(verifier, secret, account_user_id(account, username))
        return bool(await verdict if inspect.isawaitable(verdict) else verdict)

    def _why_not(self, user: BrokerUser, client_id: str) -> str | None:
        if not user.enabled:
            return "user_disabled"
        if any(names.check_client_id(client_id)):  # in LOOSE mode it may be any text
            return "bad_client_id"
        return may_connect(user, client_id, self._owner(user, client_id))

    def _owner(self, user: BrokerUser, client_id: str) -> BrokerUser | None:
        """Whom the client id was made for. When several were: a reserved one, else the asking one, else the first."""
        owners = self._made_for.get((user.account, client_id), {})
        reserved = [owner for owner in owners.values() if owner.reserved]
        return next(iter([*reserved, *filter(None, [owners.get(user.username)]), *owners.values()]), None)

    def _cut_unlawful(self) -> None:
        """End every connection that could not be made any more."""
        for login in self._server.connections():
            user = self._users.get(login.username)
            if user is None or user.account != login.topics.account or self._why_not(user, login.topics.client_id):
                self._server.kick(login.home)

    def _forget(self, username: str) -> None:
        user = self._users.pop(username, None)
        if user is not None:
            owners = self._made_for[user.account, user.client_id]
            del owners[username]
            if not owners:
                del self._made_for[user.account, user.client_id]

    def _seen(self, login: DeviceLogin, address: str | None, connected: bool) -> None:
        self._sighted(
            Sighting(
                account=login.topics.account,
                username=login.username,
                client_id=login.topics.client_id,
                address=address,
                connected=connected,
            )
        )


def _nobody(sighting: Sighting) -> None:
    """Nobody listens before the start."""
