"""The logins of devices on a broker that stands in the place of the gate: kept in its files, as the requests are.

A device may log in there as long as its request is open, and use the topics of its client id. What administrators
and confirmations change is learned from the audit log, gathered for a moment and written at once for all.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from provisioner.account_brokers.mosquitto_passwords import ITERATIONS_HUMAN, password_digest
from provisioner.link.topics import LinkTopics
from provisioner.model.audit import AuditEvent
from provisioner.model.errors import InvalidInput, Problem, Unavailable, shape
from provisioner.model.ports import Store
from provisioner.model.request import ProvisionRequest
from provisioner.model.secret import Secret
from provisioner.model.user import ProvisionUser
from provisioner.services.pages import pages
from provisioner.vault.generate import looks_generated

log = logging.getLogger(__name__)

GATHER_S = 0.03
# mosquitto reads its access list in a time that grows with its square (75 ms at 1,000 requests with gateways' topics,
# 2.8 s at 10,000), and serves nobody meanwhile: the longer the list, the rarer it is told to.
REST_S = 0.1
REST_S_PER_REQUEST = 0.001
AGAIN_S = 5.0
_HEAD = "# Written by fleetgate; what is changed by hand is lost.\n"


class LinkLogins:
    """own: the provisioner's username and password there. write: passwords, then access; blocks, raises Unavailable."""

    def __init__(
        self, store: Store, topics: LinkTopics, own: tuple[str, Secret], write: Callable[[str, str], None]
    ) -> None:
        self._store, self._topics, self._write = store, topics, write
        self._own_name = own[0]
        self._own_digest = password_digest(own[1])
        self._open: dict[str, ProvisionRequest] = {}
        self._of_user: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._digests: dict[str, str] = {}
        self._seq = 0
        self._changed = asyncio.Event()
        self._is_told = True

    async def verifier(self, username: str, password: Secret) -> str:
        if username == self._own_name:
            raise InvalidInput([Problem("username", "is the provisioner's own at its broker", shape(username))])
        if looks_generated(password):
            return password_digest(password)
        return await asyncio.to_thread(password_digest, password, iterations=ITERATIONS_HUMAN)

    def unknown(self) -> Sequence[str]:
        return sorted(request.client_id for request in self._open.values() if request.username not in self._digests)

    def admit(self, user: ProvisionUser, request: ProvisionRequest) -> None:
        """As if they were stored, until ``dismiss``. user: with its ``link_verifier``, and of no other request."""
        assert user.link_verifier is not None
        self._open[request.id] = request
        self._of_user[user.id][request.id] = request.client_id
        self._digests[user.id] = user.link_verifier
        self._changed.set()

    def dismiss(self, request_id: str) -> None:
        if self._forget(request_id):
            self._changed.set()

    async def start(self) -> None:
        """Write what is open now."""
        for newest in await self._store.audit_page(limit=1, newest_first=True):
            self._seq = newest.seq
        async for requests in pages(self._store, ProvisionRequest):
            for request in requests:
                await self._take(request.id, request)
        if unknown := self.unknown():
            log.error(
                "%d requests were made before provision_link; their devices cannot log in. Delete each and create it"
                " again with its password in a file, or under a new username. The first is of %s",
                len(unknown),
                unknown[0],
            )
        await self._flush()

    async def run(self) -> None:
        """Follow the requests; until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._keep_written())

    async def _follow(self) -> None:
        while True:
            try:
                async for event in self._store.changes(self._seq):
                    await self._heed(event)
                    self._seq = event.seq
                return
            except Unavailable as error:
                log.warning("the logins of devices wait: %s", error)
                await asyncio.sleep(AGAIN_S)

    async def _heed(self, event: AuditEvent) -> None:
        id = event.subject
        if id is None or not id.startswith("req-"):
            return
        if await self._take(id, await self._store.get(ProvisionRequest, id)):
            self._changed.set()

    async def _keep_written(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(GATHER_S)
            self._changed.clear()
            await self._flush()
            await asyncio.sleep(REST_S + REST_S_PER_REQUEST * len(self._open) if self._is_told else AGAIN_S)

    async def _take(self, id: str, request: ProvisionRequest | None) -> bool:
        """Whether it makes a difference to what is written."""
        if request is not None and request.is_open:
            is_new = id not in self._open
            self._open[id] = request
            self._of_user[request.username][id] = request.client_id
            return await self._learn_digest(request.username) or is_new
        return self._forget(id)

    def _forget(self, id: str) -> bool:
        """Whether it was there."""
        before = self._open.pop(id, None)
        if before is None:
            return False
        del self._of_user[before.username][id]
        if not self._of_user[before.username]:
            del self._of_user[before.username]
            self._digests.pop(before.username, None)
        return True

    async def _learn_digest(self, username: str) -> bool:
        """Whether it is another one than before."""
        user = await self._store.get(ProvisionUser, username)
        before, now = self._digests.pop(username, None), user.link_verifier if user is not None else None
        if now is not None and username != self._own_name:
            self._digests[username] = now
        return self._digests.get(username) != before

    async def _flush(self) -> None:
        passwords, access = "".join(self._passwords()), "".join(self._access())
        try:
            await asyncio.to_thread(self._write, passwords, access)
            self._is_told = True
        except Unavailable as error:
            if self._is_told:
                log.warning("the provision broker was not told of its users: %s", error)
            self._is_told = False
            self._changed.set()

    def _passwords(self) -> Iterator[str]:
        yield f"{self._own_name}:{self._own_digest}\n"
        for username in self._of_user:
            if username in self._digests:
                yield f"{username}:{self._digests[username]}\n"

    def _access(self) -> Iterator[str]:
        yield _HEAD
        yield _block(self._own_name, self._topics.own_access())
        for username, client_ids in self._of_user.items():
            if username in self._digests:
                lines = {line: None for client_id in client_ids.values() for line in self._topics.access(client_id)}
                yield _block(username, list(lines))


def _block(username: str, lines: Sequence[str]) -> str:
    return "\n".join((f"user {username}", *lines, ""))
