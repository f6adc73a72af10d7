"""Consistency: what the store and the brokers say of the same things is compared, and what disagrees is listed.

It runs beside live traffic, so what is found has to be there twice before it counts.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from provisioner.model.account import Account
from provisioner.model.device import Device
from provisioner.model.effect import Effect, EffectVerb
from provisioner.model.errors import Unavailable
from provisioner.model.ports import AccountBroker, Noun
from provisioner.model.request import ProvisionRequest, RequestState
from provisioner.model.user import AccountUser, ProvisionUser, account_user_id
from provisioner.services import sealed
from provisioner.services.isolation import is_throw_away
from provisioner.services.pages import pages
from provisioner.services.platform import Platform

SETTLE_S = 0.2

N = TypeVar("N", bound=Noun)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """kind: a code, ``granted_without_user``. subject: id of the record, or ``<account>/<username>``."""

    kind: str
    subject: str
    detail: str = field(compare=False)


@dataclass(slots=True, kw_only=True)
class _Known:
    """What other records are held against: of kinds that there may be a million of, the ids and no more.

    users: id -> name of its account broker. holders: index and value -> the first open request that has it."""

    accounts: Mapping[str, Account]
    effects: Mapping[str, Effect] = field(default_factory=dict)
    provision_users: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)
    users: dict[str, str] = field(default_factory=dict)
    holders: dict[tuple[str, str], str] = field(default_factory=dict)


async def fsck(platform: Platform) -> list[Finding]:
    """What is inconsistent, ordered; empty: nothing. Raises Unavailable when the store cannot be read."""
    first = await _look(platform)
    if not first:
        return []
    await asyncio.sleep(SETTLE_S)
    return sorted(first & await _look(platform))


async def _look(platform: Platform) -> set[Finding]:
    """One kind after another, page by page, so that a large store is neither loaded as a whole nor held up."""
    known = _Known(accounts=await _all(platform, Account))
    findings = set(_accounts(platform, known))
    async for login in _each(platform, ProvisionUser):
        known.provision_users.add(login.id)
        findings.update(_owned("provision_user", login, known))
    async for device in _each(platform, Device):
        known.devices.add(device.id)
        findings.update(_owned("device", device, known))
    async for user in _each(platform, AccountUser):
        known.users[user.id] = user.broker
        findings.update(_user(user, known))
    async for request in _each(platform, ProvisionRequest):
        findings.update(_request(platform, known, request))
        findings.update(_rivals(request, known))
    known.effects = await _all(platform, Effect)
    findings.update(_effects(platform, known))
    for broker in platform.brokers.values():
        findings.update(await _broker(broker, known))
    return findings


async def _all(platform: Platform, noun: type[N]) -> dict[str, N]:
    return {record.id: record async for record in _each(platform, noun)}


async def _each(platform: Platform, noun: type[N]) -> AsyncIterator[N]:
    async for records in pages(platform.store, noun):
        for record in records:
            yield record
        await asyncio.sleep(0)  # a store in memory never waits, and devices do


def _owned(
    name: str, record: ProvisionRequest | Device | AccountUser | ProvisionUser, known: _Known
) -> Iterator[Finding]:
    if record.account not in known.accounts:
        yield Finding(f"{name}_without_account", record.id, f"account {record.account} does not exist")


def _request(platform: Platform, known: _Known, request: ProvisionRequest) -> Iterator[Finding]:
    yield from _owned("request", request, known)
    if request.username not in known.provision_users:
        yield Finding("request_without_provision_user", request.id, f"user {request.username} does not exist")
    grant = request.grant
    if request.state is RequestState.GRANTED:
        yield from _granted(platform, known, request)
    elif grant is not None and grant.sealed is not None:
        yield Finding("sealed_box_left", request.id, f"a {request.state} request still holds its sealed answer")


def _granted(platform: Platform, known: _Known, request: ProvisionRequest) -> Iterator[Finding]:
    grant = request.grant
    if grant is None:
        yield Finding("granted_without_grant", request.id, "nothing says what was granted")
        return
    if grant.device_id not in known.devices:
        yield Finding("granted_without_device", request.id, f"device {grant.device_id} does not exist")
    if account_user_id(request.account, grant.username) not in known.users:
        yield Finding("granted_without_user", request.id, f"user {grant.username} does not exist")
    try:
        sealed.unseal(platform.ring, request)
    except (Unavailable, ValueError) as error:
        detail = str(error) if isinstance(error, Unavailable) else "it is damaged"
        yield Finding("sealed_box_unreadable", request.id, detail)


def _rivals(request: ProvisionRequest, known: _Known) -> Iterator[Finding]:
    """EC-07: a client id belongs to one open request of its scope, and so does a login."""
    if not request.is_open:
        return
    for index, kind in (("client_id", "client_id_twice"), ("login", "login_twice")):
        first = known.holders.setdefault((index, request.unique()[index]), request.id)
        if first != request.id:
            yield Finding(kind, first, f"open requests {first} and {request.id} share it")


def _user(user: AccountUser, known: _Known) -> Iterator[Finding]:
    yield from _owned("user", user, known)
    if user.device_id not in known.devices:
        yield Finding("user_without_device", user.id, f"device {user.device_id} does not exist")


def _effects(platform: Platform, known: _Known) -> Iterator[Finding]:
    for effect in known.effects.values():
        if effect.verb is EffectVerb.APPLY and effect.id not in known.users:
            yield Finding("effect_without_user", effect.id, "it would bring a user to a broker that does not exist")
        if effect.broker not in platform.brokers:
            yield Finding("effect_without_broker", effect.id, f"no account broker {effect.broker} is configured")


def _accounts(platform: Platform, known: _Known) -> Iterator[Finding]:
    for account in known.accounts.values():
        if account.broker not in platform.brokers:
            yield Finding("account_without_broker", account.id, f"no account broker {account.broker} is configured")


async def _broker(broker: AccountBroker, known: _Known) -> list[Finding]:
    """Users that wait for their effect are left out: the two sides may differ until it is done. So are those of a
    self-test that is running; what a crash left of one is no finding but cleared away."""
    try:
        users = [user for user in await broker.users() if not is_throw_away(user[0])]
        there = {account_user_id(account, username) for account, username in users}
    except Unavailable as error:
        return [Finding("broker_unreachable", broker.name, str(error))]
    stored = {id for id, home in known.users.items() if home == broker.name}
    missing = [Finding("user_missing_at_broker", id, f"{broker.name} does not know it") for id in stored - there]
    extra = [Finding("user_only_at_broker", id, f"{broker.name} knows it, the store does not") for id in there - stored]
    return [finding for finding in (*missing, *extra) if finding.subject not in known.effects]
