"""Builds what makes this gate one of many on the same store; nothing of it where a store has one process alone."""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from broker.gate import Gate
from provisioner.config import SHARED_BROKERS, Settings
from provisioner.fronts import ProvisionFront
from provisioner.model.account import Coupling
from provisioner.model.errors import Conflict, InvalidInput, Problem, Unavailable
from provisioner.model.ports import BrokerUser, Leases, Shared, Sighting, Store
from provisioner.services.confirmation import Confirmation
from provisioner.services.effects import Book, Effects
from provisioner.services.following import Following
from provisioner.services.gates import Gates
from provisioner.services.isolation import is_throw_away
from provisioner.services.platform import Platform

log = logging.getLogger(__name__)

SOLE_S, SOLE_RENEW_S = 20.0, 5.0
CERTAIN_S = 3.0
_OF_GUEST = ("client_id", "verifier", "enabled", "reserved", "coupling")


def gates_on(store: Store) -> Gates | None:
    """None: no other process can have this store."""
    if not isinstance(store, Shared):
        return None
    return Gates(store, secrets.token_urlsafe(9), f"{socket.gethostname()}:{os.getpid()}")


def following_of(
    platform: Platform, gates: Gates, effects: Effects, gate: Gate, confirmation: Confirmation
) -> Following:
    """Not started. The account brokers that ask us are told that they ask others as well."""
    from provisioner.account_brokers.http_callback import HttpCallbackBroker

    asking = {name: each for name, each in platform.brokers.items() if isinstance(each, HttpCallbackBroker)}
    books: dict[str, Book] = dict(asking)
    following = Following(platform, effects, books, gate.connections, gate.kick)

    async def make_certain(sighting: Sighting) -> None:
        try:
            async with asyncio.timeout(CERTAIN_S):
                await _note(confirmation, sighting)
        except TimeoutError:
            raise Unavailable("an arrival is not noted yet") from None

    def heeds(word: Sequence[Any]) -> None:
        match word:
            case ["user", name, account, username, fields] if name in asking:
                asking[name].entertain(account, username, _as_user(account, username, fields))

    gates.heed(heeds)
    for name, each in asking.items():
        each.one_of_many(following, make_certain, partial(_tell_of_guest, gates, name))
    return following


def attend(gates: Gates, gate: Gate, front: ProvisionFront) -> None:
    """What the gates say to each other concerns this gate from now on."""
    gates.attend(gate, lambda: len(gate.connections()), front.elsewhere)


class Sole:
    """Account brokers that only one gate can tell of users, held by a lease for as long as the service runs."""

    def __init__(self, leases: Leases, holder: str, brokers: Sequence[str]) -> None:
        """holder: the same after a restart, so that nobody has to wait for a lease of his own."""
        self._leases, self._holder, self._brokers = leases, holder, brokers
        self._fences: dict[str, int] = {}

    async def take(self) -> None:
        """Raises InvalidInput when another gate has one of them."""
        for name in self._brokers:
            fence = await self._leases.acquire(_lease(name), self._holder, SOLE_S)
            if fence is None:
                rule = (
                    "is used by another gate on this store, and its kind serves one process; "
                    f"many gates need account brokers of kind {', '.join(SHARED_BROKERS)}"
                )
                raise InvalidInput([Problem(f"account_brokers.{name}", rule, "a name")])
            self._fences[name] = fence

    async def keep(self) -> None:
        """Until cancelled. Raises InvalidInput when one was lost to another gate."""
        while self._brokers:
            await asyncio.sleep(SOLE_RENEW_S)
            try:
                await self.take()
            except Unavailable as error:
                log.warning("the leases of account brokers wait: %s", error)
        await asyncio.Event().wait()

    async def let_go(self) -> None:
        """Another gate may have them at once."""
        with contextlib.suppress(Unavailable):
            for name, fence in self._fences.items():
                await self._leases.release(_lease(name), fence)


def _lease(broker: str) -> str:
    return f"account-broker/{broker}"


def sole_brokers(settings: Settings, base: Path, shared: Shared) -> Sole:
    """Those of the settings that many gates cannot have together."""
    names = [each.name for each in settings.account_brokers if each.kind not in SHARED_BROKERS]
    return Sole(shared, f"{socket.gethostname()}:{base.resolve()}:{settings.admin.port}", names)


async def _tell_of_guest(gates: Gates, broker: str, account: str, username: str, user: BrokerUser | None) -> None:
    """Users of a self-test, whom no record tells the others of."""
    if is_throw_away(account):
        fields = None if user is None else {name: getattr(user, name) for name in _OF_GUEST}
        await gates.make_known("user", broker, account, username, fields)


def _as_user(account: str, username: str, fields: dict[str, Any] | None) -> BrokerUser | None:
    if fields is None:
        return None
    coupling = Coupling(fields["coupling"])
    return BrokerUser(account=account, username=username, **fields | {"coupling": coupling})


async def _note(confirmation: Confirmation, sighting: Sighting) -> None:
    while True:
        try:
            await confirmation.note([sighting])
            return
        except Conflict:
            continue
