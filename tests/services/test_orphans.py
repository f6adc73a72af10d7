"""An account that is deleted while requests are made in it: neither commit sees the other, and nothing is left over."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from provisioner.model.account import Account
from provisioner.model.device import Device
from provisioner.model.errors import InvalidInput, NotFound
from provisioner.model.messages import Answer, Status
from provisioner.model.ports import Delete, Put, Unit
from provisioner.model.request import ProvisionRequest
from provisioner.model.user import AccountUser, ProvisionUser
from provisioner.services.fsck import fsck
from provisioner.services.orphans import remove_orphans
from provisioner.services.request_import import RequestImport
from tests.services.world import ADA, World, in_world


def _before(world: World, change: type[Put] | type[Delete], noun: type, work: Callable[[], Awaitable[object]]) -> None:
    """Have somebody else do this between the check and the commit of the first unit with such a change."""

    async def interrupt(unit: Unit) -> None:
        if any(isinstance(each, change) and isinstance(each.noun, noun) for each in unit.changes):
            world.store.before_commit = None
            await work()

    world.store.before_commit = interrupt


async def _is_clean(world: World) -> bool:
    kinds = (Account, ProvisionRequest, ProvisionUser, AccountUser, Device)
    left = [await world.store.count(kind, where={"account": "acme"}) for kind in kinds[1:]]
    return await world.store.get(Account, "acme") is None and not any(left) and await fsck(world.platform) == []


@in_world
async def test_a_request_made_while_its_account_is_deleted_goes_with_it(world: World) -> None:
    """AZ-09: the deletion counted none; what was made until its commit is removed, and told in the audit log."""
    _before(world, Delete, Account, world.request)
    await world.accounts.delete(ADA, "acme")
    assert await _is_clean(world)
    (told,) = await world.audit("request.delete")
    assert (told.client_id, told.reason, told.actor) == ("gw1", "account_deleted", ADA)
    assert world.cut == [told.subject]
    assert await world.accounts.create(ADA, {"name": "acme", "broker": "local"})
    assert await world.request()


@in_world
async def test_a_device_granted_while_its_account_is_deleted_is_shut_out(world: World) -> None:
    """F-08: its user leaves the broker with the account."""
    answers: list[Answer | None] = []

    async def make_and_grant() -> None:
        answers.append(await world.ask(await world.request()))

    _before(world, Delete, Account, make_and_grant)
    await world.accounts.delete(ADA, "acme")
    (answer,) = answers
    assert answer is not None and answer.delivery is not None
    assert not world.broker.connect(answer.delivery)
    assert world.broker.known == {}
    assert await _is_clean(world)


@in_world
async def test_a_request_that_comes_after_its_account_was_deleted_is_refused(world: World) -> None:
    """EC-05: the account was there when the request was checked, and is not when it was stored: nothing stays."""
    _before(world, Put, ProvisionRequest, lambda: world.accounts.delete(ADA, "acme"))
    with pytest.raises(InvalidInput, match="account: must be the name of an existing account"):
        await world.request()
    assert await _is_clean(world)


@in_world
async def test_rows_of_an_account_that_is_deleted_meanwhile_are_reported_alone(world: World) -> None:
    """An import goes on with the rows of the other accounts, which are made once."""
    await world.account("globex")
    _before(world, Put, ProvisionRequest, lambda: world.accounts.delete(ADA, "acme"))
    names = ("acme", "globex", "acme", "globex")
    rows = [(n, {"account": name, "client_id": f"gw{n}", "username": f"user-{n}"}) for n, name in enumerate(names)]
    results = await RequestImport(world.requests.making, world.platform.now).make_all(ADA, rows)
    assert [isinstance(result.error, InvalidInput) for result in results] == [True, False, True, False]
    assert {r.client_id for r in (await world.requests.page()).items} == {"gw1", "gw3"}
    assert await _is_clean(world)


@in_world
async def test_what_has_its_account_is_never_removed(world: World) -> None:
    """An account that is made again at once keeps what is made in it."""
    await world.confirmed(await world.request())
    assert await remove_orphans(world.platform, world.effects, ADA, "acme") is None
    assert [await world.store.count(kind) for kind in (ProvisionRequest, ProvisionUser, AccountUser, Device)] == [1] * 4


@in_world
async def test_a_device_whose_account_is_gone_is_refused_in_words(world: World) -> None:
    """F-08: what a crash left between the two is refused and audited, and fsck names it."""
    made = await world.request()
    account = await world.accounts.show("acme")
    await world.store.commit(Unit(changes=[Delete(account)]))
    answer = await world.ask(made)
    assert answer is not None and answer.status is Status.REFUSED
    assert await world.reasons() == ["account_deleted"]
    assert {each.kind for each in await fsck(world.platform)} == {
        "request_without_account",
        "provision_user_without_account",
    }
    with pytest.raises(NotFound):
        await world.accounts.show("acme")


@in_world
async def test_many_imports_into_one_account_do_not_meet(world: World) -> None:
    """What guards against a deletion changes no record: nothing is stale for others, and nothing is committed twice."""
    importing = RequestImport(world.requests.making, world.platform.now)
    version, before = (await world.accounts.show("acme")).version, len(world.store.units)
    rows = [
        [(n, {"account": "acme", "client_id": f"gw{part}-{n}", "username": f"u{part}-{n}"}) for n in range(20)]
        for part in range(4)
    ]
    made = await asyncio.gather(*(importing.make_all(ADA, part) for part in rows))
    assert [result.error for part in made for result in part] == [None] * 80
    assert (await world.accounts.show("acme")).version == version
    assert len(world.store.units) - before == 4
