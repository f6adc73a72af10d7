"""``fleetgate store migrate``: everything moves, nothing changes on the way, and only one of the two stores is used."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from provisioner.model.epoch import Epoch
from provisioner.model.errors import Conflict, InvalidInput, LimitReached
from provisioner.model.ports import Delete, Put, Store, Unit
from provisioner.model.request import ProvisionRequest
from provisioner.services import copying
from provisioner.services.copying import Place
from provisioner.services.crashpoints import COPY_POINTS
from provisioner.store.whole import KINDS as NOUN_KINDS
from provisioner.store.whole import Summary, parts, tallied
from provisioner.store_places import name_of, read_place
from tests.contracts.store_values import NOON, all_audit, event, one_of_each, request, until, walk_unit
from tests.support.installation import CLI, ROOT
from tests.support.stores import KINDS, StoreSite, empty_site

WALKS = 520  # more than one part of each kind
TIMEOUT_S = 60

Sites = Callable[[str, str], StoreSite]


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Sites:
    """An empty place of that kind, by a name."""
    return lambda kind, name: empty_site(kind, tmp_path / name, request)


@asynccontextmanager
async def place(site: StoreSite, **changes: Any) -> AsyncIterator[Place]:
    store = await site.open(**changes)
    try:
        yield Place(store=store, name=site.url)
    finally:
        await store.close()


async def populate(store: Store, walks: int = WALKS) -> None:
    """Records of every kind, some of them changed since and one deleted, and the audit rows of it."""
    await asyncio.gather(*(store.commit(walk_unit(1_000 + number)) for number in range(walks)))
    await store.commit(Unit([Put(noun) for noun in one_of_each() if not isinstance(noun, Epoch)], [event("each")]))
    for number in (1_000, 1_001):
        found = await store.get(ProvisionRequest, f"req-{number:06d}")
        assert found is not None
        await store.commit(Unit([Delete(found) if number == 1_001 else Put(replace(found, attempts=3))], [event("x")]))


async def tally(store: Store) -> dict[str, Summary]:
    async with store.moment() as moment:
        return dict(await tallied(parts(store, moment)))


async def populated(site: StoreSite, walks: int = WALKS) -> dict[str, Summary]:
    async with place(site) as here:
        await populate(here.store, walks)
        return await tally(here.store)


async def check_moved(source: StoreSite, target: StoreSite, before: dict[str, Summary]) -> None:
    """The target has what the source had, and one audit row more; a service takes it and no longer the source."""
    async with place(target) as new:
        rows = await all_audit(new.store)
        assert rows[-1].action == "store.migrated"
        assert rows[-1].seq == before["audit"].count + 1
        after = await tally(new.store)
        assert after["audit"].count == before["audit"].count + 1
        assert {kind: after[kind] for kind in after if kind != "audit"} == {
            kind: before[kind] for kind in before if kind != "audit"
        }
        assert (await copying.usable_epoch(new.store)).number == 1
        found = await new.store.find(ProvisionRequest, "any_client_id", "gw1000")
        assert [(request.attempts, request.version) for request in found] == [(3, 2)]
        assert await new.store.commit(walk_unit(9_000)) == before["audit"].count + 3
    async with place(source) as old:
        with pytest.raises(Conflict, match="was moved to"):
            await copying.usable_epoch(old.store)


@pytest.mark.parametrize(("kind", "other"), [("tinydb", "tinydb"), *permutations(KINDS, 2)])
def test_everything_moves_as_it_is(site: Sites, kind: str, other: str) -> None:
    """D9: from each kind of store to each other one; records, versions, indexes and audit rows are the same."""
    source, target = site(kind, "source"), site(other, "target")

    async def scenario() -> None:
        before = await populated(source)
        assert {noun.kind for noun in NOUN_KINDS} | {"audit"} == before.keys()
        async with place(source) as old, place(target) as new:
            assert dict(await copying.migrate(old, new, NOON)) == before
        await check_moved(source, target, before)

    asyncio.run(scenario())


def migrate(source: StoreSite, target: StoreSite, crash_at: str = "") -> "subprocess.CompletedProcess[str]":
    command = [*CLI, "store", "migrate", source.url, target.url, "-o", "json"]
    environment = {**os.environ, "FLEETGATE_CRASH_AT": crash_at}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)


@pytest.mark.parametrize(
    ("kind", "other", "point"),
    [
        *(("tinydb", "sqlite", point) for point in COPY_POINTS),
        ("sqlite", "postgresql", "after_part"),
        ("postgresql", "tinydb", "after_source_left"),
    ],
)
def test_f_44_a_killed_move_goes_on(site: Sites, kind: str, other: str, point: str) -> None:
    """F-44, D9: kill -9 anywhere in a move, and the same command finishes it; nobody can use half a copy meanwhile."""
    source, target = site(kind, "source"), site(other, "target")
    before = asyncio.run(populated(source))
    killed = migrate(source, target, f"{point}:3" if point == "after_part" else point)
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    async def check_half() -> None:
        async with place(target) as half:
            with pytest.raises(Conflict, match="was not finished: run the same command again"):
                await copying.usable_epoch(half.store)

    asyncio.run(check_half())
    done = migrate(source, target)
    assert done.returncode == 0, done.stderr
    asyncio.run(check_moved(source, target, before))
    assert migrate(source, target).returncode == 5, "done once"


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_is_not_empty_is_left_alone(site: Sites, kind: str) -> None:
    """Nothing is overwritten or mixed: the target keeps what it has, and the source stays in use."""
    source, target = site("tinydb", "source"), site(kind, "target")

    async def scenario() -> None:
        await populated(source, 3)
        async with place(target) as new:
            await new.store.commit(Unit([], [event("only an audit row")]))
        async with place(source) as old, place(target) as new:
            with pytest.raises(Conflict, match="is not empty"):
                await copying.migrate(old, new, NOON)
            assert (await tally(new.store)).keys() == {"audit"}
            for each in (old, new):
                assert await copying.usable_epoch(each.store) == Epoch()

    asyncio.run(scenario())


def test_half_a_copy_of_something_else_is_left_alone(site: Sites) -> None:
    """Two sources never meet in one target."""
    source, target = site("tinydb", "source"), site("sqlite", "target")

    async def scenario() -> None:
        await populated(source, 3)
        async with place(source) as old, place(target) as new:
            await new.store.commit(Unit([Put(Epoch(filling="another source"))]))
            with pytest.raises(Conflict, match="half a copy of another source"):
                await copying.migrate(old, new, NOON)

    asyncio.run(scenario())


def test_a_source_that_went_on_meanwhile_is_noticed(site: Sites) -> None:
    """What was deleted at the source between two attempts would come to life again in the target: refused."""
    source, target = site("tinydb", "source"), site("sqlite", "target")
    asyncio.run(populated(source, 3))
    assert migrate(source, target, "after_verified").returncode == -signal.SIGKILL

    async def scenario() -> None:
        async with place(source) as old, place(target) as new:
            found = await old.store.get(ProvisionRequest, "req-001002")
            assert found is not None
            await old.store.commit(Unit([Delete(found)], [event("deleted")]))
            with pytest.raises(Conflict, match=r"differs from its source: request \(4 of 3\)"):
                await copying.migrate(old, new, NOON)
            assert await copying.usable_epoch(old.store) == Epoch()

    asyncio.run(scenario())


def test_a_source_that_is_written_to_is_noticed(site: Sites) -> None:
    """D12: a gate that still writes to a shared store loses nothing in silence: the move is not called done, and the
    same command takes along what was written."""
    source, target = site("postgresql", "source"), site("sqlite", "target")

    async def scenario() -> None:
        await populated(source, 3)
        async with place(source) as gate, place(source) as old, place(target) as new:
            epochs = [Epoch()]

            async def look() -> None:
                epochs.append(await copying.epoch_of(gate.store))

            async def write_late() -> None:
                await until(lambda: epochs[-1].moved_to is not None, look)
                await gate.store.commit(walk_unit(5_000))

            writing = asyncio.create_task(write_late())
            with pytest.raises(Conflict, match="was written to while it was copied"):
                await copying.migrate(replace(old, settle_s=1.0), new, NOON)
            await writing
            with pytest.raises(Conflict, match="was not finished"):
                await copying.usable_epoch(new.store)
            await copying.migrate(old, new, NOON)
            before = await tally(old.store)
        await check_moved(source, target, before)

    asyncio.run(scenario())


def test_a_store_that_is_too_small_says_so(site: Sites) -> None:
    """D9: what does not fit into the default store does not go there, and the larger store stays in use."""
    source, target = site("sqlite", "source"), site("tinydb", "target")

    async def scenario() -> None:
        async with place(source) as old:
            await old.store.commit(Unit([Put(request(number)) for number in range(11)]))
            async with place(target, requests_max=10) as new:
                with pytest.raises(LimitReached, match="at most 10 request records"):
                    await copying.migrate(old, new, NOON)
            assert await copying.usable_epoch(old.store) == Epoch()

    asyncio.run(scenario())


def test_an_epoch_moves_along(site: Sites) -> None:
    """F-40: a restored store that is moved is still in the epoch of its restore."""
    source, target = site("tinydb", "source"), site("sqlite", "target")

    async def scenario() -> None:
        async with place(source) as old, place(target) as new:
            await old.store.commit(Unit([Put(Epoch(number=3, began_at=NOON)), Put(request(1))]))
            await copying.migrate(old, new, NOON)
            moved = await copying.usable_epoch(new.store)
            assert (moved.number, moved.began_at) == (3, NOON)

    asyncio.run(scenario())


def test_the_command_moves_nothing_that_is_not_there(site: Sites) -> None:
    """A mistyped source is no empty store, one store is not two, and a dry run changes nothing."""
    source, target = site("tinydb", "source"), site("sqlite", "target")
    missing = migrate(source, target)
    assert missing.returncode == 6
    assert "must be there already" in missing.stderr
    asyncio.run(populated(source, 2))
    assert migrate(source, source).returncode == 6
    command = [*CLI, "store", "migrate", source.url, target.url, "--dry-run"]
    tried = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert tried.returncode == 0, tried.stderr
    assert not Path(target.settings["path"]).exists()


def test_stores_are_named_without_passwords() -> None:
    """F-39: a password on the command line is refused without being shown; the name of a store has none."""
    settings = read_place("postgresql://op@db1:5433/plant?password_file=word&sslmode=require")
    assert name_of(settings, Path("/x")) == "postgresql://op@db1:5433/plant"
    assert settings.model_dump()["password_file"] == Path("word")
    assert name_of(read_place("tinydb:data"), Path("/x")) == "tinydb:/x/data"
    for wrong in ("postgresql://op:s3cret-s3cret@db1/plant", "postgresql://op@db1/plant?password=s3cret-s3cret"):
        with pytest.raises(InvalidInput) as refused:
            read_place(wrong)
        assert "s3cret" not in str(refused.value)
    with pytest.raises(InvalidInput, match=r"store\.pasword_file: is not a setting"):
        read_place("postgresql://op@db1/plant?pasword_file=word")
    for wrong in ("data", "mysql:data", "sqlite:", "postgresql://h:port/x"):
        with pytest.raises(InvalidInput, match="store"):
            read_place(wrong)
