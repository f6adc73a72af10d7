"""Brokers on which all accounts have one space of client ids: a client id belongs to one account there (F-05)."""

import pytest

from provisioner.model.errors import Conflict
from provisioner.model.policy import Policy
from provisioner.model.request import RequestState
from tests.services.world import ADA, World, in_world

PER_ACCOUNT = Policy(client_id_scope="account")


@pytest.mark.parametrize("shared", [True, False])
@in_world
async def test_a_device_that_is_there_keeps_its_client_id(world: World, shared: bool) -> None:
    """F-05: another account's request for it is refused where the two devices would throw each other out; its own
    account may ask again."""
    world.broker.client_ids_shared = shared
    await world.account("globex")
    await world.confirmed(await world.request())
    if shared:
        with pytest.raises(Conflict, match="another account has a device of client id gw1"):
            await world.request("gw1", account="globex", username="elsewhere")
        assert await world.request("gw1", username="second")
    else:
        assert await world.request("gw1", account="globex", username="elsewhere")


@pytest.mark.parametrize("broker", ["local", "other"])
@pytest.mark.parametrize("policy", [PER_ACCOUNT])
@in_world
async def test_an_open_request_holds_its_client_id_on_its_broker(world: World, policy: Policy, broker: str) -> None:
    """EC-07, F-05: with a scope of account too; on another broker it is free."""
    world.broker.client_ids_shared = world.other_broker.client_ids_shared = True
    await world.account("globex", broker=broker)
    await world.request()
    if broker == "local":
        with pytest.raises(Conflict, match="on account broker local"):
            await world.request("gw1", account="globex", username="elsewhere")
    else:
        assert await world.request("gw1", account="globex", username="elsewhere")


@pytest.mark.parametrize("policy", [PER_ACCOUNT])
@in_world
async def test_an_account_does_not_move_to_where_its_client_ids_are_taken(world: World, policy: Policy) -> None:
    """AZ-14, F-05: the request that stands in the way is named, and nothing moves."""
    world.broker.client_ids_shared = True
    await world.account("globex", broker="other")
    await world.confirmed(await world.request())
    foreign = await world.request("gw1", account="globex", username="elsewhere")
    with pytest.raises(Conflict, match="gw1"):
        await world.accounts.update(ADA, "globex", {"broker": "local"})
    assert (await world.accounts.show("globex")).broker == "other"
    await world.requests.delete(ADA, foreign.request.id)
    await world.accounts.update(ADA, "globex", {"broker": "local"})


@in_world
async def test_a_revoked_device_gives_its_client_id_back(world: World) -> None:
    """AZ-04: nothing of it is at the broker any more, so that another account's device may be."""
    world.broker.client_ids_shared = True
    await world.account("globex")
    await world.confirmed(await world.request())
    await world.devices.revoke(ADA, "gw1")
    assert await world.granted(await world.request("gw1", account="globex", username="elsewhere"))


@pytest.mark.parametrize("end", ["revoke", "confirm"])
@in_world
async def test_a_request_is_not_opened_again_where_its_client_id_is_taken(world: World, end: str) -> None:
    """F-05: meanwhile another account has a device of that client id there; the re-armed one would be told ``busy`` for
    ever. On a broker with a space of its own for each account it is opened again."""
    world.broker.client_ids_shared = True
    await world.account("globex")
    made = await world.request()
    if end == "revoke":
        await world.requests.revoke(ADA, made.request.id)
    else:
        await world.confirmed(made)
        await world.devices.revoke(ADA, "gw1")
    await world.confirmed(await world.request("gw1", account="globex", username="elsewhere"))
    with pytest.raises(Conflict, match="another account has a device of client id gw1 on account broker local"):
        await world.requests.rearm(ADA, made.request.id)
    assert (await world.requests.show(made.request.id)).state is RequestState.REVOKED
    world.broker.client_ids_shared = False
    assert (await world.requests.rearm(ADA, made.request.id)).is_open
