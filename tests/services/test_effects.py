"""Effects: what was committed is made true at the account broker, whatever died or was away in between (D6)."""

import asyncio
from typing import Any

import pytest

from provisioner.model.effect import Effect, EffectVerb
from provisioner.model.errors import Unavailable
from provisioner.model.messages import Delivery, Status
from provisioner.model.ports import Delete, Unit
from provisioner.model.user import AccountUser
from provisioner.services import effects
from tests.services.world import ADA, World, closed, in_world, opened

DEADLINE_S = 10.0


async def effects_left(world: World) -> list[EffectVerb]:
    await world.effects.settle()
    return [effect.verb for effect in (await world.store.page(Effect)).items]


async def started_again(world: World) -> World:
    """The same store after a restart, with brokers that have forgotten everything, as the start leaves it."""
    await world.effects.settle()
    await world.store.close()
    later = await opened(world.directory)
    await later.effects.restore()
    await later.effects.finish_left_over()
    return later


async def owed(world: World) -> Delivery:
    """A delivery that a device was granted while the broker was away."""
    made = await world.request()
    world.broker.available = False
    assert await world.status(made) is Status.BUSY
    world.broker.available = True
    (user,) = await world.store.find(AccountUser, "account", "acme")
    stored = await world.effects.broker_user(user)
    assert stored.password is not None
    return Delivery(
        device_id=user.device_id,
        account="acme",
        broker_url="",
        client_id="gw1",
        username=user.username,
        password=stored.password,
    )


@in_world
async def test_a_grant_that_succeeds_leaves_nothing_to_do(world: World) -> None:
    """D6: the user is at its broker, and no effect waits."""
    await world.granted(await world.request())
    assert await effects_left(world) == []


@in_world
async def test_a_broker_that_was_away_is_told_when_it_is_back(world: World) -> None:
    """F-25, F-27: with no device and no operator asking again."""
    delivery = await owed(world)
    assert await effects_left(world) == [EffectVerb.APPLY]
    assert not world.broker.connect(delivery)
    assert await world.effects.finish_left_over() == 0
    assert world.broker.connect(delivery)
    assert await effects_left(world) == []


@in_world
async def test_what_cannot_be_done_yet_is_counted_and_kept(world: World) -> None:
    """F-27: as often as it is tried."""
    await owed(world)
    world.broker.available = False
    assert [await world.effects.finish_left_over() for _ in range(3)] == [1, 1, 1]
    assert await effects_left(world) == [EffectVerb.APPLY]


@in_world
async def test_one_broker_that_is_away_does_not_hold_up_another(world: World) -> None:
    """F-27: the effects of every other broker are done."""
    await world.account("globex", broker="other")
    world.broker.available = world.other_broker.available = False
    for account, client_id in (("acme", "gw1"), ("globex", "gw2")):
        assert await world.status(await world.request(client_id, account=account)) is Status.BUSY
    world.other_broker.available = True
    assert await world.effects.finish_left_over() == 1
    assert [account for account, _ in await world.other_broker.users()] == ["globex"]


@in_world
async def test_what_was_left_over_is_finished_on_start(world: World) -> None:
    """F-23, F-25: a broker that was away when the process died is told at the next start."""
    delivery = await owed(world)
    later = await started_again(world)
    try:
        assert later.broker.connect(delivery)
        assert await effects_left(later) == []
    finally:
        await closed(later)


@in_world
async def test_a_process_that_dies_between_commit_and_broker_leaves_no_gap(world: World) -> None:
    """F-23, F-25: the grant alone is enough to bring its user to the broker at the next start."""
    made = await world.request()
    reached = asyncio.Event()

    async def die() -> None:
        reached.set()
        await asyncio.Event().wait()

    world.broker.before_put = die
    asking = asyncio.create_task(world.ask(made))
    await reached.wait()
    asking.cancel()
    await asyncio.wait([asking])
    later = await started_again(world)
    try:
        assert later.broker.connect(await later.granted(made))
        assert await later.store.count(AccountUser) == 1
    finally:
        await closed(later)


@in_world
async def test_the_start_tells_every_broker_all_that_it_must_know(world: World) -> None:
    """D6: granted, confirmed and disabled alike; the clear password only as long as it is owed."""
    granted = await world.granted(await world.request("gw1"))
    confirmed = await world.confirmed(await world.request("gw2"))
    disabled = await world.confirmed(await world.request("gw3"))
    await world.devices.disable(ADA, "gw3")
    later = await started_again(world)
    try:
        known = {user.client_id: user for user in later.broker.known.values()}
        assert [known[f"gw{n}"].password for n in (1, 2, 3)] == [granted.password, None, None]
        assert [later.broker.connect(each) for each in (granted, confirmed, disabled)] == [True, True, False]
    finally:
        await closed(later)


@in_world
async def test_the_start_reads_users_by_the_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-31: beyond pages of users, one read an account and two for each device that was not seen yet."""
    await world.account("globex", broker="other")
    for n in range(12):
        await world.confirmed(await world.request(f"gw{n}", account="globex" if n % 2 else "acme"))
    owed = await world.granted(await world.request("gw99"))
    reads: list[str] = []
    for name in ("get", "find"):
        genuine = getattr(world.store, name)

        def read(noun: Any, *asked: Any, genuine: Any = genuine, name: str = name) -> Any:
            reads.append(f"{name} {noun.kind}")
            return genuine(noun, *asked)

        monkeypatch.setattr(world.store, name, read)
    assert await world.effects.restore() == 13
    assert sorted(reads) == ["find request"] + ["get account"] * 3 + ["get account_user"]
    assert world.broker.connect(owed)


@in_world
async def test_a_user_owed_its_password_is_told_with_it_or_not_at_all(world: World) -> None:
    """F-25: a broker that fails for the moment is not told of that user without its password a moment later."""
    await world.granted(await world.request("gw1"))
    world.broker.known.clear()

    async def fail_once() -> None:
        world.broker.before_put = None
        raise Unavailable("for a moment")

    world.broker.before_put = fail_once
    assert await world.effects.restore() == 0
    assert world.broker.known == {}
    await world.effects.catch_up()
    assert [user.password is not None for user in world.broker.known.values()] == [True]


@in_world
async def test_a_broker_that_is_away_at_the_start_is_told_when_it_is_back(world: World) -> None:
    """F-25, F-27: the start neither fails nor forgets; who was revoked meanwhile is not brought."""
    granted = await world.granted(await world.request("gw1"))
    revoked = await world.granted(await world.request("gw2"))
    await world.effects.settle()
    await world.store.close()
    later = await opened(world.directory)
    try:
        later.broker.available = False
        assert await later.effects.restore() == 0
        await later.effects.catch_up()
        await later.requests.revoke(ADA, "gw2")
        assert not later.broker.connect(granted)
        later.broker.available = True
        await later.effects.catch_up()
        assert later.broker.connect(granted)
        assert not later.broker.connect(revoked)
        puts = later.broker.puts
        await later.effects.catch_up()
        assert later.broker.puts == puts
    finally:
        await closed(later)


@in_world
async def test_what_a_broker_cannot_have_does_not_keep_the_service_from_starting(world: World) -> None:
    """F-25: a user that contradicts what is at its broker waits, told or not, until the other one has gone."""
    world.broker.conflicts = True
    assert await world.status(await world.request()) is Status.BUSY
    assert await world.effects.restore() == 0
    assert await world.effects.finish_left_over() == 1
    (user,) = await world.store.find(AccountUser, "account", "acme")
    with pytest.raises(Unavailable, match="cannot take"):
        await world.effects.refresh(user.id, {"local": world.broker})
    assert [row.client_id for row in await world.audit("provision.busy")] == ["gw1"]
    world.broker.conflicts = False
    assert await world.effects.finish_left_over() == 0
    assert len(world.broker.known) == 1


@pytest.mark.parametrize("verb", ["revoke", "delete", "rearm"])
@in_world
async def test_a_user_that_could_not_be_taken_away_goes_later(world: World, verb: str) -> None:
    """F-25, AZ-09: the broker forgets what the store has forgotten, when it is back."""
    delivery = await world.granted(await world.request())
    world.broker.available = False
    await getattr(world.requests, verb)(ADA, "gw1")
    assert await world.store.count(AccountUser) == 0
    assert world.broker.connect(delivery)
    assert await effects_left(world) == [EffectVerb.REMOVE]
    world.broker.available = True
    assert await world.effects.finish_left_over() == 0
    assert not world.broker.connect(delivery)
    assert await effects_left(world) == []


@in_world
async def test_a_later_effect_takes_the_place_of_an_earlier_one(world: World) -> None:
    """D6: what was never applied is taken away and not applied after that."""
    delivery = await owed(world)
    world.broker.available = False
    await world.requests.revoke(ADA, "gw1")
    assert await effects_left(world) == [EffectVerb.REMOVE]
    world.broker.available = True
    await world.effects.finish_left_over()
    assert not world.broker.connect(delivery)
    assert world.broker.puts == 0


@in_world
async def test_doing_an_effect_twice_is_harmless(world: World) -> None:
    """D6: a process that dies before it notes that it was done does it again, with the same end."""
    delivery = await owed(world)

    async def forget(unit: Unit) -> None:
        if any(isinstance(change, Delete) for change in unit.changes):
            raise Unavailable("died")

    world.store.before_commit = forget
    assert await world.effects.finish_left_over() == 0
    assert await effects_left(world) == [EffectVerb.APPLY]
    world.store.before_commit = None
    assert await world.effects.finish_left_over() == 0
    assert await effects_left(world) == []
    assert world.broker.puts == 2
    assert await world.broker.users() == [("acme", delivery.username)]


@in_world
async def test_an_effect_that_is_not_there_is_done(world: World) -> None:
    """D6: applying what nobody planned asks nothing of any broker."""
    await world.effects.apply("acme/nobody")
    assert world.broker.known == {}


@in_world
async def test_taking_away_is_not_undone_by_what_is_stored(world: World) -> None:
    """AZ-09: a REMOVE takes the user away at the broker, also while its record is still there."""
    delivery = await world.granted(await world.request())
    (user,) = await world.store.find(AccountUser, "account", "acme")
    await world.store.commit(Unit(changes=[await world.effects.plan(EffectVerb.REMOVE, user)]))
    await world.effects.apply(user.id)
    assert not world.broker.connect(delivery)


@in_world
async def test_a_granted_user_that_is_gone_is_not_brought_back(world: World) -> None:
    """F-08: nothing is told to the broker of a user that the store no longer has."""
    made = await world.request()
    delivery = await world.granted(made)
    await world.requests.revoke(ADA, "gw1")
    assert await world.status(made) is Status.REFUSED
    assert not world.broker.connect(delivery)


@in_world
async def test_left_over_effects_are_finished_without_being_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F-27: now and then, until told to stop, and past a failure of the store."""
    monkeypatch.setattr(effects, "PERIOD_S", 0.01)
    delivery = await owed(world)
    back = asyncio.Event()
    genuine, calls = world.store.page, 0

    async def fails_at_first(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Unavailable("read error")
        return await genuine(*args, **kwargs)

    async def told() -> None:
        back.set()

    monkeypatch.setattr(world.store, "page", fails_at_first)
    world.broker.before_put = told
    task = asyncio.create_task(world.effects.run())
    async with asyncio.timeout(DEADLINE_S):
        await back.wait()
    task.cancel()
    await asyncio.wait([task])
    await world.effects.settle()
    assert world.broker.connect(delivery)
