"""Gates on one store among themselves: arrivals, questions, lockouts, who is there, who finishes what is left (D12)."""

import asyncio
import functools
from collections.abc import Callable, Container, Coroutine
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from provisioner.model.effect import Effect
from provisioner.model.errors import Unavailable
from provisioner.model.messages import ProvisionMessage, Status
from provisioner.model.request import RequestState
from provisioner.services import effects, gates
from provisioner.services.effects import Effects
from provisioner.services.gates import Gates
from provisioner.services.provisioning import Asker, Provisioning
from provisioner.store.one_process import OneProcess
from tests.services.world import World, in_world

DEADLINE_S = 5.0


@dataclass
class Door:
    """What a gate does because of what another one said."""

    engaged: set[str] = field(default_factory=set)
    overtaken: list[tuple[str, frozenset[str], str]] = field(default_factory=list)
    locked: list[tuple[str, str, str]] = field(default_factory=list)
    gates: int = 0

    def overtake(self, identity: str, older: Container[str], address: str) -> None:
        assert isinstance(older, frozenset)
        self.overtaken.append((identity, older, address))

    def is_engaged(self, identity: str, id: str) -> bool:
        return id in self.engaged

    def lock_out(self, address: str, username: str, client_id: str) -> None:
        self.locked.append((address, username, client_id))

    def be_one_of(self, gates: int) -> None:
        self.gates = gates


class Company:
    """Gates that hear each other; ``kill`` ends one without a word."""

    def __init__(self, *ids: str) -> None:
        self.shared = OneProcess()
        self.doors = {id: Door() for id in ids}
        self.gates = {id: Gates(self.shared, id, f"name of {id}") for id in ids}
        self.elsewhere: list[tuple[str, str]] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> "Company":
        for id, each in self.gates.items():
            each.attend(self.doors[id], lambda: 1, lambda *seen: self.elsewhere.append(seen))
            self._tasks[id] = asyncio.create_task(each.run())
        await self.until(lambda: all(len(each.living()) == len(self.gates) for each in self.gates.values()))
        return self

    async def __aexit__(self, *error: object) -> None:
        for id in list(self._tasks):
            await self.leave(id)
        await self.shared.close()

    async def leave(self, id: str) -> None:
        task = self._tasks.pop(id)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def kill(self, id: str) -> None:
        """It says nothing any more, not even farewell."""
        told, self.shared.notify = self.shared.notify, _into_the_void  # type: ignore[method-assign]  # as the dead
        await self.leave(id)
        self.shared.notify = told  # type: ignore[method-assign]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - of the code under test, which has no event for a test
                await asyncio.sleep(0.005)


async def _into_the_void(message: str) -> None:
    """Nobody hears it."""


def among(*ids: str) -> Callable[[Callable[[Company], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """Run an asynchronous test with gates of these ids."""

    def decorate(test: Callable[[Company], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        @functools.wraps(test)
        def run() -> None:
            async def scenario() -> None:
                async with Company(*ids) as company:
                    await test(company)

            asyncio.run(scenario())

        del run.__wrapped__  # type: ignore[attr-defined]  # pytest would ask for its parameters
        return run

    return decorate


@among("a", "b")
async def test_f_16_of_two_arrivals_at_once_both_gates_know_the_same_newer_one(company: Company) -> None:
    """However close together, one of two connections of a device is displaced and never both."""
    for number in range(50):
        identity = f"req-{number}"
        company.gates["a"].arrived(identity, f"a{number}", "192.0.2.1")
        company.gates["b"].arrived(identity, f"b{number}", "192.0.2.2")
    both = [company.doors["a"].overtaken, company.doors["b"].overtaken]
    await company.until(lambda: [len(each) for each in both] == [50, 50])
    for at_a, at_b in zip(*both, strict=True):
        assert at_a[0] == at_b[0]
        assert sorted([len(at_a[1]), len(at_b[1])]) == [0, 1], "exactly one of the two is known to be older"
    assert {address for _, _, address in both[0]} == {"192.0.2.2"}
    assert len(company.elsewhere) == 100


@among("a", "b")
async def test_who_has_left_is_displaced_by_nobody(company: Company) -> None:
    """Nothing is remembered of connections that are gone, whenever that was; one that left before the others were told
    of it displaces nobody there."""
    one = company.gates["a"]
    one.arrived("req-1", "a1", "192.0.2.1")
    one.left("a1")
    one.arrived("req-1", "a2", "192.0.2.1")
    await company.until(lambda: len(company.doors["b"].overtaken) == 1)
    one.left("a2")
    company.gates["b"].arrived("req-1", "b1", "192.0.2.2")
    await company.until(lambda: len(company.doors["a"].overtaken) == 1)
    assert company.doors["a"].overtaken == [("req-1", frozenset(), "192.0.2.2")]
    assert len(company.doors["b"].overtaken) == 1


@among("a", "b")
async def test_f_16_a_gate_says_whom_it_is_answering(company: Company) -> None:
    """Asked about a connection of its own, it answers as it is now; a mark of our own gate is no other gate."""
    mark = company.gates["a"].mark("c1")
    assert not await company.gates["b"].is_answering(mark, "req-1")
    company.doors["a"].engaged.add("c1")
    assert await company.gates["b"].is_answering(mark, "req-1")
    assert not await company.gates["a"].is_answering(mark, "req-1")


@among("a", "b")
async def test_f_27_a_gate_that_is_gone_answers_nobody(company: Company) -> None:
    """Whoever took its leave is known to be gone at once, whoever was killed when it does not reply in a second."""
    mark, loop = company.gates["a"].mark("c1"), asyncio.get_running_loop()
    company.doors["a"].engaged.add("c1")
    await company.kill("a")
    started_s = loop.time()
    assert not await company.gates["b"].is_answering(mark, "req-1")
    assert loop.time() - started_s < 2 * gates.ANSWER_S
    async with Company("c", "d") as other:
        other.doors["c"].engaged.add("c1")
        await other.leave("c")
        await other.until(lambda: len(other.gates["d"].living()) == 1)
        started_s = loop.time()
        assert not await other.gates["d"].is_answering("c/c1", "req-1")
        assert loop.time() - started_s < gates.ANSWER_S / 2


@among("a")
async def test_d12_where_signals_do_not_go_nobody_guesses(company: Company) -> None:
    """When not even our own words come back, whether another gate is at it cannot be said: the device is told busy."""
    company.gates["a"]._heard["z"] = gates._Other(asyncio.get_running_loop().time() + 60)
    company.shared.notify = _into_the_void  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await company.gates["a"].is_answering("z/c1", "req-1")


@among("a", "b", "c")
async def test_f_19_lockouts_and_the_number_of_gates_are_told_to_all_others(company: Company) -> None:
    """A lockout is done at every other gate; each gate knows how many they are, and notices one that leaves."""
    company.gates["a"].locked_out("192.0.2.9", "user-1", "gw1")
    await company.until(lambda: all(company.doors[id].locked for id in "bc"))
    assert company.doors["b"].locked == [("192.0.2.9", "user-1", "gw1")]
    assert company.doors["a"].locked == []
    await company.until(lambda: {door.gates for door in company.doors.values()} == {3})
    await company.leave("c")
    await company.until(lambda: {company.doors[id].gates for id in "ab"} == {2})
    assert [each["name"] for each in company.gates["a"].living()] == ["name of a", "name of b"]


@among("a", "b", "c")
async def test_what_is_made_known_is_heeded_by_all_before_it_returns(company: Company) -> None:
    """Every other gate has heeded it then, and a dead one is not waited for longer than a moment."""
    known: list[tuple[str, Any]] = []
    for id in "bc":
        company.gates[id].heed(lambda word, id=id: known.append((id, word)))
    await company.gates["a"].make_known("user", "x")
    assert sorted(known) == [("b", ["user", "x"]), ("c", ["user", "x"])]
    await company.kill("c")
    async with asyncio.timeout(2 * gates.ANSWER_S):
        await company.gates["a"].make_known("user", "y")
    assert known[-1] == ("b", ["user", "y"])


@among("a", "b")
async def test_f_38_signals_of_other_programs_are_passed_over(company: Company) -> None:
    """What is no word of a gate is no harm, and neither is a word that nobody knows yet."""
    for signal in (
        "17",
        "{}",
        "not json",
        '["x"]',
        '["x", ["arrived"]]',
        '["x", ["unheard-of", 1]]',
        "[[]]",
        '["x", 5]',
    ):
        await company.shared.notify(signal)
    company.gates["a"].locked_out("192.0.2.9", "user-1", "gw1")
    await company.until(lambda: bool(company.doors["b"].locked))


@among("a", "b")
async def test_many_words_go_out_in_signals_that_the_store_carries(company: Company) -> None:
    """Thousands of arrivals at once arrive whole and in order."""
    for number in range(3_000):
        company.gates["a"].arrived(f"req-{number}", f"c{number}", "2001:db8::" + "f" * 4)
    await company.until(lambda: len(company.doors["b"].overtaken) == 3_000)
    assert [identity for identity, _, _ in company.doors["b"].overtaken] == [f"req-{n}" for n in range(3_000)]


def at_gate(world: World, own: Gates) -> tuple[Provisioning, Effects]:
    """The services of that gate over the one store."""
    platform = replace(world.platform, gates=own)
    its_effects = Effects(platform)
    return Provisioning(platform, its_effects), its_effects


@in_world
async def test_f_16_of_two_gates_that_grant_at_once_one_tells_its_device(world: World) -> None:
    """Whichever commits first is asked for by the other one, which says conflict; once it is through, the other one
    gives the same credentials."""
    made = await world.request()
    async with Company("a", "b") as company:
        answers = []
        for id in "ab":
            company.doors[id].engaged.add(f"c-{id}")
        services = {id: at_gate(world, company.gates[id])[0] for id in "ab"}
        request = made.request

        async def ask(id: str, message_id: str) -> Status:
            asker = Asker(request.id, request.client_id, request.username, "192.0.2.7", False, f"c-{id}")
            answer = await services[id].handle(asker, message(message_id))
            assert answer is not None
            answers.append(answer)
            return answer.status

        statuses = await asyncio.gather(ask("a", "m-a"), ask("b", "m-b"))
        assert sorted(statuses) == [Status.CONFLICT, Status.PROVISIONED]
        winner = "ab"[statuses.index(Status.PROVISIONED)]
        loser = "ba"[statuses.index(Status.PROVISIONED)]
        company.doors[winner].engaged.clear()
        assert await ask(loser, "m-again") is Status.PROVISIONED
        company.doors[winner].engaged.add(f"c-{winner}")
        assert await ask(winner, "m-late") is Status.CONFLICT
    passwords = {answer.delivery.password.reveal() for answer in answers if answer.delivery}
    assert len(passwords) == 1
    assert (await world.stored(made)).state is RequestState.GRANTED


def message(message_id: str) -> ProvisionMessage:
    return ProvisionMessage(message_id=message_id, dialect="json_v1", activation_key=None, csr=None, device={})


@in_world
async def test_d6_what_is_left_over_is_finished_by_one_gate_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F-27: of three gates one alone does the left-over effects, leaves to the others what they have only just
    committed, and is followed by another one when it is gone; each effect is removed once."""
    monkeypatch.setattr(effects, "LEASE_S", 0.3)
    made = await world.request()
    world.broker.available = False
    assert await world.status(made) is Status.BUSY
    world.broker.available = True
    async with Company("a", "b", "c") as company:
        each = [at_gate(world, own)[1] for own in company.gates.values()]
        assert [await one.finish_left_over() for one in each] == [0, 0, 0]
        assert (await world.store.page(Effect)).items, "too young to be left over"
        world.clock.move(timedelta(seconds=60))
        puts = world.broker.puts
        await asyncio.gather(*(one.finish_left_over() for one in each))
        await asyncio.gather(*(one.settle() for one in each))
        assert world.broker.puts == puts + 1
        assert (await world.store.page(Effect)).items == []
        first = await company.gates["a"].lead(effects.LEASE, 5.0)
        assert await company.gates["b"].lead(effects.LEASE, 5.0) is None
        assert first is not None
        await company.leave("a")
        second = await company.gates["b"].lead(effects.LEASE, 5.0)
        assert second is not None
        assert second > first
        assert not await company.gates["a"].leads(effects.LEASE, first, 5.0)
