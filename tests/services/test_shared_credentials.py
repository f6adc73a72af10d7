"""One username and password for many requests of one account, and what has to go with it (EC-11, EC-12, F-22)."""

import pytest

from provisioner.model.errors import Conflict, Duplicate, InvalidInput
from provisioner.model.messages import Status
from provisioner.model.policy import Policy
from provisioner.model.request import ProvisionRequest
from provisioner.model.user import ProvisionUser
from tests.services.world import World, in_world

HUMAN = "Abcdefghijk!"


@in_world
async def test_a_username_belongs_to_one_account(world: World) -> None:
    """EC-11: another account cannot use it, whatever password it brings."""
    await world.account("globex")
    await world.request("gw1", username="lobby", password=HUMAN)
    for password in (None, HUMAN, "Zyxwvutsrqp!"):
        before = await world.counts()
        with pytest.raises(Duplicate, match="username"):
            await world.request("gw2", account="globex", username="lobby", password=password)
        assert await world.counts() == before


@pytest.mark.parametrize("password", [None, HUMAN], ids=["password left out", "password repeated"])
@in_world
async def test_one_account_may_use_one_login_for_all_its_requests(world: World, password: str | None) -> None:
    """EC-12, EC-17: thirty requests, one provision user, a key of its own each, and all of them provision."""
    first = await world.request("gw0", username="lobby", password=HUMAN, activation_key=True)
    rest = [
        await world.request(f"gw{number}", username="lobby", password=password, activation_key=True)
        for number in range(1, 30)
    ]
    assert await world.store.count(ProvisionUser) == 1
    assert [await world.status(made, key=made.activation_key) for made in (first, *rest)] == [Status.PROVISIONED] * 30


@in_world
async def test_one_username_has_one_password(world: World) -> None:
    """EC-12: the same username with another password is a conflict, and nothing is stored."""
    await world.request("gw1", username="lobby", password=HUMAN, activation_key=True)
    before = await world.counts()
    with pytest.raises(Conflict, match="another password"):
        await world.request("gw2", username="lobby", password="Zyxwvutsrqp!", activation_key=True)
    assert await world.counts() == before


@in_world
async def test_shared_credentials_need_a_key_on_every_request(world: World) -> None:
    """F-22: neither the new request nor the one that is there may do without."""
    await world.request("gw1", username="lobby")
    with pytest.raises(Conflict, match="without an activation key"):
        await world.request("gw2", username="lobby", activation_key=True)
    await world.request("gw3", username="cellar", activation_key=True)
    with pytest.raises(InvalidInput) as refused:
        await world.request("gw4", username="cellar")
    assert [problem.field for problem in refused.value.problems] == ["activation_key"]
    assert await world.store.count(ProvisionRequest) == 2


@in_world
async def test_a_login_that_is_free_again_needs_no_key(world: World) -> None:
    """F-22: only open requests share; one after the other may use the same username."""
    await world.confirmed(await world.request("gw1", username="lobby"))
    assert await world.status(await world.request("gw2", username="lobby")) is Status.PROVISIONED


@pytest.mark.parametrize("policy", [Policy(shared_credentials_require_key=False)])
@in_world
async def test_shared_credentials_alone_may_be_allowed(world: World, policy: Policy) -> None:
    """EC-12, F-22: by policy."""
    fleet = [await world.request(f"gw{number}", username="lobby") for number in range(3)]
    assert [await world.status(made) for made in fleet] == [Status.PROVISIONED] * 3
