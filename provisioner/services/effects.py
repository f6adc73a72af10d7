"""Effects: what a commit made necessary at an account broker is done, however often the process dies (D6).

A grant is its own record of what must be done: at the start every user is brought to its broker again. A row of
``Effect`` stands for what that does not cover: a user to be taken away, a change, a broker that could not take it.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Protocol
from weakref import WeakValueDictionary

from provisioner.model.account import Account
from provisioner.model.effect import Effect, EffectVerb
from provisioner.model.errors import Conflict, Unavailable
from provisioner.model.ports import AccountBroker, BrokerUser, Delete, Put, Unit
from provisioner.model.request import ProvisionRequest, RequestState
from provisioner.model.secret import Secret
from provisioner.model.user import AccountUser, account_user_id
from provisioner.services import sealed
from provisioner.services.crashpoints import reach
from provisioner.services.pages import pages
from provisioner.services.platform import Platform

log = logging.getLogger(__name__)


class Book(AccountBroker, Protocol):
    """An account broker that asks us: every gate has to know its users."""

    def knows(self, account: str, username: str) -> bool: ...

    def known_of(self, account: str, client_id: str | None) -> Sequence[str]:
        """Names of the users that are known to be made for it; for None all of the account."""


PERIOD_S = 5.0
LEASE, LEASE_S = "effects", 10.0
_TOGETHER_MAX = 500


class Effects:
    """Applies effects at once after their commit, and those that a crash or a broker's absence left over.

    What is stored of a user is read and told to its broker under a lock of that user: what was decided last is also
    what the broker hears last, however slow it is (F-08)."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._finishing: set[asyncio.Task[None]] = set()
        self._unrestored: set[str] = set()  # account users whose broker could not be told at the start
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def plan(self, verb: EffectVerb, user: AccountUser) -> Put:
        """The change that belongs into the same unit as what makes the effect necessary."""
        former = await self._platform.store.get(Effect, user.id)
        return Put(
            Effect(
                id=user.id,
                verb=verb,
                broker=user.broker,
                account=user.account,
                username=user.username,
                created_at=self._platform.now(),
                version=former.version if former else 0,
            )
        )

    async def bring(self, id: str, password: Secret) -> None:
        """Make a granted user known to its broker. Raises Conflict when it was taken away since, Unavailable when
        the broker cannot; then it is remembered and tried again."""
        async with self._lock(id):
            user = await self._platform.store.get(AccountUser, id)
            if user is None:
                raise Conflict("the user was taken away again")
            known = _as_known(user, password, enabled=await self._is_enabled(user))
            try:
                await self._tell(user.broker, known)
            except Unavailable:
                with contextlib.suppress(Conflict, Unavailable):  # the start covers what even this cannot remember
                    await self._platform.store.commit(Unit(changes=[await self.plan(EffectVerb.APPLY, user)]))
                raise

    async def apply(self, id: str) -> None:
        """Do the effect of that user now. Raises Unavailable when its broker cannot; it is tried again later."""
        async with self._lock(id):
            await self._apply(id)

    async def _apply(self, id: str) -> None:
        effect = await self._platform.store.get(Effect, id)
        if effect is None:
            return
        user = await self._platform.store.get(AccountUser, id)
        if user is None or effect.verb is EffectVerb.REMOVE:
            await self._platform.broker(effect.broker).remove_user(effect.account, effect.username)
        else:
            await self._tell(effect.broker, await self.broker_user(user))
        # The answer need not wait for this: an effect that is still there is merely done twice.
        task = asyncio.create_task(self._done(effect))
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    async def apply_all(self, ids: Iterable[str]) -> None:
        """Do what can be done now, together where a broker can take many at once; the rest ``run`` tries again."""

        async def attempt(id: str) -> None:
            with contextlib.suppress(Unavailable):
                await self.apply(id)

        await _together(attempt(id) for id in ids)

    async def broker_user(self, user: AccountUser) -> BrokerUser:
        """The user as its broker must know it, with the clear password as long as that exists."""
        requests = await self._platform.store.find(ProvisionRequest, "grant_user", user.id)
        answer = sealed.unseal(self._platform.ring, requests[0]) if requests else None
        password = answer.delivery.password if answer and answer.delivery else None
        return _as_known(user, password, enabled=await self._is_enabled(user))

    async def finish_left_over(self) -> int:
        """Apply every effect that is still there; returns how many could not be.

        Of several gates one alone does it, and leaves to the others what they have only just committed. One that has
        slept through its lease stops at the next page; what it did beyond is done twice, and is finished once: by
        whoever removes that very version of the effect."""
        gates = self._platform.gates
        fence = await gates.lead(LEASE, LEASE_S) if gates is not None else None
        if gates is not None and fence is None:
            return 0
        failed, after = 0, None

        async def attempt(id: str) -> None:
            nonlocal failed
            try:
                await self.apply(id)
            except Unavailable as error:
                failed += 1
                log.warning("effect %s waits: %s", id, error)

        while True:
            page = await self._platform.store.page(Effect, after=after, limit=500)
            await _together(attempt(effect.id) for effect in page.items if self._is_left_over(effect))
            if (after := page.after) is None:
                return failed
            if gates is not None and fence is not None and not await gates.leads(LEASE, fence, LEASE_S):
                return failed

    def _is_left_over(self, effect: Effect) -> bool:
        age_s = (self._platform.now() - effect.created_at).total_seconds()
        return self._platform.gates is None or not 0 <= age_s < PERIOD_S

    async def refresh(self, id: str, books: Mapping[str, Book]) -> None:
        """What our own brokers remember of a user becomes what is stored: another gate may have changed it. Raises
        Unavailable."""
        account, _, username = id.partition("/")
        async with self._lock(id):
            user = await self._platform.store.get(AccountUser, id)
            for name, book in books.items():
                if user is not None and user.broker == name:
                    await _put(book, await self.broker_user(user))
                elif book.knows(account, username):
                    await book.remove_user(account, username)

    async def restore(self) -> int:
        """Tell every broker of every user it must know; for brokers that forget when they stop. Those whose broker
        cannot be told now are told by ``run``; returns how many were told.

        For the start alone: what was read is told as it is, since no door of ours is open to change it."""
        owed = await self._restore_owed()
        told = len(owed - self._unrestored)
        async for users in pages(self._platform.store, AccountUser):
            told += await self._restore_confirmed([user for user in users if user.id not in owed])
        if self._platform.gates is not None:  # one of the others may have granted meanwhile
            await self._restore_owed()
        return told

    async def _restore_owed(self) -> set[str]:
        """Those whose device was not seen yet, with their clear password; returns their ids."""
        owed: set[str] = set()
        where = {"state": RequestState.GRANTED.value}
        async for requests in pages(self._platform.store, ProvisionRequest, where):
            ids = [account_user_id(each.account, each.grant.username) for each in requests if each.grant]
            await self._restore(ids)
            owed.update(ids)
        return owed

    async def _restore(self, ids: Sequence[str]) -> int:
        async def bring(id: str) -> None:
            async with self._lock(id):
                user = await self._platform.store.get(AccountUser, id)
                if user is not None and user.broker in self._platform.brokers:
                    await self._tell(user.broker, await self.broker_user(user))

        return await self._told({id: bring(id) for id in ids})

    async def _restore_confirmed(self, users: Sequence[AccountUser]) -> int:
        """Nobody keeps their passwords: what their broker must know of them is in the user and its account."""
        here = [user for user in users if user.broker in self._platform.brokers]
        accounts = {id: await self._platform.store.get(Account, id) for id in {user.account for user in here}}

        async def bring(user: AccountUser) -> None:
            account = accounts[user.account]
            enabled = user.enabled and account is not None and account.enabled
            await self._tell(user.broker, _as_known(user, None, enabled=enabled))

        return await self._told({user.id: bring(user) for user in here})

    async def _told(self, work: Mapping[str, Awaitable[None]]) -> int:
        """How many could be told, of work by the id of its user; ``run`` tries the others again."""
        errors: dict[str, Unavailable] = {}

        async def attempt(id: str, telling: Awaitable[None]) -> None:
            try:
                await telling
            except Unavailable as error:
                errors[id] = error

        await _together(attempt(id, telling) for id, telling in work.items())
        self._unrestored -= work.keys()
        self._unrestored |= errors.keys()
        if errors:
            log.warning("%d account users wait for their broker: %s", len(errors), next(iter(errors.values())))
        return len(work) - len(errors)

    async def run(self) -> None:
        """Finish what is left over, now and then; until cancelled."""
        while True:
            await self.catch_up()
            await asyncio.sleep(PERIOD_S)

    async def catch_up(self) -> None:
        """Try again what could not be done so far."""
        try:
            await self.finish_left_over()
            if self._unrestored:
                await self._restore(sorted(self._unrestored))
        except Unavailable as error:
            log.warning("effects wait: %s", error)

    async def settle(self) -> None:
        """Wait for the bookkeeping of applied effects; at shutdown."""
        await asyncio.gather(*self._finishing)

    async def _tell(self, broker: str, user: BrokerUser) -> None:
        """A broker that is refused still hears who is disabled, but of nobody who may come in."""
        find = self._platform.usable_broker if user.enabled else self._platform.broker
        await _put(find(broker), user)

    def _lock(self, id: str) -> asyncio.Lock:
        return self._locks.setdefault(id, asyncio.Lock())

    async def _is_enabled(self, user: AccountUser) -> bool:
        account = await self._platform.store.get(Account, user.account)
        return user.enabled and account is not None and account.enabled

    async def _done(self, effect: Effect) -> None:
        reach("before_effect_done")
        try:
            await self._platform.store.commit(Unit(changes=[Delete(effect)]))
        except (Conflict, Unavailable) as error:
            log.debug("effect %s stays: %s", effect.id, type(error).__name__)


async def _together(work: Iterable[Awaitable[None]]) -> None:
    """Some hundred at a time, so that they share what is costly once."""
    waiting = iter(work)
    while group := list(itertools.islice(waiting, _TOGETHER_MAX)):
        await asyncio.gather(*group)


async def _put(broker: AccountBroker, user: BrokerUser) -> None:
    """What the broker cannot have beside what it has is tried again like what it cannot do just now: the other one may
    go."""
    try:
        await broker.put_user(user)
    except Conflict as error:
        raise Unavailable(f"account broker {broker.name} cannot take {user.username}: {error}") from None


def _as_known(user: AccountUser, password: Secret | None, *, enabled: bool) -> BrokerUser:
    return BrokerUser(
        account=user.account,
        username=user.username,
        client_id=user.client_id,
        verifier=user.verifier,
        password=password,
        enabled=enabled,
        reserved=user.reserved,
        coupling=user.coupling,
        certificates=user.certificates,
    )
