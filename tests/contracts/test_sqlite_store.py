"""The store ``sqlite``: the common contract, the model, and what is its own."""

import asyncio
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from provisioner.model.device import Device
from provisioner.model.errors import Duplicate, StaleVersion
from provisioner.model.ports import Delete, Put, Unit
from provisioner.model.request import ProvisionRequest, RequestState
from provisioner.store.sql.names import INDEXES
from provisioner.store.sql.readers import NEAR_ROWS_MAX, count_sql, get_sql, listing_sql
from provisioner.store.sql.recent import RECORDS_MAX, Recent
from provisioner.store.sql.sqlite_store import SqliteStore
from provisioner.store.sql.writer import Work, Writer
from tests.contracts.store_contract import StoreContract, in_loop
from tests.contracts.store_machine import StoreMachine, thorough
from tests.contracts.store_values import device, event, request, walk_unit


class SqlitePlace:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def open(self) -> SqliteStore:
        return await SqliteStore.open(self._path)


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    return SqlitePlace(tmp_path / "store" / "fleetgate.db")


class TestSqliteStore(StoreContract):
    """The contract, against a file."""


class SqliteMachine(StoreMachine):
    def prepare(self) -> None:
        self.home = Path(tempfile.mkdtemp())
        self.lives = 0

    async def open(self) -> SqliteStore:
        return await SqliteStore.open(self.home / str(self.lives) / "fleetgate.db")

    @rule(torn=st.binary(max_size=40))
    def crash(self, torn: bytes) -> None:
        """The files as they are at any moment, the end of the WAL torn, hold all that was committed."""
        crashed, self.lives = self.home / str(self.lives), self.lives + 1
        (self.home / str(self.lives)).mkdir()
        for name in ("fleetgate.db", "fleetgate.db-wal"):
            shutil.copy(crashed / name, self.home / str(self.lives))
        with (self.home / str(self.lives) / "fleetgate.db-wal").open("ab") as file:
            file.write(torn)
        self.run(self.store.close())
        self.store = self.run(self.open())

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.home)


TestSqliteAgainstModel = thorough(SqliteMachine)


class HeldWriter(Writer):
    """Counts the units of its transactions, and stands still before a commit while it is held."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self.let_go = threading.Event()
        self.let_go.set()
        self.groups: list[int] = []

    def prepare(self, works: Sequence[Work]) -> list[int | Exception]:
        self.groups.append(len(works))
        return super().prepare(works)

    def commit(self) -> None:
        self.let_go.wait(20)
        super().commit()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[HeldWriter]:
    """The writers of the stores that this test opens."""
    made: list[HeldWriter] = []

    def make(connection: sqlite3.Connection) -> HeldWriter:
        made.append(HeldWriter(connection))
        return made[-1]

    monkeypatch.setattr("provisioner.store.sql.sqlite_store.Writer", make)
    return made


@in_loop
async def test_waiting_commits_share_one_transaction(tmp_path: Path, held: list[HeldWriter]) -> None:
    """D9: what comes while one transaction is under way goes into the next, and the event loop runs on meanwhile."""
    store = await SqliteStore.open(tmp_path / "store.db")
    held[0].let_go.clear()
    commits = [asyncio.create_task(store.commit(walk_unit(number))) for number in range(50)]
    for _ in range(100):
        await asyncio.sleep(0)
    assert await store.get(Device, "dev-000001") is None
    assert not any(commit.done() for commit in commits)
    held[0].let_go.set()
    assert await asyncio.gather(*commits) == [2 * number for number in range(1, 51)]
    assert len(held[0].groups) <= 2
    await store.close()


@in_loop
async def test_a_refused_unit_leaves_its_group_alone(tmp_path: Path, held: list[HeldWriter]) -> None:
    """EC-07: in one transaction a refused unit is undone by itself, and those behind it are judged without it."""
    store = await SqliteStore.open(tmp_path / "store.db")
    held[0].let_go.clear()
    rival = Unit([Put(device(9)), Put(request(2, client_id="gw1", client_id_claim="gw1"))], [event("rival")])
    heir = Unit([Put(device(9))], [event("heir")])
    units = (Unit([Put(request(1))], [event("first")]), rival, heir, Unit([Put(request(1))]))
    commits = [asyncio.create_task(store.commit(unit)) for unit in units]
    await asyncio.sleep(0)
    held[0].let_go.set()
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    assert [each if isinstance(each, int) else type(each) for each in outcomes] == [1, Duplicate, 2, StaleVersion]
    assert [row.subject for row in await store.audit_page()] == ["first", "heir"]
    assert await store.get(Device, "dev-000009") == replace(device(9), version=1)
    await store.close()


@in_loop
async def test_a_mistake_of_one_caller_is_its_own(tmp_path: Path) -> None:
    """What no store can keep is told to the caller who brought it; the others of the group are committed."""

    class Stranger(Device):
        kind = "stranger"  # type: ignore[misc]  # that is the mistake

    store = await SqliteStore.open(tmp_path / "store.db")
    stranger = Stranger(**{name: getattr(device(1), name) for name in device(1).__slots__})
    outcomes = await asyncio.gather(
        store.commit(Unit([Put(device(2))])),
        store.commit(Unit([Put(stranger)])),
        store.commit(Unit([Put(device(3))])),
        return_exceptions=True,
    )
    assert [type(each) for each in outcomes] == [int, KeyError, int]
    assert await store.count(Device) == 2
    await store.close()


@in_loop
async def test_many_holders_are_found_as_few_are(tmp_path: Path) -> None:
    """A find of more records than are read on the event loop gives all of them, in order."""
    store = await SqliteStore.open(tmp_path / "store.db")
    for count in (NEAR_ROWS_MAX, NEAR_ROWS_MAX + 1, 3 * NEAR_ROWS_MAX):
        stored = await store.count(ProvisionRequest)
        await store.commit(Unit([Put(request(number)) for number in range(stored, count)]))
        found = await store.find(ProvisionRequest, "account", "acme")
        assert [each.id for each in found] == [f"req-{number:06d}" for number in range(count)]
    await store.close()


@in_loop
async def test_text_that_is_no_utf8_is_in_no_record(tmp_path: Path) -> None:
    """A half of a surrogate pair, which JSON may carry in, is looked for in vain and without an error."""
    store = await SqliteStore.open(tmp_path / "store.db")
    assert await store.get(Device, "\ud800") is None
    assert await store.find(ProvisionRequest, "login", "\ud800") == []
    assert (await store.page(Device, where={"account": "\ud800"})).items == []
    assert await store.count(Device, where={"account": "\ud800"}) == 0
    await store.close()


@in_loop
async def test_only_changed_indexes_are_written(tmp_path: Path) -> None:
    """A record that changes is found by its new values, and by none of the former ones."""
    store = await SqliteStore.open(tmp_path / "store.db")
    await store.commit(Unit([Put(request(1))]))
    await store.commit(Unit([Put(request(1, version=1, account="other", attempts=1))]))
    await store.commit(Unit([Put(request(1, version=2, account="other", state=RequestState.REVOKED))]))
    for where, count in (
        ({"account": "acme"}, 0),
        ({"account": "other"}, 1),
        ({"account": "other", "state": "pending"}, 0),
        ({"account": "other", "state": "revoked", "any_client_id": "gw1"}, 1),
        ({"login": "lobby/gw1"}, 0),
    ):
        assert await store.count(ProvisionRequest, where=where) == count
    await store.close()


def test_recent_records_are_the_committed_ones() -> None:
    """A put is known one version on, a delete is not known any more, and neither is what an import brings."""
    recent = Recent()
    recent.landed(Unit([Put(device(1)), Put(device(2))]))
    recent.landed(Unit([Put(device(1, version=1, certificate_serial="ab")), Delete(device(2, version=1))]))
    assert recent.get(Device, "dev-000001") == device(1, version=2, certificate_serial="ab")
    assert recent.get(Device, "dev-000002") is None
    recent.landed(Unit([Put(device(number)) for number in range(1, 100)]))
    assert recent.get(Device, "dev-000001") is None
    assert recent.get(Device, "dev-000050") is None


def test_no_more_records_are_kept_than_allowed() -> None:
    """The oldest go first, one for each that comes; one that is kept again is the newest."""
    recent = Recent()
    for number in range(RECORDS_MAX):
        recent.keep(device(number))
    recent.keep(device(0))
    recent.keep(device(RECORDS_MAX))
    assert [recent.get(Device, f"dev-{number:06d}") is None for number in (0, 1, 2, RECORDS_MAX)] == [
        False,
        True,
        False,
        False,
    ]


@in_loop
async def test_what_is_adopted_replaces_what_was_read(tmp_path: Path) -> None:
    """A record that was read before is read anew once another one took its place."""
    store = await SqliteStore.open(tmp_path / "store.db")
    await store.commit(Unit([Put(device(1))]))
    assert await store.get(Device, "dev-000001") == device(1, version=1)
    await store.adopt([device(1, version=7)])
    assert await store.get(Device, "dev-000001") == device(1, version=7)
    await store.close()


@pytest.mark.parametrize("kind", INDEXES)
def test_every_look_up_uses_its_index(tmp_path: Path, kind: str) -> None:
    """P7: no read by an index, nor a page of a listing by one, looks through a table or sorts."""
    asyncio.run(_made(tmp_path / "store.db"))
    connection = sqlite3.connect(tmp_path / "store.db")
    queries = [get_sql(kind)]
    for names in [*((name,) for name in INDEXES[kind].names), *INDEXES[kind].combined, ()]:
        queries += [listing_sql(kind, names, True), listing_sql(kind, names, False)]
        queries += [count_sql(kind, names)] if names else []
    for query in queries:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", ["x"] * query.count("?"))]
        assert len(plan) == 1, (query, plan)
        # The one that reads on and on is the listing of everything, in the order of the ids.
        assert plan[0].startswith("SEARCH") or "USING INDEX sqlite_autoindex" in plan[0], (query, plan)
    connection.close()


async def _made(path: Path) -> None:
    await (await SqliteStore.open(path)).close()
