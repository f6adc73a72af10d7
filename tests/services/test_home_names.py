"""What account users are called on a broker where a name that is the device's home costs less (P9)."""

from dataclasses import replace

import pytest

from provisioner.model.user import AccountUser
from tests.services.world import ADA, World, in_world


def prefers_homes(world: World) -> None:
    can = replace(world.broker.capabilities(), home_usernames=True)
    world.broker.capabilities = lambda: can  # type: ignore[method-assign]  # a broker of another kind, no other change


@in_world
async def test_a_user_is_named_by_its_home_where_the_broker_prefers_it(world: World) -> None:
    """D7: and keeps its name whenever the same grant is given again, whatever the broker prefers by then."""
    made = await world.request()
    prefers_homes(world)
    delivery = await world.granted(made)
    assert delivery.username == "acme/gw1"
    assert "acme/gw1" in str(delivery.configuration)
    world.broker.capabilities = lambda: replace(type(world.broker).capabilities(world.broker))  # type: ignore[method-assign]
    assert (await world.granted(made, "m2")).username == "acme/gw1"
    assert world.broker.connect(delivery)


@in_world
async def test_a_re_armed_device_takes_turns_between_two_names(world: World) -> None:
    """AZ-13, D6: the former credentials hold until the new ones are seen, so that both cannot have one name."""
    prefers_homes(world)
    made = await world.request()
    names, former = [], None
    for number in range(4):
        delivery = await world.granted(made, f"m{number}")
        assert former is None or world.broker.connect(former)
        await world.seen(delivery)
        assert world.broker.connect(delivery)
        assert former is None or not world.broker.connect(former)
        assert [user.username for user in await world.store.find(AccountUser, "account", "acme")] == [delivery.username]
        names.append(delivery.username == "acme/gw1")
        await world.requests.rearm(ADA, "gw1")
        former = delivery
    assert names == [True, False, True, False]


@in_world
async def test_a_name_is_free_when_the_broker_has_forgotten_it(world: World) -> None:
    """F-25: what an absent broker has still to take away is not given a new password that would be taken away too."""
    prefers_homes(world)
    made = await world.request()
    former = await world.granted(made)
    world.broker.available = False
    await world.requests.rearm(ADA, "gw1")
    world.broker.available = True
    present = await world.granted(made, "m2")
    assert present.username != former.username
    await world.effects.finish_left_over()
    assert world.broker.connect(present)
    assert not world.broker.connect(former)


@pytest.mark.parametrize("client_id", ["gw:1", "gerät", "a b", "g" * 252])
@in_world
async def test_a_client_id_that_cannot_stand_in_a_name_does_not(world: World, client_id: str) -> None:
    """EC-06: such a device is provisioned all the same, under a name that is derived."""
    prefers_homes(world)
    delivery = await world.granted(await world.request(client_id, username="user-odd"))
    assert delivery.username.startswith("dev-")
    assert world.broker.connect(delivery)
