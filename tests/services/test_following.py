"""What other gates did, learned from the audit log and from the store (D12)."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from provisioner.model.errors import Unavailable
from provisioner.model.messages import Delivery
from provisioner.services import following
from provisioner.services.following import Following
from tests.services.world import ADA, MemoryBroker, World, in_world

DEADLINE_S = 5.0


class Remembering(MemoryBroker):
    """An account broker that asks us, at another gate than the one that grants."""

    def knows(self, account: str, username: str) -> bool:
        return f"{account}/{username}" in self.known

    def known_of(self, account: str, client_id: str | None) -> Sequence[str]:
        return [u.username for u in self.known.values() if u.account == account and client_id in (None, u.client_id)]


@dataclass(frozen=True)
class Peer:
    identity: str
    client_id: str


@dataclass
class Gate:
    """Another gate on the same store."""

    following: Following
    book: Remembering
    cut: list[str]
    peers: list[Peer] = field(default_factory=list)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - of the code under test, which has no event for a test
                await asyncio.sleep(0.005)


@asynccontextmanager
async def another_gate(world: World) -> AsyncIterator[Gate]:
    book, cut, peers = Remembering("local"), list[str](), list[Peer]()
    own = Following(world.platform, world.effects, {"local": book}, lambda: peers, cut.append)
    await own.start()
    running = asyncio.create_task(own.run())
    try:
        yield Gate(own, book, cut, peers)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def username(delivery: Delivery) -> str:
    return f"acme/{delivery.username}"


@in_world
async def test_f_08_whoever_is_cut_at_one_gate_is_cut_at_all(world: World) -> None:
    """Each verb that ends a walk: of a request, of a device, of a whole account; connections of others stay."""
    async with another_gate(world) as gate:
        made = [await world.request(f"gw{number}") for number in range(4)]
        await world.confirmed(made[2])
        gate.peers += [Peer(each.request.id, each.request.client_id) for each in made]
        gate.peers.append(Peer("req-of-nobody", "gw2"))
        await world.requests.revoke(ADA, "gw0")
        await world.requests.rearm(ADA, "gw1")
        await world.devices.disable(ADA, "gw2")
        await gate.until(lambda: len(gate.cut) == 3)
        assert gate.cut == [each.request.id for each in made[:3]]
        await world.accounts.update(ADA, "acme", {"enabled": False})
        await gate.until(lambda: made[3].request.id in gate.cut)


@in_world
async def test_f_08_what_was_cut_here_is_not_cut_again_when_the_log_tells_of_it(world: World) -> None:
    """The device may be back by then, to be told what became of it."""
    made, other = await world.request("gw1"), await world.request("gw2")
    async with another_gate(world) as gate:
        gate.following.cut(made.request.id)
        await world.requests.revoke(ADA, "gw1")
        await world.requests.revoke(ADA, "gw2")
        await gate.until(lambda: len(gate.cut) == 2)
        assert gate.cut == [made.request.id, other.request.id]


@in_world
async def test_f_08_a_large_account_is_cut_in_no_time(world: World) -> None:
    """To disable an account cuts whoever may be there, of all of its requests: each costs the same, however many were
    cut just before, and what is old is forgotten."""
    clock_s, cut = 100.0, list[str]()
    own = Following(world.platform, world.effects, {}, list, cut.append, lambda: clock_s)
    began_s = time.process_time()
    for number in range(20_000):
        own.cut(f"req-{number}")
    assert time.process_time() - began_s < 1.0
    assert len(cut) == 20_000
    clock_s += following.ONCE_S
    own.cut("req-7")
    assert list(own._cut_here) == ["req-7"]


@in_world
async def test_f_08_known_users_become_what_is_stored(world: World) -> None:
    """Disabled, enabled and taken away by another gate; users that nobody asked about here are not even read."""
    first, second = [await world.request(f"gw{number}") for number in range(2)]
    async with another_gate(world) as gate:
        delivery, unasked = await world.confirmed(first), await world.confirmed(second)
        await gate.following.look_up(delivery.username)
        assert list(gate.book.known) == [username(delivery)]
        await world.devices.disable(ADA, "gw0")
        await gate.until(lambda: not gate.book.known[username(delivery)].enabled)
        await world.devices.enable(ADA, "gw0")
        await gate.until(lambda: gate.book.known[username(delivery)].enabled)
        await world.requests.rearm(ADA, "gw0", cut=True)
        await gate.until(lambda: gate.book.known == {})
        await gate.following.know_all()
        assert list(gate.book.known) == [username(unasked)]


@in_world
async def test_a_user_is_looked_up_once_for_all_who_ask(world: World) -> None:
    """Of names that are nobody's nothing is learned, and nothing is remembered."""
    delivery = await world.granted(await world.request())
    async with another_gate(world) as gate:
        await asyncio.gather(*(gate.following.look_up(delivery.username) for _ in range(20)))
        assert gate.book.puts == 1
        assert gate.book.known[username(delivery)].password is not None, "it was never seen"
        for name in ("", "dev-", "dev-x-1", "nobody", delivery.username + "0"):
            await gate.following.look_up(name)
        assert len(gate.book.known) == 1


@in_world
async def test_f_35_unknown_users_are_looked_up_in_bounded_number(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More at once are refused as busy, rather than as unknown."""
    monkeypatch.setattr(following, "LOOKING_MAX", 3)
    async with another_gate(world) as gate:
        asked = [gate.following.look_up(f"dev-{number}-1") for number in range(5)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [type(None)] * 3 + [Unavailable] * 2


@in_world
async def test_what_cannot_be_told_now_is_told_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker whose live connections cannot be cut for a moment holds nobody else up."""
    monkeypatch.setattr(following, "AGAIN_S", 0.02)
    first, second = [await world.confirmed(await world.request(f"gw{number}")) for number in range(2)]
    async with another_gate(world) as gate:
        for delivery in (first, second):
            await gate.following.look_up(delivery.username)
        gate.book.available = False
        await world.devices.disable(ADA, "gw0")
        await world.requests.revoke(ADA, "gw1")
        await gate.until(lambda: len(gate.cut) == 1)
        gate.book.available = True
        await gate.until(lambda: not gate.book.known[username(first)].enabled)
