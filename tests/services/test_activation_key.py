"""The activation key of a request at the gate: nothing is made without it, and guessing it ends."""

import asyncio
from datetime import timedelta

import pytest

from provisioner.model.messages import Status
from provisioner.model.user import AccountUser
from tests.services.world import World, closed, in_world, opened

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize("key", [None, "", "wrong", "7K2M9Q-7K2M9Q-7K2M9Q-7K2M9Q-7K2M9Q"])
@in_world
async def test_without_the_right_key_nothing_is_made(world: World, key: str | None) -> None:
    """EC-16: missing, empty or wrong: refused, and no account user exists."""
    made = await world.request(activation_key=True)
    assert await world.status(made, key=key) is Status.REFUSED
    assert await world.store.count(AccountUser) == 0
    assert (await world.stored(made)).key_failures == 1


@in_world
async def test_the_right_key_provisions_however_it_was_typed(world: World) -> None:
    """EC-16: and it clears the failures before it."""
    made = await world.request(activation_key=True)
    assert made.activation_key is not None
    await world.status(made, key="wrong")
    assert await world.status(made, key=made.activation_key.reveal().lower().replace("-", " ")) is Status.PROVISIONED
    assert (await world.stored(made)).key_failures == 0


@in_world
async def test_a_key_opens_its_own_request_alone(world: World) -> None:
    """F-17: the key of one request is a wrong key on another."""
    one, other = [await world.request(client_id, activation_key=True) for client_id in ("gw1", "gw2")]
    assert await world.status(other, key=one.activation_key) is Status.REFUSED
    assert await world.status(other, key=other.activation_key) is Status.PROVISIONED


@in_world
async def test_wrong_keys_are_throttled_and_then_locked(world: World) -> None:
    """F-18: five are answered at once, then one in 30 s, and after ten not even the right key helps."""
    made = await world.request(activation_key=True)
    another = await world.request("gw2")
    for _ in range(5):
        assert await world.status(made, key="wrong") is Status.REFUSED
    throttled = await world.ask(made, key=made.activation_key)
    assert throttled is not None
    assert (throttled.status, throttled.retry_after_s) == (Status.BUSY, 30)
    for _ in range(5):
        world.clock.move(30 * SECOND)
        assert await world.status(made, key="wrong") is Status.REFUSED
    world.clock.move(HOUR)
    assert await world.status(made, key=made.activation_key) is Status.REFUSED
    assert (await world.stored(made)).key_failures == 10
    assert await world.status(another) is Status.PROVISIONED
    assert len(await world.audit("provision.key_failure")) == 9
    assert len(await world.audit("provision.key_locked")) == 1


@in_world
async def test_a_restart_forgives_no_wrong_key(world: World) -> None:
    """F-18: failures are durable before they are answered."""
    made = await world.request(activation_key=True)
    for _ in range(3):
        await world.status(made, key="wrong")
    await world.store.close()
    later = await opened(world.directory)
    try:
        assert (await later.stored(made)).key_failures == 3
    finally:
        await closed(later)


@in_world
async def test_fifty_wrong_keys_at_once_are_all_counted_or_turned_away(world: World) -> None:
    """F-18: guessing in parallel gains nothing: every refusal was counted, the others were told to come back."""
    made = await world.request(activation_key=True)
    statuses = await asyncio.gather(*(world.status(made, key=f"wrong {number}") for number in range(50)))
    failures = (await world.stored(made)).key_failures
    assert set(statuses) <= {Status.REFUSED, Status.BUSY}
    assert 1 <= failures <= 10
    assert statuses.count(Status.REFUSED) == failures


@in_world
async def test_a_birth_waits_for_the_key_that_follows(world: World) -> None:
    """wire-esf: the BIRTH of a gateway whose request wants a key is met with silence, and is no wrong key."""
    made = await world.request(activation_key=True)
    assert await world.ask(made, by_birth=True) is None
    assert (await world.stored(made)).key_failures == 0
    assert await world.status(await world.request("gw2"), by_birth=True) is Status.PROVISIONED
