"""Confirmation: seen on its account broker, a device is done, and what was kept for it is erased."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from provisioner.model.device import DeviceState
from provisioner.model.errors import Unavailable
from provisioner.model.messages import Status
from provisioner.model.ports import Put, Sighting, Unit
from provisioner.model.request import ProvisionRequest, RequestState
from provisioner.model.user import AccountUser
from provisioner.services.turns import WAITING_MAX
from tests.services.world import ADA, NOON, World, in_world

SECOND = timedelta(seconds=1)
DEADLINE_S = 10.0


@in_world
async def test_a_device_that_is_seen_is_done(world: World) -> None:
    """EC-36, F-29, D7: request confirmed, sealed answer erased, device connected, in one commit."""
    made = await world.request()
    delivery = await world.granted(made)
    world.store.units.clear()
    world.clock.move(30 * SECOND)
    await world.seen(delivery)
    request, device = await world.stored(made), await world.device()
    assert (request.state, request.confirmed_at) == (RequestState.CONFIRMED, world.clock.now)
    assert request.grant is not None
    assert request.grant.sealed is None
    assert device.state is DeviceState.CONNECTED
    assert (device.connection.last_seen_at, device.connection.address) == (world.clock.now, "192.0.2.7")
    assert len(world.store.units) == 1
    (row,) = await world.audit("provision.confirmed")
    assert row.details == {"device": device.id, "late": False}


@pytest.mark.parametrize(("after_s", "late"), [(300, False), (301, True)])
@in_world
async def test_a_late_device_is_confirmed_all_the_same(world: World, after_s: int, late: bool) -> None:
    """wire-esf: by default within 300 s; later is accepted, and marked."""
    delivery = await world.granted(await world.request())
    world.clock.move(after_s * SECOND)
    await world.seen(delivery)
    assert [row.details["late"] for row in await world.audit("provision.confirmed")] == [late]


@pytest.mark.parametrize(
    "changes", [{"username": "dev-other-1"}, {"account": "globex"}, {"client_id": "gw2"}, {"client_id": "GW1"}]
)
@in_world
async def test_a_sighting_of_somebody_else_confirms_nothing(world: World, changes: dict[str, Any]) -> None:
    """EC-36: account, user and client id must all be those of the grant."""
    made = await world.request()
    delivery = await world.granted(made)
    before = await world.counts()
    await world.seen(delivery, **changes)
    assert (await world.stored(made)).state is RequestState.GRANTED
    assert await world.counts() == before


@in_world
async def test_the_user_of_a_former_grant_confirms_nothing(world: World) -> None:
    """D6: after a re-arm the old credentials still work, and are merely seen; the new ones confirm."""
    made = await world.request()
    former = await world.confirmed(made)
    await world.requests.rearm(ADA, "gw1")
    present = await world.granted(made, "m2")
    await world.seen(former)
    assert (await world.stored(made)).state is RequestState.GRANTED
    await world.seen(present)
    assert (await world.stored(made)).state is RequestState.CONFIRMED


@in_world
async def test_what_a_device_leaves_behind_is_taken_away(world: World) -> None:
    """D6, AZ-13: once the new credentials are confirmed, the former user is gone from store and broker."""
    made = await world.request()
    former = await world.confirmed(made)
    await world.requests.rearm(ADA, "gw1")
    present = await world.granted(made, "m2")
    assert world.broker.connect(former)
    await world.seen(present)
    assert not world.broker.connect(former)
    assert world.broker.connect(present)
    assert [user.username for user in await world.store.find(AccountUser, "account", "acme")] == [present.username]


@in_world
async def test_a_device_that_comes_and_goes_writes_once_a_minute(world: World) -> None:
    """F-35: sightings within a minute of the last one cost no commit."""
    delivery = await world.confirmed(await world.request())
    seen_at = []
    for _ in range(5):
        world.clock.move(20 * SECOND)
        await world.seen(delivery)
        seen_at.append(((await world.device()).connection.last_seen_at or NOON) - NOON)
    assert seen_at == [timedelta(0), timedelta(0), 60 * SECOND, 60 * SECOND, 60 * SECOND]


@in_world
async def test_a_disabled_device_stays_disabled(world: World) -> None:
    """AZ-05: a sighting that was on its way when it was disabled confirms the request and enables nothing."""
    made = await world.request()
    delivery = await world.granted(made)
    await world.devices.disable(ADA, "gw1")
    await world.seen(delivery)
    assert (await world.stored(made)).state is RequestState.CONFIRMED
    assert (await world.device()).state is DeviceState.DISABLED
    world.clock.move(120 * SECOND)
    before = await world.device()
    await world.seen(delivery)
    assert await world.device() == before


@in_world
async def test_a_confirmed_device_outlives_its_request(world: World) -> None:
    """EC-36: with the request deleted, sightings keep the registry up to date."""
    made = await world.request()
    delivery = await world.confirmed(made)
    await world.requests.delete(ADA, made.request.id)
    world.clock.move(120 * SECOND)
    await world.seen(delivery)
    assert (await world.device()).connection.last_seen_at == world.clock.now


# The queue.


async def confirmed_by_running(world: World, made: ProvisionRequest) -> None:
    """Let the queue run until the request is confirmed."""
    task = asyncio.create_task(world.confirmation.run())
    try:
        async with asyncio.timeout(DEADLINE_S):
            async for row in world.store.changes(0):
                if row.action == "provision.confirmed" and row.subject == made.id:
                    return
    finally:
        task.cancel()
        await asyncio.wait([task])


@in_world
async def test_a_sighting_by_the_broker_confirms_by_itself(world: World) -> None:
    """F-29: no acknowledgement of the device is needed."""
    made = await world.request()
    assert world.broker.connect(await world.granted(made))
    await confirmed_by_running(world, made.request)
    assert await world.status(made) is Status.ALREADY_PROVISIONED


@in_world
async def test_a_device_that_leaves_confirms_nothing(world: World) -> None:
    """EC-36: only a connection counts, the one after it in the queue is the one that is handled."""
    one, other = await world.request("gw1"), await world.request("gw2")
    leaving, coming = await world.granted(one), await world.granted(other)
    world.confirmation.seen(
        Sighting(account="acme", username=leaving.username, client_id="gw1", address=None, connected=False)
    )
    assert world.broker.connect(coming)
    await confirmed_by_running(world, other.request)
    assert (await world.stored(one)).state is RequestState.GRANTED


@pytest.mark.parametrize("failure", ["moved on", "unavailable"])
@in_world
async def test_a_sighting_is_not_lost_to_a_store_that_fails(
    world: World, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F-42: a record that moved on, or a store that cannot write just now, delays the confirmation and no more."""
    made = await world.request()
    delivery = await world.granted(made)
    failures = 0

    async def fail_twice(unit: Unit) -> None:
        nonlocal failures
        if failures == 2 or len(unit.changes) < 2:
            return
        failures += 1
        if failure == "unavailable":
            raise Unavailable("no space left")
        await world.store.commit(Unit(changes=[Put(await world.stored(made))]))

    async def at_once(_: float) -> None:
        pass

    monkeypatch.setattr("provisioner.services.confirmation.asyncio.sleep", at_once)
    world.store.before_commit = fail_twice
    assert world.broker.connect(delivery)
    await confirmed_by_running(world, made.request)
    assert failures == 2
    assert len(await world.audit("provision.confirmed")) == 1


@in_world
async def test_a_fleet_that_arrives_at_once_is_confirmed_as_a_whole(world: World) -> None:
    """F-31: two hundred sightings, handled several at a time, leave nobody out."""
    fleet = [await world.request(f"gw{number}") for number in range(200)]
    for made in fleet:
        assert world.broker.connect(await world.granted(made))
    task = asyncio.create_task(world.confirmation.run())
    async with asyncio.timeout(DEADLINE_S):
        confirmed = 0
        async for row in world.store.changes(0):
            confirmed += row.action == "provision.confirmed"
            if confirmed == len(fleet):
                break
    task.cancel()
    await asyncio.wait([task])
    assert await world.store.count(ProvisionRequest, where={"state": "confirmed"}) == len(fleet)


@in_world
async def test_more_sightings_than_can_wait_are_dropped_without_blocking(world: World) -> None:
    """F-35: the broker's own loop is never held up; the device's next sighting will do."""
    delivery = await world.granted(await world.request())
    sighting = Sighting(account="acme", username="dev-nobody-1", client_id="gw1", address=None)
    for _ in range(WAITING_MAX + 10):
        world.confirmation.seen(sighting)
    assert world.broker.connect(delivery)  # dropped, and nothing raised
    assert world.confirmation._turns.count == WAITING_MAX
