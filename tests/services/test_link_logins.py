"""Logins of devices on a broker in the place of the gate: its files follow the requests, and nobody in them can speak
for a device that is not theirs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from provisioner.account_brokers.mosquitto_passwords import digest_matches
from provisioner.dialects.json_v1 import JsonV1
from provisioner.link.topics import LinkTopics
from provisioner.model.errors import InvalidInput, Unavailable
from provisioner.model.messages import Status
from provisioner.model.secret import Secret
from provisioner.model.user import ProvisionUser
from provisioner.services.link_logins import LinkLogins
from provisioner.services.provisioning import Provisioning
from provisioner.services.requests import Requests
from provisioner.services.selftest import selftest
from tests.services.world import World, in_world

HUMAN = "Abcdefghijk!"
OWN = ("fleetgate", Secret("Provisioner-pass-1"))


class Files:
    """What was written last; can be got in the way of."""

    def __init__(self) -> None:
        self.passwords = self.access = ""
        self.writes = 0
        self.available = True

    def __call__(self, passwords: str, access: str) -> None:
        self.writes += 1
        if not self.available:
            raise Unavailable("mosquitto is away")
        self.passwords, self.access = passwords, access

    @property
    def logins(self) -> dict[str, str]:
        """Username -> digest."""
        lines = (line.partition(":") for line in self.passwords.splitlines())
        return {name: digest for name, _, digest in lines}

    def may(self, username: str) -> set[str]:
        """The lines below this user."""
        for block in self.access.split("user ")[1:]:
            name, *lines = block.splitlines()
            if name == username:
                return set(lines)
        return set()


def with_link(world: World, files: Files) -> tuple[World, LinkLogins]:
    """The same world, with another broker in the place of its gate."""
    logins = LinkLogins(world.store, LinkTopics((JsonV1(),)), OWN, files)
    platform = replace(world.platform, link_logins=logins)
    changed = replace(
        world,
        platform=platform,
        requests=Requests(platform, world.effects, world.cut.append),
        provisioning=Provisioning(platform, world.effects),
    )
    return changed, logins


@asynccontextmanager
async def running(logins: LinkLogins) -> AsyncIterator[None]:
    await logins.start()
    task = asyncio.create_task(logins.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5.0):
        while not condition():  # noqa: ASYNC110  # the files are written in another thread
            await asyncio.sleep(0.005)


def of(client_id: str) -> set[str]:
    base = f"prov/v1/{client_id}"
    return {f"topic write {base}/request", f"topic write {base}/ack", f"topic read {base}/response"}


@in_world
async def test_files_follow_the_requests(world: World) -> None:
    """A login is there from the creation of its request until that is confirmed, revoked or deleted, and comes back
    with a new arming; the provisioner's own is always there."""
    files = Files()
    world, logins = with_link(world, files)
    async with running(logins):
        assert set(files.logins) == {"fleetgate"}
        made = await world.request("gw1")
        await until(lambda: files.may("user-gw1") == of("gw1"))
        assert made.password is not None and digest_matches(files.logins["user-gw1"], made.password)
        assert digest_matches(files.logins["fleetgate"], OWN[1])
        assert files.may("fleetgate") == {
            "topic read prov/v1/+/request",
            "topic read prov/v1/+/ack",
            "topic write prov/v1/+/response",
        }
        await world.confirmed(made)
        await until(lambda: "user-gw1" not in files.logins and not files.may("user-gw1"))
        await world.requests.rearm("admin:ada", "gw1")
        await until(lambda: "user-gw1" in files.logins)
        await world.requests.revoke("admin:ada", "gw1")
        await until(lambda: "user-gw1" not in files.logins)
        await world.request("gw2")
        await until(lambda: "user-gw2" in files.logins)
        await world.requests.delete("admin:ada", "gw2")
        await until(lambda: set(files.logins) == {"fleetgate"})


@in_world
async def test_shared_login_has_the_topics_of_its_open_requests(world: World) -> None:
    """EC-12: one username opens the topics of all of its devices, each until it is done."""
    files = Files()
    world, logins = with_link(world, files)
    async with running(logins):
        first = await world.request("gw1", username="lobby", password=HUMAN, activation_key=True)
        await world.request("gw2", username="lobby", activation_key=True)
        await until(lambda: files.may("lobby") == of("gw1") | of("gw2"))
        assert list(files.logins) == ["fleetgate", "lobby"]
        assert digest_matches(files.logins["lobby"], Secret(HUMAN))
        await world.confirmed(first, key=first.activation_key)
        await until(lambda: files.may("lobby") == of("gw2"))


@in_world
async def test_what_happened_while_away_is_written_at_the_start(world: World) -> None:
    """After a start the files hold what is open now, before anything else happens."""
    files = Files()
    world, logins = with_link(world, files)
    await world.request("gw1")
    await world.confirmed(await world.request("gw2"))
    await logins.start()
    assert set(files.logins) == {"fleetgate", "user-gw1"}


@in_world
async def test_many_changes_are_written_together(world: World) -> None:
    """A hundred requests at once cost a few writes, not a hundred."""
    files = Files()
    world, logins = with_link(world, files)
    async with running(logins):
        await asyncio.gather(*(world.request(f"gw{number}") for number in range(100)))
        await until(lambda: len(files.logins) == 101)
        assert files.writes < 20


@in_world
async def test_broker_that_is_away_is_told_later(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that cannot be written are tried again until they can, with one line in the log."""
    monkeypatch.setattr("provisioner.services.link_logins.AGAIN_S", 0.02)
    files = Files()
    files.available = False
    world, logins = with_link(world, files)
    async with running(logins):
        await world.request("gw1")
        await until(lambda: files.writes > 4)
        assert [record.levelname for record in caplog.records if "not told" in record.message] == ["WARNING"]
        files.available = True
        await until(lambda: "user-gw1" in files.logins)


@in_world
async def test_requests_from_before_the_link_are_named(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A request that was made before there was such a broker cannot be written; the log says which and what to do, and
    making it again with its password does it."""
    files = Files()
    await world.request("gw1", username="lobby", password=HUMAN, activation_key=True)
    await world.request("gw2")
    world, logins = with_link(world, files)
    async with running(logins):
        assert set(files.logins) == {"fleetgate"}
        assert logins.unknown() == ["gw1", "gw2"]
        (part,) = [each for each in await selftest(world.platform) if "logins" in each.name]
        assert not part.passed and "2 requests" in part.detail and "gw1" in part.detail
        (told,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert "2 requests" in told and "gw1" in told and "create it again" in told
        with pytest.raises(InvalidInput, match="provision_link"):
            await world.request("gw3", username="lobby", activation_key=True)
        await world.request("gw3", username="lobby", password=HUMAN, activation_key=True)
        await until(lambda: files.may("lobby") == of("gw1") | of("gw3"))
        assert logins.unknown() == ["gw2"]
        await world.requests.delete("admin:ada", "gw2")
        await until(lambda: not logins.unknown())
        assert all(each.passed for each in await selftest(world.platform))
        user = await world.store.get(ProvisionUser, "lobby")
        assert user is not None and user.link_verifier is not None and digest_matches(user.link_verifier, Secret(HUMAN))


@in_world
async def test_provisioners_own_name_is_no_devices(world: World) -> None:
    """Nobody is given the provisioner's own rights by taking its name, before the link or after it."""
    files = Files()
    await world.request("gw1", username="fleetgate", password=HUMAN)
    world, logins = with_link(world, files)
    async with running(logins):
        assert not digest_matches(files.logins["fleetgate"], Secret(HUMAN))
        assert files.may("fleetgate").isdisjoint(of("gw1"))
        assert logins.unknown() == ["gw1"]
        for again in ({}, {"password": HUMAN}):
            with pytest.raises(InvalidInput):
                await world.request("gw2", username="fleetgate", activation_key=True, **again)
        await world.requests.delete("admin:ada", "gw1")
        with pytest.raises(InvalidInput, match="provisioner's own"):
            await world.request("gw3", username="fleetgate", password=HUMAN)


@in_world
async def test_who_shares_a_login_needs_a_key_even_after_its_fellows_are_done(world: World) -> None:
    """F-22: a device that is done still knows the login and could speak for its fellow, so that a request without a key
    is granted only when its username backs no other one."""
    world, _ = with_link(world, Files())
    done = await world.request("gw1", username="lobby", password=HUMAN, activation_key=True)
    await world.confirmed(done, key=done.activation_key)
    with pytest.raises(InvalidInput, match="activation_key"):
        await world.request("gw2", username="lobby")
    keyed = await world.request("gw2", username="lobby", activation_key=True)
    assert await world.status(keyed, key=keyed.activation_key) is Status.PROVISIONED
    alone = await world.request("gw3")
    assert await world.status(alone) is Status.PROVISIONED


@in_world
async def test_request_without_a_key_is_refused_when_its_login_has_another_one(world: World) -> None:
    """F-22: two keyless requests from before there was such a broker share a login; neither is granted there, and the
    explanation says why."""
    fellow = await world.request("gw1", username="lobby", password=HUMAN)
    await world.confirmed(fellow)
    made = await world.request("gw2", username="lobby")
    world, _ = with_link(world, Files())
    assert await world.status(made) is Status.REFUSED
    assert await world.reasons() == ["shared_without_key"]
    _, decision = await world.requests.explain("gw2")
    assert decision.refusal is not None and "shared" in decision.refusal.detail
