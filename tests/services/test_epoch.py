"""F-40: what a restored backup holds open may have been used since: nobody passes before a person says so."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from provisioner.model.account import Account
from provisioner.model.epoch import Epoch
from provisioner.model.errors import Conflict, IllegalMove
from provisioner.model.messages import Status
from provisioner.model.ports import Put, Unit
from provisioner.model.request import Approval, RequestState
from provisioner.services import copying
from provisioner.services.copying import Place
from provisioner.services.epochwatch import watch_epoch
from provisioner.services.request_making import Made
from provisioner.store.backup_file import Backup
from provisioner.store.tinydb_store import TinyDbStore
from tests.services.world import ADA, NOON, World, closed, in_world, opened

Before = Callable[[World], Coroutine[Any, Any, Made]]


@asynccontextmanager
async def restored(
    folder: Path, before: Before, since: Callable[[World, Made], Any]
) -> AsyncIterator[tuple[World, Made]]:
    """A world that went back to a backup. since: what happened between the backup and the loss of the store."""
    lost = await opened(folder / "lost")
    try:
        await lost.account()
        made = await before(lost)
        await copying.backup(ADA, lost.store, folder / "backup", NOON)
        await since(lost, made)
    finally:
        await closed(lost)
    store = await TinyDbStore.open(folder / "found")
    found = await copying.restore(await Backup.open(folder / "backup"), Place(store=store, name="found"), NOON)
    assert (await copying.usable_epoch(store)).number == found.epoch == 2
    await store.close()
    world = await opened(folder / "found", epoch=found.epoch)
    try:
        yield world, made
    finally:
        await closed(world)


async def pending(world: World) -> Made:
    return await world.request(activation_key=True)


async def granted(world: World) -> Made:
    made = await pending(world)
    await world.granted(made, key=made.activation_key)
    return made


async def used(world: World, made: Made) -> None:
    await world.confirmed(made, key=made.activation_key)


async def nothing(world: World, made: Made) -> None:
    pass


def test_f_40_a_key_that_was_used_after_the_backup_stays_used(tmp_path: Path) -> None:
    """F-40: the device waits, nothing is made for whoever has its secrets, and the reason says what to do."""

    async def scenario() -> None:
        async with restored(tmp_path, pending, used) as (world, made):
            before = await world.counts()
            answer = await world.ask(made, key=made.activation_key)
            assert answer.status is Status.WAITING
            assert answer.retry_after_s == world.platform.policy.retry_after_waiting_s
            assert await world.reasons() == ["restored"]
            request, decision = await world.requests.explain(made.request.id)
            assert request.phase(NOON, world.platform.epoch) == "restored"
            assert decision.refusal is not None
            assert f"fleetgate request approve {request.id}" in decision.refusal.detail
            after = await world.counts()
            assert {k: n for k, n in after.items() if k != "audit"} == {k: n for k, n in before.items() if k != "audit"}

    asyncio.run(scenario())


def test_f_40_an_answer_that_was_owed_is_withheld_as_well(tmp_path: Path) -> None:
    """F-40, F-15: a grant that the backup holds was confirmed since, so its secrets are not told again."""

    async def scenario() -> None:
        async with restored(tmp_path, granted, used) as (world, made):
            assert await world.status(made, key=made.activation_key) is Status.WAITING
            assert (await world.stored(made)).state is RequestState.GRANTED

    asyncio.run(scenario())


def test_f_40_a_device_that_has_its_answer_is_confirmed_all_the_same(tmp_path: Path) -> None:
    """F-40: a device that was granted before the backup and is seen on its broker needs nobody's approval."""

    async def scenario() -> None:
        deliveries = []

        async def told(world: World) -> Made:
            made = await pending(world)
            deliveries.append(await world.granted(made, key=made.activation_key))
            return made

        async with restored(tmp_path, told, nothing) as (world, made):
            await world.seen(deliveries[0])
            assert (await world.stored(made)).state is RequestState.CONFIRMED
            assert await world.status(made, key=made.activation_key) is Status.ALREADY_PROVISIONED

    asyncio.run(scenario())


@pytest.mark.parametrize("verb", ["approve", "rearm"])
def test_f_40_whoever_was_answered_for_is_let_through(tmp_path: Path, verb: str) -> None:
    """F-40: after an administrator's approval, or re-arming, the device is provisioned, once."""

    async def scenario() -> None:
        async with restored(tmp_path, pending, nothing) as (world, made):
            if verb == "approve":
                await world.requests.decide_approval(ADA, "gw1", Approval.APPROVED)
            else:
                await world.requests.rearm(ADA, "gw1")
            await used(world, made)
            assert await world.status(made, key=made.activation_key) is Status.ALREADY_PROVISIONED

    asyncio.run(scenario())


def test_f_40_a_rejected_one_is_refused(tmp_path: Path) -> None:
    """F-40: an administrator who knows better says no."""

    async def scenario() -> None:
        async with restored(tmp_path, pending, used) as (world, made):
            await world.requests.decide_approval(ADA, "gw1", Approval.REJECTED)
            assert await world.status(made, key=made.activation_key) is Status.REFUSED

    asyncio.run(scenario())


def test_f_40_closed_and_new_requests_need_nobody(tmp_path: Path) -> None:
    """F-40: what was confirmed in the backup is done, and what is made after the restore is of the new epoch."""

    async def confirmed(world: World) -> Made:
        made = await pending(world)
        await used(world, made)
        return made

    async def scenario() -> None:
        async with restored(tmp_path, confirmed, nothing) as (world, made):
            assert await world.status(made, key=made.activation_key) is Status.ALREADY_PROVISIONED
            with pytest.raises(IllegalMove):
                await world.requests.decide_approval(ADA, "gw1", Approval.APPROVED)
            assert await world.store.count(Account) == 1
            fresh = await world.request("gw2", username="other-user")
            await world.confirmed(fresh)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("epoch", "told"),
    [
        (Epoch(moved_to="elsewhere"), "moved to elsewhere"),
        (Epoch(filling="a"), "copy of a"),
        (Epoch(number=2), "epoch 2"),
    ],
)
@in_world
async def test_f_40_a_service_notices_what_is_done_to_its_store(world: World, epoch: Epoch, told: str) -> None:
    """F-40, D12: a gate on a shared store that is moved or restored ends, and until then commits nothing more."""
    made = await world.request()
    watching = asyncio.create_task(watch_epoch(world.platform, period_s=0.01))
    await asyncio.sleep(0.03)
    assert not watching.done()
    await world.store.commit(Unit([Put(epoch)]))
    with pytest.raises(Conflict, match=told):
        await asyncio.wait_for(watching, 10)
    assert await world.status(made) is Status.BUSY
