"""The account broker of the evaluation mode: users in memory, a server in this process that asks for each login."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from provisioner.account_brokers.user_book import UserBook, Verify
from provisioner.model.capabilities import Capabilities
from provisioner.model.ports import BrokerUser, Gap, Sighting, heedless
from provisioner.model.topics import DeviceTopics

_log = logging.getLogger(__name__)


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
LoginSeen = Callable[[DeviceLogin, str | None, bool, bool], None]


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
        self._control_prefix = control_prefix
        self._book = UserBook(verify)
        self._sighted: Callable[[Sighting], None] = _nobody

    @property
    def name(self) -> str:
        return self._name

    def capabilities(self) -> Capabilities:
        return Capabilities(kicks=True, reports_sightings=True, refuses_subscribe=True, mqtt5=False, keeps_users=False)

    async def start(self, seen: Callable[[Sighting], None], gap: Callable[[Gap], None] = heedless) -> None:
        self._sighted = seen
        gap(Gap(self._name, all_left=True))
        await self._server.start(self._admit, self._seen)

    async def stop(self) -> None:
        await self._server.stop()

    async def put_user(self, user: BrokerUser) -> None:
        """As the port says; Conflict when another account on this broker has the username."""
        self._book.put(user)
        self._cut_unlawful()

    async def remove_user(self, account: str, username: str) -> None:
        if self._book.remove(account, username):
            self._cut_unlawful()

    async def kick(self, account: str, client_id: str) -> bool:
        return self._server.kick(f"{account}/{client_id}")

    async def users(self) -> Sequence[tuple[str, str]]:
        return self._book.all()

    async def _admit(self, username: str, password: bytes, client_id: str, address: str | None) -> DeviceLogin | None:
        user = await self._book.admit(username, password, client_id)
        if isinstance(user, str):
            _log.info("login refused from %s: %s", address, user)
            return None
        return DeviceLogin(username, DeviceTopics(user.account, client_id, self._control_prefix))

    def _cut_unlawful(self) -> None:
        """End every connection that could not be made any more."""
        for login in self._server.connections():
            user, topics = self._book.get(login.username), login.topics
            if user is None or user.account != topics.account or self._book.why_not(user, topics.client_id):
                self._server.kick(login.home)

    def _seen(self, login: DeviceLogin, address: str | None, connected: bool, lost: bool) -> None:
        self._sighted(
            Sighting(
                account=login.topics.account,
                username=login.username,
                client_id=login.topics.client_id,
                address=address,
                connected=connected,
                lost=lost,
            )
        )


def _nobody(sighting: Sighting) -> None:
    """Nobody listens before the start."""
