"""Several connections of one client id: what the registry says of the device (esf 4.7), and what it costs."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from provisioner.model.device import DeviceState
from provisioner.model.messages import Delivery
from provisioner.model.policy import Policy
from provisioner.model.ports import Sighting
from provisioner.model.presence import ConnectionStatus
from provisioner.services import turns
from tests.services.world import ADA, World, in_world

CONNECTED, DISCONNECTED = ConnectionStatus.CONNECTED, ConnectionStatus.DISCONNECTED
MISSING, UNKNOWN = ConnectionStatus.MISSING, ConnectionStatus.UNKNOWN
SECOND = timedelta(seconds=1)
DEADLINE_S = 10.0


async def status(world: World) -> ConnectionStatus:
    return (await world.device()).connection.status


def sighting(delivery: Delivery, **changes: Any) -> Sighting:
    own = {"account": delivery.account, "username": delivery.username, "client_id": delivery.client_id}
    return Sighting(**{**own, "address": "192.0.2.7", **changes})


@in_world
async def test_it_is_connected_while_it_is_there(world: World) -> None:
    """It arrives, leaves, arrives again and is lost; the instant of each is kept, and the registry's state is not its
    business."""
    delivery = await world.granted(await world.request())
    assert await status(world) is UNKNOWN
    for changes, after in (
        ({}, CONNECTED),
        ({"connected": False}, DISCONNECTED),
        ({}, CONNECTED),
        ({"connected": False, "lost": True}, MISSING),
    ):
        world.clock.move(SECOND)
        await world.seen(delivery, **changes)
        connection = (await world.device()).connection
        assert (connection.status, connection.status_at) == (after, world.clock.now)
        assert (await world.device()).state is DeviceState.CONNECTED


@in_world
async def test_the_newest_connection_wins_and_is_told(world: World) -> None:
    """Case 1: the newest authenticated connection is the device's; one from another address is in the audit."""
    delivery = await world.confirmed(await world.request())
    await world.seen(delivery, connection="198.51.100.9:5", address="198.51.100.9")
    connection = (await world.device()).connection
    assert (connection.status, connection.address) == (CONNECTED, "198.51.100.9")
    (row,) = await world.audit("device.taken_over")
    assert (row.address, row.details["former_address"]) == ("198.51.100.9", "192.0.2.7")


@in_world
async def test_the_loser_never_marks_the_device_disconnected(world: World) -> None:
    """Case 2, kapua#2219: the end of a connection that was taken over from comes late, and says nothing."""
    delivery = await world.confirmed(await world.request())
    await world.seen(delivery, connection="first")
    await world.seen(delivery, connection="second")
    before = await world.device()
    for lost in (False, True):
        await world.seen(delivery, connection="first", connected=False, lost=lost)
    assert await world.device() == before
    await world.seen(delivery, connection="second", connected=False)
    assert await status(world) is DISCONNECTED


@in_world
async def test_what_the_will_said_is_kept(world: World) -> None:
    """Case 3: a device whose Will was due stays missing when its connection's end is told as well."""
    delivery = await world.confirmed(await world.request())
    await world.seen(delivery, connected=False, lost=True)
    await world.seen(delivery, connected=False)
    assert await status(world) is MISSING
    await world.seen(delivery)
    assert await status(world) is CONNECTED


@in_world
async def test_only_the_node_that_owns_the_connection_has_a_say(world: World) -> None:
    """Case 4, kapua#2204: what another node tells of a connection that it lost to this one changes nothing, in
    whatever order the words arrive."""
    delivery = await world.confirmed(await world.request())
    here, there = sighting(delivery, connection="10.0.0.1:1"), sighting(delivery, connection="10.0.0.2:2")
    gone = sighting(delivery, connection="10.0.0.1:1", connected=False, lost=True)
    for order in ([here, there, gone], [here, gone, there]):
        await world.confirmation.note(order)
        assert await status(world) is CONNECTED


@pytest.mark.parametrize("policy", [Policy(client_id_scope="account")])
@in_world
async def test_two_accounts_may_be_online_under_one_client_id(world: World, policy: Policy) -> None:
    """Identity is the account with the client id: neither takes over from the other, and neither's end is the
    other's."""
    await world.account("globex")
    ours = await world.confirmed(await world.request("gw1"))
    theirs = await world.granted(await world.request("gw1", account="globex", username="user-globex"))
    await world.seen(theirs, account="globex", address="198.51.100.9")
    assert await world.audit("device.taken_over") == []
    await world.seen(theirs, account="globex", connected=False)
    assert (await world.devices.find("gw1", "acme")).connection.status is CONNECTED
    assert (await world.devices.find("gw1", "globex")).connection.status is DISCONNECTED
    assert ours.account == "acme"


@in_world
async def test_the_end_of_former_credentials_is_not_the_devices_end(world: World) -> None:
    """While it changes its credentials a device may be known by two users; the newest arrival has the say."""
    made = await world.request()
    former = await world.confirmed(made)
    await world.requests.rearm(ADA, "gw1")
    assert await status(world) is CONNECTED
    present = await world.granted(made, "m2")
    assert await status(world) is CONNECTED
    await world.seen(present)
    await world.seen(former, connected=False, lost=True)
    assert await status(world) is CONNECTED


@pytest.mark.parametrize("verb", ["disable", "revoke"])
@in_world
async def test_a_device_that_was_shut_out_is_seen_leaving(world: World, verb: str) -> None:
    """AZ-04, AZ-05: its broker tells that it was cut when its user is gone already; an arrival that was on its way
    changes nothing."""
    delivery = await world.confirmed(await world.request())
    await getattr(world.devices, verb)(ADA, "gw1")
    await world.seen(delivery, connected=False)
    assert await status(world) is DISCONNECTED
    await world.seen(delivery)
    assert await status(world) is DISCONNECTED


@in_world
async def test_a_broker_that_never_tells_who_leaves_says_nothing_of_who_is_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would ever hear that the device is gone, so that its status is unknown; it is still confirmed."""
    quiet = replace(world.broker.capabilities(), reports_leaving=False)
    monkeypatch.setattr(world.broker, "capabilities", lambda: quiet)
    await world.confirmed(await world.request())
    device = await world.device()
    assert (device.state, device.connection.status) == (DeviceState.CONNECTED, UNKNOWN)
    assert device.connection.last_seen_at == world.clock.now


@in_world
async def test_who_comes_and_goes_all_the_time_costs_little(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-35: a hundred arrivals and ends of one device are a commit or two, and the last of them is what is known."""
    monkeypatch.setattr(turns, "REST_S", 0.05)
    delivery = await world.confirmed(await world.request())
    world.store.units.clear()
    task = asyncio.create_task(world.confirmation.run())
    for _ in range(100):
        world.confirmation.seen(sighting(delivery))
        world.confirmation.seen(sighting(delivery, connected=False, lost=True))
        await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        while await status(world) is not MISSING:  # noqa: ASYNC110  # what is waited for is written by another task
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.wait([task])
    assert len(world.store.units) <= 3
