"""Consistency: what the store and the brokers say of the same things is compared, and what disagrees is listed.

It runs beside live traffic, so what is found has to be there twice before it counts.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
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
from provisioner.services.platform import Platform

SETTLE_S = 0.2

N = TypeVar("N", bound=Noun)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """kind: a code, ``granted_without_user``. subject: id of the record, or ``<account>/<username>``."""

    kind: str
    subject: str
    detail: str = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Everything:
    """All records, by id, as they were read one kind after another."""

    accounts: Mapping[str, Account]
    provision_users: Mapping[str, ProvisionUser]
    requests: Mapping[str, ProvisionRequest]
    devices: Mapping[str, Device]
    users: Mapping[str, AccountUser]
    effects: Mapping[str, Effect]


async def fsck(platform: Platform) -> list[Finding]:
    """What is inconsistent, ordered; empty: nothing. Raises Unavailable when the store cannot be read."""
    first = await _look(platform)
    if not first:
        return []
    await asyncio.sleep(SETTLE_S)
    return sorted(first & await _look(platform))


async def _look(platform: Platform) -> set[Finding]:
    every = _Everything(
        accounts=await _all(platform, Account),
        provision_users=await _all(platform, ProvisionUser),
        requests=await _all(platform, ProvisionRequest),
        devices=await _all(platform, Device),
        users=await _all(platform, AccountUser),
        effects=await _all(platform, Effect),
    )
    findings = {finding for request in every.requests.values() for finding in _request(platform, every, request)}
    findings.update(_duplicates(every.requests.values()))
    findings.update(_users(every))
    findings.update(_effects(platform, every))
    findings.update(_without_account(platform, every))
    for broker in platform.brokers.values():
        findings.update(await _broker(broker, every))
    return findings


async def _all(platform: Platform, noun: type[N]) -> dict[str, N]:
    return {record.id: record async for record in _each(platform, noun)}


async def _each(platform: Platform, noun: type[N]) -> AsyncIterator[N]:
    after: str | None = None
    while True:
        page = await platform.store.page(noun, after=after, limit=1000)
        for record in page.items:
            yield record
        if (after := page.after) is None:
            return


def _request(platform: Platform, every: _Everything, request: ProvisionRequest) -> Iterator[Finding]:
    if request.username not in every.provision_users:
        yield Finding("request_without_provision_user", request.id, f"user {request.username} does not exist")
    grant = request.grant
    if request.state is RequestState.GRANTED:
        yield from _granted(platform, every, request)
    elif grant is not None and grant.sealed is not None:
        yield Finding("sealed_box_left", request.id, f"a {request.state} request still holds its sealed answer")


def _granted(platform: Platform, every: _Everything, request: ProvisionRequest) -> Iterator[Finding]:
    grant = request.grant
    if grant is None:
        yield Finding("granted_without_grant", request.id, "nothing says what was granted")
        return
    if grant.device_id not in every.devices:
        yield Finding("granted_without_device", request.id, f"device {grant.device_id} does not exist")
    if account_user_id(request.account, grant.username) not in every.users:
        yield Finding("granted_without_user", request.id, f"user {grant.username} does not exist")
    try:
        sealed.unseal(platform.ring, request)
    except (Unavailable, ValueError) as error:
        detail = str(error) if isinstance(error, Unavailable) else "it is damaged"
        yield Finding("sealed_box_unreadable", request.id, detail)


def _duplicates(requests: Collection[ProvisionRequest]) -> Iterator[Finding]:
    """EC-07: a client id belongs to one open request of its scope, and so does a login."""
    for index, kind in (("client_id", "client_id_twice"), ("login", "login_twice")):
        holders: dict[str, list[str]] = defaultdict(list)
        for request in requests:
            if request.is_open:
                holders[request.unique()[index]].append(request.id)
        for ids in holders.values():
            if len(ids) > 1:
                yield Finding(kind, min(ids), f"open requests {', '.join(sorted(ids))} share it")


def _users(every: _Everything) -> Iterator[Finding]:
    for user in every.users.values():
        if user.device_id not in every.devices:
            yield Finding("user_without_device", user.id, f"device {user.device_id} does not exist")


def _effects(platform: Platform, every: _Everything) -> Iterator[Finding]:
    for effect in every.effects.values():
        if effect.verb is EffectVerb.APPLY and effect.id not in every.users:
            yield Finding("effect_without_user", effect.id, "it would bring a user to a broker that does not exist")
        if effect.broker not in platform.brokers:
            yield Finding("effect_without_broker", effect.id, f"no account broker {effect.broker} is configured")


def _without_account(platform: Platform, every: _Everything) -> Iterator[Finding]:
    for account in every.accounts.values():
        if account.broker not in platform.brokers:
            yield Finding("account_without_broker", account.id, f"no account broker {account.broker} is configured")
    owned: tuple[tuple[str, Mapping[str, ProvisionRequest | Device | AccountUser | ProvisionUser]], ...] = (
        ("request", every.requests),
        ("device", every.devices),
        ("user", every.users),
        ("provision_user", every.provision_users),
    )
    for name, records in owned:
        for record in records.values():
            if record.account not in every.accounts:
                yield Finding(f"{name}_without_account", record.id, f"account {record.account} does not exist")


async def _broker(broker: AccountBroker, every: _Everything) -> list[Finding]:
    """Users that wait for their effect are left out: the two sides may differ until it is done. So are those of a
    self-test that is running; what a crash left of one is no finding but cleared away."""
    try:
        users = [user for user in await broker.users() if not is_throw_away(user[0])]
        known = {account_user_id(account, username) for account, username in users}
    except Unavailable as error:
        return [Finding("broker_unreachable", broker.name, str(error))]
    stored = {user.id for user in every.users.values() if user.broker == broker.name}
    missing = [Finding("user_missing_at_broker", id, f"{broker.name} does not know it") for id in stored - known]
    extra = [Finding("user_only_at_broker", id, f"{broker.name} knows it, the store does not") for id in known - stored]
    return [finding for finding in (*missing, *extra) if finding.subject not in every.effects]
