"""Whoever was connected to an account broker that was not heard for a while is not called connected any more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from provisioner.model.device import Device
from provisioner.model.errors import Unavailable
from provisioner.model.messages import Delivery
from provisioner.model.ports import Gap, Sighting
from provisioner.model.presence import ConnectionStatus
from provisioner.services import gaps, turns
from provisioner.services.gaps import Gaps
from tests.services.world import ADA, World, in_world

CONNECTED, DISCONNECTED = ConnectionStatus.CONNECTED, ConnectionStatus.DISCONNECTED
MISSING, UNKNOWN = ConnectionStatus.MISSING, ConnectionStatus.UNKNOWN
DEADLINE_S = 10.0
HOUR = timedelta(hours=1)
EMPTY, UNHEARD = Gap("local", all_left=True), Gap("local", all_left=False)


def gaps_of(world: World) -> Gaps:
    return Gaps(world.platform, world.confirmation.seen, lambda: world.confirmation.waiting)


@asynccontextmanager
async def running(world: World, watched: Gaps) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work) for work in (watched.run(), world.confirmation.run())]
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks), "one of them ended by itself"


async def statuses(world: World) -> dict[str, ConnectionStatus]:
    devices = (await world.store.page(Device, limit=1_000)).items
    return {device.client_id: device.connection.status for device in devices}


async def becomes(world: World, **wanted: ConnectionStatus) -> None:
    while await statuses(world) != wanted:  # noqa: ASYNC110  # written by another task
        await asyncio.sleep(0.005)


def arrival(delivery: Delivery, **changes: Any) -> Sighting:
    own = {"account": delivery.account, "username": delivery.username, "client_id": delivery.client_id}
    return Sighting(**{**own, "address": "192.0.2.7", **changes})


@pytest.mark.parametrize(("gap", "after"), [(EMPTY, DISCONNECTED), (UNHEARD, UNKNOWN)])
@in_world
async def test_only_who_was_connected_there_is_touched(world: World, gap: Gap, after: ConnectionStatus) -> None:
    """Case 3: disconnected where nobody is there any more, unknown where nobody knows, since now; whoever was told
    to be gone stays so, and so do devices of other brokers."""
    await world.account("globex", broker="other")
    for client_id in ("gw1", "gw2", "gw3"):
        delivery = await world.confirmed(await world.request(client_id))
    await world.seen(delivery, connected=False, lost=True)
    await world.confirmed(await world.request("gw4", account="globex"))
    await world.granted(await world.request("gw5"))
    world.clock.move(HOUR)
    watched = gaps_of(world)
    watched.begin(gap)
    async with running(world, watched):
        await becomes(world, gw1=after, gw2=after, gw3=MISSING, gw4=CONNECTED, gw5=UNKNOWN)
    connection = (await world.device("gw1")).connection
    assert connection.status_at == world.clock.now
    assert connection.last_seen_at == world.clock.now - HOUR


@in_world
async def test_who_has_come_since_stays(world: World) -> None:
    """Case 2: an arrival after the gap is not hidden by what was before it, though nothing of it was written anew; one
    that came and left again has left."""
    stays, leaves = [await world.confirmed(await world.request(name)) for name in ("gw1", "gw2")]
    await world.confirmed(await world.request("gw3"))
    watched = gaps_of(world)
    watched.begin(EMPTY)
    watched.seen(arrival(stays))
    watched.seen(arrival(leaves))
    watched.seen(arrival(leaves, connected=False, lost=True))
    async with running(world, watched):
        await becomes(world, gw1=CONNECTED, gw2=MISSING, gw3=DISCONNECTED)


@in_world
async def test_who_comes_while_it_is_noted_takes_its_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 2: a device that comes at the very moment in which it is written down as gone is there afterwards."""
    monkeypatch.setattr(turns, "REST_S", 0.01)
    delivery = await world.confirmed(await world.request())
    watched, came = gaps_of(world), asyncio.Event()

    async def come(unit: Any) -> None:
        if not came.is_set():
            came.set()
            watched.seen(arrival(delivery))

    world.store.before_commit = come
    world.store.units.clear()
    watched.begin(EMPTY)
    async with running(world, watched):
        while len(world.store.units) < 2:  # noqa: ASYNC110  # written by another task
            await asyncio.sleep(0.005)
    written = [change.noun for unit in world.store.units for change in unit.changes]
    assert [each.connection.status for each in written if isinstance(each, Device)] == [DISCONNECTED, CONNECTED]
    assert await statuses(world) == {"gw1": CONNECTED}


@in_world
async def test_a_connection_that_has_a_name_is_ended_by_it(world: World) -> None:
    """Case 4: where a broker names its connections the newest one is what has ended."""
    delivery = await world.confirmed(await world.request())
    await world.seen(delivery, connection="192.0.2.7:5")
    watched = gaps_of(world)
    watched.begin(UNHEARD)
    async with running(world, watched):
        await becomes(world, gw1=UNKNOWN)
    await world.seen(delivery, connection="192.0.2.7:5", connected=False)
    assert await statuses(world) == {"gw1": DISCONNECTED}, "its broker's own word still counts"


@in_world
async def test_a_device_whose_user_is_gone_is_not_called_connected(world: World) -> None:
    """AZ-09: revoked when the service died; its broker cuts it, and to whom it was connected nobody knows."""
    await world.confirmed(await world.request())
    await world.devices.revoke(ADA, "gw1")
    assert await statuses(world) == {"gw1": CONNECTED}
    watched = gaps_of(world)
    watched.begin(EMPTY)
    async with running(world, watched):
        await becomes(world, gw1=UNKNOWN)


@in_world
async def test_the_newest_gap_counts(world: World) -> None:
    """Case 3: a broker that fails again while devices are looked through is looked through again."""
    delivery = await world.confirmed(await world.request())
    watched = gaps_of(world)
    watched.begin(EMPTY)
    watched.seen(arrival(delivery))
    watched.begin(UNHEARD)
    async with running(world, watched):
        await becomes(world, gw1=UNKNOWN)
        await world.seen(delivery)
        watched.begin(EMPTY)
        await becomes(world, gw1=DISCONNECTED)


@in_world
async def test_a_store_that_fails_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-35: nothing is forgotten because it could not be read for a moment."""
    monkeypatch.setattr(gaps, "AGAIN_S", 0.01)
    await world.confirmed(await world.request())
    genuine, failures = world.store.page, iter([Unavailable("read error")])

    async def page(*asked: Any, **more: Any) -> Any:
        if more["limit"] == gaps.PAGE_DEVICES:
            for failure in failures:
                raise failure
        return await genuine(*asked, **more)

    monkeypatch.setattr(world.store, "page", page)
    watched = gaps_of(world)
    watched.begin(EMPTY)
    async with running(world, watched):
        await becomes(world, gw1=DISCONNECTED)
    assert next(failures, None) is None


@in_world
async def test_a_fleet_is_noted_a_few_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-35: a page of devices is read and a handful waits, however many there are, so that whoever comes meanwhile
    waits behind no more than that."""
    monkeypatch.setattr(gaps, "PAGE_DEVICES", 8)
    monkeypatch.setattr(gaps, "WAITING_MAX", 4)
    names = [f"gw{n}" for n in range(30)]
    for name in names:
        await world.confirmed(await world.request(name))
    waited: list[int] = []

    def see(sighting: Sighting) -> None:
        world.confirmation.seen(sighting)
        waited.append(world.confirmation.waiting)

    watched = Gaps(world.platform, see, lambda: world.confirmation.waiting)
    watched.begin(EMPTY)
    async with running(world, watched):
        await becomes(world, **dict.fromkeys(names, DISCONNECTED))
    assert len(waited) == len(names)
    assert max(waited) <= 4
