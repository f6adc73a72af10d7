"""Follows the audit log of the store for what other gates did: whoever they cut is cut here, and what they told an
account broker that asks us is remembered here too. The log is durable and in order; nothing of it is missed."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from provisioner.model.account import Account
from provisioner.model.audit import AuditEvent
from provisioner.model.device import Device
from provisioner.model.errors import Unavailable
from provisioner.model.request import ProvisionRequest
from provisioner.model.user import AccountUser, account_user_id
from provisioner.services.effects import Book, Effects
from provisioner.services.granting import request_ids_of
from provisioner.services.pages import pages
from provisioner.services.platform import Platform

log = logging.getLogger(__name__)

AGAIN_S = 1.0
ONCE_S = 2.0
LOOKING_MAX = 64  # look-ups for brokers that ask about somebody unknown
CUTS_REQUEST = frozenset(("request.delete", "request.revoke", "request.rearm"))
CUTS_DEVICE = frozenset(("device.disable", "device.revoke"))
CUTS_ACCOUNT = "account.update"
FIRST_GRANT, CONFIRMED = "provision.granted", "provision.confirmed"


class Peer(Protocol):
    """A connection of our gate."""

    @property
    def identity(self) -> str: ...
    @property
    def client_id(self) -> str: ...


class Following:
    """``start``, then ``run`` until cancelled."""

    def __init__(
        self,
        platform: Platform,
        effects: Effects,
        books: Mapping[str, Book],
        connections: Callable[[], Iterable[Peer]],
        cut: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """books: the account brokers that ask us, by name. connections, cut: those of our gate, by request id."""
        self._platform, self._effects, self._books = platform, effects, books
        self._connections, self._cut, self._clock = connections, cut, clock
        self._looking: dict[str, asyncio.Future[None]] = {}
        self._left: set[str] = set()  # users that could not be refreshed
        self._cut_here: OrderedDict[str, float] = OrderedDict()
        self._seq = 0

    async def start(self) -> None:
        """From here on nothing is missed. Raises Unavailable."""
        for newest in await self._platform.store.audit_page(limit=1, newest_first=True):
            self._seq = newest.seq

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._refresh_left())
            group.create_task(self._follow())

    async def know_all(self) -> None:
        """Learn of every user that is stored, for somebody who lists them; else each is learned of when it is asked
        about. Raises Unavailable."""
        async for users in pages(self._platform.store, AccountUser):
            for user in users:
                book = self._books.get(user.broker)
                if book is not None and not book.knows(user.account, user.username):
                    await self._effects.refresh(user.id, self._books)

    async def _follow(self) -> None:
        while True:
            try:
                async for event in self._platform.store.changes(self._seq):
                    await self._heed(event)
                    self._seq = event.seq
                return
            except Unavailable as error:
                log.warning("other gates are not followed: %s", error)
                await asyncio.sleep(AGAIN_S)

    def cut(self, identity: str) -> object:
        """For verbs that were given at this gate: it is cut at once, and not a second time when the log tells of it."""
        now = self._clock()
        self._cut_here.pop(identity, None)
        self._cut_here[identity] = now
        while now - self._cut_here[oldest := next(iter(self._cut_here))] >= ONCE_S:
            del self._cut_here[oldest]
        return self._cut(identity)

    async def look_up(self, username: str) -> None:
        """Learn of a user whom a broker asks about and nobody knows here: it may be new. Raises Unavailable."""
        running = self._looking.get(username)
        if running is None:
            if len(self._looking) >= LOOKING_MAX:
                raise Unavailable("too many unknown users are looked up")
            running = self._looking[username] = asyncio.ensure_future(self._look_up(username))
            running.add_done_callback(lambda _: self._looking.pop(username, None))
        await asyncio.shield(running)

    async def _look_up(self, username: str) -> None:
        store = self._platform.store
        request_id, device_id = request_ids_of(username)
        owner = await store.get(ProvisionRequest, request_id) or await store.get(Device, device_id)
        if owner is not None:
            await self._effects.refresh(account_user_id(owner.account, username), self._books)

    async def _heed(self, event: AuditEvent) -> None:
        if event.account is None:
            return
        if event.actor.startswith("admin:"):
            await self._cut_as(event)
        for id in sorted(self._touched(event, event.account)):
            await self._refresh(id)

    async def _refresh(self, id: str) -> None:
        try:
            await self._effects.refresh(id, self._books)
            self._left.discard(id)
        except Unavailable as error:
            if not self._left:
                log.warning("what is known of users waits: %s", error)
            self._left.add(id)

    async def _refresh_left(self) -> None:
        while True:
            await asyncio.sleep(AGAIN_S)
            for id in sorted(self._left):
                await self._refresh(id)

    async def _cut_as(self, event: AuditEvent) -> None:
        """As at the gate where the administrator was (F-08); who was cut there already is not here."""
        if event.action in CUTS_REQUEST and event.subject is not None:
            self._cut_once(event.subject)
        elif event.action in CUTS_DEVICE:
            await self._cut_of(event.account, [p for p in self._connections() if p.client_id == event.client_id])
        elif event.action == CUTS_ACCOUNT:
            account = await self._platform.store.get(Account, event.account or "")
            if account is not None and not account.enabled:
                await self._cut_of(event.account, list(self._connections()))

    async def _cut_of(self, account: str | None, peers: Iterable[Peer]) -> None:
        for peer in peers:
            request = await self._platform.store.get(ProvisionRequest, peer.identity)
            if request is not None and request.account == account:
                self._cut_once(peer.identity)

    def _cut_once(self, identity: str) -> None:
        if self._clock() - self._cut_here.get(identity, -ONCE_S) >= ONCE_S:
            self._cut(identity)

    def _touched(self, event: AuditEvent, account: str) -> set[str]:
        """Users that are known here and whose record the event may have changed. Those of a first grant are new, and
        the one that is confirmed stays as it is: in a walk nothing is read."""
        if event.action == FIRST_GRANT or (event.client_id is None and event.action != CUTS_ACCOUNT):
            return set()
        names = {name for book in self._books.values() for name in book.known_of(account, event.client_id)}
        if event.action == CONFIRMED:
            names.discard(event.username or "")
        return {account_user_id(account, name) for name in names}
