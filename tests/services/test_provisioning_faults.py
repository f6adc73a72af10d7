"""Provisioning while store or account broker fail, are slow, or are changed by somebody else."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from provisioner.model.errors import Unavailable
from provisioner.model.messages import Status
from provisioner.model.ports import Put, Unit
from provisioner.model.request import RequestState
from provisioner.model.user import AccountUser
from tests.services.world import ADA, World, in_world


@in_world
async def test_a_broker_that_is_away_makes_the_answer_busy_and_loses_nothing(world: World) -> None:
    """D6, F-27: told to come back; the credentials were fixed by the commit and are those of the later answer."""
    made = await world.request()
    world.broker.available = False
    busy = await world.ask(made, "m1")
    assert busy is not None
    assert (busy.status, busy.retry_after_s, busy.delivery) == (Status.BUSY, 5, None)
    (planned,) = await world.store.find(AccountUser, "account", "acme")
    assert await world.status(made, "m1") is Status.BUSY
    assert await world.status(made, "m2") is Status.BUSY
    world.broker.available = True
    delivery = await world.granted(made, "m2")
    assert delivery.username == planned.username
    assert world.broker.connect(delivery)
    assert await world.store.count(AccountUser) == 1


@in_world
async def test_a_busy_broker_does_not_cost_the_only_attempt(world: World) -> None:
    """wire-json: busy consumed nothing, so the same message succeeds once the broker is back."""
    made = await world.request(max_attempts=1)
    world.broker.available = False
    assert await world.status(made, "m1") is Status.BUSY
    world.broker.available = True
    assert world.broker.connect(await world.granted(made, "m1"))


@in_world
async def test_a_copy_of_the_question_waits_for_the_broker_too(world: World) -> None:
    """F-26: nobody is answered before the user exists, whichever copy of the message is answered first."""
    made = await world.request()
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def held_up() -> None:
        entered.set()
        await go_on.wait()

    world.broker.before_put = held_up
    first = asyncio.create_task(world.granted(made, "m1"))
    await entered.wait()
    copy = asyncio.create_task(world.granted(made, "m1"))
    done, _ = await asyncio.wait([copy], timeout=0.05)
    assert not done
    go_on.set()
    assert await first == await copy
    assert world.broker.connect(await copy)


ENDINGS: dict[str, Callable[[World], Awaitable[object]]] = {
    "revoke": lambda world: world.requests.revoke(ADA, "gw1"),
    "rearm": lambda world: world.requests.rearm(ADA, "gw1"),
    "delete": lambda world: world.requests.delete(ADA, "gw1"),
    "disable": lambda world: world.devices.disable(ADA, "gw1"),
    "disable account": lambda world: world.accounts.update(ADA, "acme", {"enabled": False}),
}


@pytest.mark.parametrize("verb", list(ENDINGS))
@in_world
async def test_rights_that_end_while_the_broker_is_told_of_them_have_ended(world: World, verb: str) -> None:
    """F-08, F-25: however slow the broker takes a new user, what an administrator decides after the grant holds."""
    made = await world.request()
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def held_up() -> None:
        world.broker.before_put = None
        entered.set()
        await go_on.wait()

    world.broker.before_put = held_up
    asking = asyncio.create_task(world.ask(made))
    await entered.wait()
    ending = asyncio.ensure_future(ENDINGS[verb](world))
    await asyncio.wait([ending], timeout=0.05)  # as far as it can go while the broker is held up
    go_on.set()
    answer, _ = await asyncio.gather(asking, ending)
    assert answer is not None
    assert answer.delivery is None or not world.broker.connect(answer.delivery)


@in_world
async def test_a_store_that_fails_answers_busy_and_nothing_happened(world: World) -> None:
    """F-42, F-24: what is not durable is neither said nor done."""
    made = await world.request()

    async def fail(unit: Unit) -> None:
        raise Unavailable("no space left")

    world.store.before_commit = fail
    assert await world.status(made) is Status.BUSY
    assert world.broker.known == {}
    world.store.before_commit = None
    assert (await world.stored(made)).state is RequestState.PENDING
    assert await world.status(made) is Status.PROVISIONED


@in_world
async def test_a_record_that_moved_on_is_read_and_decided_again(world: World) -> None:
    """F-16, F-08: revoked between read and commit, the device is refused by what holds now."""
    made = await world.request()

    async def revoke_first(unit: Unit) -> None:
        world.store.before_commit = None
        await world.requests.revoke(ADA, made.request.id)

    world.store.before_commit = revoke_first
    assert await world.status(made) is Status.REFUSED
    assert world.broker.known == {}
    assert await world.reasons() == ["revoked"]


@in_world
async def test_a_record_that_never_holds_still_answers_busy(world: World) -> None:
    """F-16: after a few tries the device is told to come back rather than kept waiting."""
    made = await world.request()
    tries = 0

    async def change_first(unit: Unit) -> None:
        nonlocal tries
        tries += 1
        world.store.before_commit = None
        request = await world.stored(made)
        await world.store.commit(Unit(changes=[Put(replace(request, max_attempts=100 + tries))]))
        world.store.before_commit = change_first

    world.store.before_commit = change_first
    assert await world.status(made) is Status.BUSY
    world.store.before_commit = None
    assert 1 < tries < 10
    assert await world.reasons("provision.busy") == ["contention"]


@in_world
async def test_a_broker_that_is_not_configured_is_merely_away(world: World) -> None:
    """F-27: an account whose broker left the configuration answers busy until it is back."""
    made = await world.request()
    account = await world.accounts.show("acme")
    await world.store.commit(Unit(changes=[Put(replace(account, broker="gone"))]))
    assert await world.status(made, "m1") is Status.BUSY
    account = await world.accounts.show("acme")
    await world.store.commit(Unit(changes=[Put(replace(account, broker="local"))]))
    assert world.broker.connect(await world.granted(made, "m2"))
