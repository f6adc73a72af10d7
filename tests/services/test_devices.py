"""Administration of the device registry: find, disable, enable, revoke, kick."""

import pytest

from provisioner.dialects.limits import METADATA_ENTRIES_MAX
from provisioner.model.device import Device, DeviceState
from provisioner.model.errors import Conflict, IllegalMove, NotFound, Unavailable
from provisioner.model.messages import Delivery, Status
from provisioner.model.policy import Policy
from provisioner.model.ports import Unit
from provisioner.model.request import RequestState
from provisioner.model.user import AccountUser
from provisioner.services.fsck import fsck
from tests.services.world import ADA, World, in_world


@in_world
async def test_a_device_is_found_by_id_and_by_client_id(world: World) -> None:
    """AZ-07, AZ-08: with what it said of itself; in no account but its own."""
    delivery = await world.granted(await world.request(), device={"serial_number": "S1"})
    by_id = await world.devices.find(delivery.device_id)
    assert by_id == await world.devices.find("gw1") == await world.devices.find("gw1", "acme")
    assert by_id.metadata == {"serial_number": "S1"}
    for name, account in (("gw2", None), ("gw1", "globex"), (delivery.device_id, "globex")):
        with pytest.raises(NotFound):
            await world.devices.find(name, account)


@pytest.mark.parametrize("policy", [Policy(client_id_scope="account")])
@in_world
async def test_two_devices_of_one_client_id_are_told_apart_by_account(world: World, policy: Policy) -> None:
    """EC-07: without the account the name is ambiguous."""
    await world.account("globex")
    for account in ("acme", "globex"):
        await world.granted(await world.request("gw1", account=account, username=f"user-{account}"))
    with pytest.raises(Conflict, match="name the account"):
        await world.devices.find("gw1")
    assert (await world.devices.find("gw1", "globex")).account == "globex"


@in_world
async def test_what_a_device_says_of_itself_is_added_to_what_it_said(world: World) -> None:
    """AZ-07: a later message adds and replaces, and forgets nothing."""
    made = await world.request()
    await world.granted(made, "m1", device={"serial_number": "S1", "firmware_version": "1"})
    await world.granted(made, "m2", device={"firmware_version": "2", "floor": 3})
    assert (await world.device()).metadata == {"serial_number": "S1", "firmware_version": "2", "floor": 3}


@in_world
async def test_what_a_device_says_of_itself_has_a_bound(world: World) -> None:
    """F-36: however often it asks and whatever it names, the newest entries stay, as many as one message has."""
    made = await world.request()
    for number in range(3):
        names = [f"part{number}-{place}" for place in range(METADATA_ENTRIES_MAX - 1)]
        device = {"serial_number": number} | dict.fromkeys(names, "x")
        await world.granted(made, f"m{number}", device=device)
    assert (await world.device()).metadata == device


@pytest.mark.parametrize("confirmed", [True, False])
@in_world
async def test_a_disabled_device_is_cut_and_stays_out(world: World, confirmed: bool) -> None:
    """AZ-05, F-08: at its account broker and at the gate, with everything kept."""
    made = await world.request()
    delivery = await (world.confirmed(made) if confirmed else world.granted(made))
    assert world.broker.connect(delivery)
    disabled = await world.devices.disable(ADA, "gw1")
    assert disabled.state is DeviceState.DISABLED
    assert world.broker.live == {}
    assert not world.broker.connect(delivery)
    assert made.request.id in world.cut
    assert await world.status(made, "m2") is Status.REFUSED
    assert await world.reasons() == ["device_disabled"]
    assert (await world.store.count(AccountUser), await world.store.count(Device)) == (1, 1)


@in_world
async def test_an_enabled_device_comes_back_with_the_same_credentials(world: World) -> None:
    """AZ-05: no new grant, no new password."""
    made = await world.request()
    delivery = await world.confirmed(made)
    await world.devices.disable(ADA, "gw1")
    enabled = await world.devices.enable(ADA, "gw1")
    assert enabled.state is DeviceState.PROVISIONED
    assert world.broker.connect(delivery)
    await world.seen(delivery)
    assert [row.action for row in await world.audit() if row.action.startswith("device.")] == [
        "device.disable",
        "device.enable",
    ]


@in_world
async def test_disabling_one_leaves_its_neighbours_connected(world: World) -> None:
    """AZ-06: cutting one device harms no other."""
    fleet = [await world.confirmed(await world.request(f"gw{number}")) for number in range(4)]
    assert all(world.broker.connect(delivery) for delivery in fleet)
    await world.devices.disable(ADA, "gw2")
    assert {client_id for _, client_id in world.broker.live} == {"gw0", "gw1", "gw3"}


@in_world
async def test_while_new_credentials_are_on_their_way_disabling_ends_both(world: World) -> None:
    """AZ-05, AZ-13: the present user and the coming one; enabling restores both."""
    made = await world.request()
    present = await world.confirmed(made)
    await world.requests.rearm(ADA, "gw1")
    coming = await world.granted(made, "m2")
    await world.devices.disable(ADA, "gw1")
    assert [world.broker.connect(each) for each in (present, coming)] == [False, False]
    await world.devices.enable(ADA, "gw1")
    assert [world.broker.connect(each) for each in (present, coming)] == [True, True]


@pytest.mark.parametrize(("verb", "disabled_before"), [("disable", True), ("enable", False)])
@in_world
async def test_a_verb_that_the_life_cycle_does_not_know_changes_nothing(
    world: World, verb: str, disabled_before: bool
) -> None:
    """AZ-05: disabling twice and enabling what is enabled raise, and nothing is different."""
    await world.confirmed(await world.request())
    if disabled_before:
        await world.devices.disable(ADA, "gw1")
    before, device = await world.counts(), await world.device()
    with pytest.raises(IllegalMove):
        await getattr(world.devices, verb)(ADA, "gw1")
    assert await world.device() == device
    assert await world.counts() == before


@in_world
async def test_a_dry_run_changes_nothing(world: World) -> None:
    """EC-42: it shows the state to come and cuts nobody."""
    delivery = await world.confirmed(await world.request())
    assert world.broker.connect(delivery)
    before = await world.counts()
    assert (await world.devices.disable(ADA, "gw1", dry_run=True)).state is DeviceState.DISABLED
    assert await world.counts() == before
    assert world.broker.live != {}
    assert world.cut == []


@in_world
async def test_a_broker_that_is_away_is_told_later(world: World) -> None:
    """F-25: disabled at once in the registry, and at the broker as soon as that is back."""
    delivery = await world.confirmed(await world.request())
    world.broker.available = False
    await world.devices.disable(ADA, "gw1")
    assert (await world.device()).state is DeviceState.DISABLED
    world.broker.available = True
    assert await world.effects.finish_left_over() == 0
    assert not world.broker.connect(delivery)


@pytest.mark.parametrize("state", ["granted", "confirmed", "disabled", "moving"])
@in_world
async def test_a_revoked_device_has_nothing_left_to_come_in_by(world: World, state: str) -> None:
    """AZ-04, F-08: wherever it is in its life its users go, its requests close, and it is cut on both sides."""
    made = await world.request()
    given = [await (world.granted(made) if state == "granted" else world.confirmed(made))]
    if state == "disabled":
        await world.devices.disable(ADA, "gw1")
    if state == "moving":
        await world.requests.rearm(ADA, "gw1")
        given.append(await world.granted(made, "m2"))
    world.cut.clear()
    assert (await world.devices.revoke(ADA, "gw1")).state is DeviceState.REVOKED
    assert world.broker.live == world.broker.known == {}
    assert not any(world.broker.connect(each) for each in given)
    assert world.cut == [made.request.id]
    request = await world.stored(made)
    assert request.state is RequestState.REVOKED
    assert request.grant is not None and request.grant.sealed is None
    assert await world.status(made, "m3") is Status.REFUSED
    assert (await world.store.count(AccountUser), await world.store.count(Device)) == (0, 1)
    assert await fsck(world.platform) == []


@in_world
async def test_every_door_of_a_revoked_device_is_closed(world: World) -> None:
    """AZ-04: a further request of its client id in its account closes too, one of another account does not."""
    await world.account("globex")
    former = await world.request()
    await world.confirmed(former)
    further = await world.request(username="second")
    await world.devices.revoke(ADA, "gw1")
    foreign = await world.request(account="globex", username="elsewhere")
    assert [(await world.stored(each)).state for each in (former, further, foreign)] == [
        *(RequestState.REVOKED, RequestState.REVOKED, RequestState.PENDING)
    ]
    await world.devices.revoke(ADA, "gw1")
    assert (await world.stored(foreign)).state is RequestState.PENDING


@in_world
async def test_what_a_revocation_took_is_in_the_audit_log(world: World) -> None:
    """AZ-04: the users and the serials of their certificates, and a row for each request that it closed."""
    await world.accounts.update(ADA, "acme", {"certificates": "server-key"})
    made = await world.request()
    delivery = await world.confirmed(made)
    serial = (await world.device()).certificate_serial
    await world.devices.revoke(ADA, "gw1")
    (row,) = await world.audit("device.revoke")
    assert (row.actor, row.subject, row.client_id) == (ADA, delivery.device_id, "gw1")
    assert row.details == {"users": [delivery.username], "certificates": [serial]}
    assert (await world.device()).certificate_serial is None
    (closing,) = await world.audit("request.revoke")
    assert (closing.subject, closing.details) == (made.request.id, {"device": delivery.device_id})


@in_world
async def test_a_revoked_device_comes_back_by_a_new_grant_only(world: World) -> None:
    """AZ-04: enabling it is no move; its request re-armed gives it new credentials, and the old ones stay dead."""
    made = await world.request()
    former = await world.confirmed(made)
    await world.devices.revoke(ADA, "gw1")
    with pytest.raises(IllegalMove):
        await world.devices.enable(ADA, "gw1")
    await world.requests.rearm(ADA, "gw1")
    latter = await world.confirmed(made, "m2")
    assert latter.device_id == former.device_id
    assert latter.username != former.username
    assert [world.broker.connect(each) for each in (former, latter)] == [False, True]
    assert (await world.device()).state is DeviceState.CONNECTED


@in_world
async def test_a_revocation_that_its_broker_missed_is_told_later(world: World) -> None:
    """F-25, AZ-04: revoked at once in the registry, and at the broker as soon as that is back."""
    delivery = await world.confirmed(await world.request())
    world.broker.available = False
    await world.devices.revoke(ADA, "gw1")
    assert await world.store.count(AccountUser) == 0
    world.broker.available = True
    assert await world.effects.finish_left_over() == 0
    assert not world.broker.connect(delivery)


@in_world
async def test_a_grant_in_the_middle_of_a_revocation_does_not_outlive_it(world: World) -> None:
    """F-08: what was granted after the revocation read its device, and before it was committed, is taken too."""
    made = await world.request()
    await world.confirmed(made)
    await world.requests.rearm(ADA, "gw1")
    late: list[Delivery] = []

    async def grant_first(unit: Unit) -> None:
        if unit.audit and unit.audit[0].action == "device.revoke":
            world.store.before_commit = None
            late.append(await world.granted(made, "m2"))

    world.store.before_commit = grant_first
    await world.devices.revoke(ADA, "gw1")
    assert len(late) == 1
    assert not world.broker.connect(late[0])
    assert await world.store.count(AccountUser) == 0


@in_world
async def test_a_dry_revocation_changes_nothing(world: World) -> None:
    """EC-42: it shows the state to come and cuts nobody."""
    delivery = await world.confirmed(await world.request())
    assert world.broker.connect(delivery)
    before = await world.counts()
    assert (await world.devices.revoke(ADA, "gw1", dry_run=True)).state is DeviceState.REVOKED
    assert await world.counts() == before
    assert world.broker.live != {}
    assert world.cut == []


@in_world
async def test_a_kick_cuts_the_connection_and_no_more(world: World) -> None:
    """AZ-04: the device may come back at once; without a connection there is nothing to cut."""
    delivery = await world.confirmed(await world.request())
    assert world.broker.connect(delivery)
    assert await world.devices.kick(ADA, "gw1") is True
    assert world.broker.live == {}
    assert await world.devices.kick(ADA, "gw1") is False
    assert world.broker.connect(delivery)
    assert len(await world.audit("device.kick")) == 2


@in_world
async def test_a_kick_needs_its_broker(world: World) -> None:
    """F-25: it is not remembered for later, so the administrator is told."""
    await world.confirmed(await world.request())
    world.broker.available = False
    with pytest.raises(Unavailable):
        await world.devices.kick(ADA, "gw1")
    assert await world.audit("device.kick") == []


@in_world
async def test_devices_are_listed_in_pages_and_by_state(world: World) -> None:
    """AZ-07: each once; a filter shows those that match."""
    for number in range(5):
        await world.granted(await world.request(f"gw{number}"))
    await world.devices.disable(ADA, "gw3")
    first = await world.devices.page(limit=3)
    second = await world.devices.page(after=first.after, limit=3)
    assert {device.client_id for device in (*first.items, *second.items)} == {f"gw{number}" for number in range(5)}
    assert [device.client_id for device in (await world.devices.page(where={"state": "disabled"})).items] == ["gw3"]
