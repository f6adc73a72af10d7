"""The default store: the common contract, its file format, group commit and compaction."""

import asyncio
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from tinydb import TinyDB, where

from provisioner.model import records
from provisioner.model.device import Device
from provisioner.model.errors import Duplicate, StaleVersion
from provisioner.model.ports import Delete, Noun, Put, Unit
from provisioner.model.request import ProvisionRequest
from provisioner.store.disk import Disk
from provisioner.store.schema import NOUNS, to_json
from provisioner.store.tinydb_store import TinyDbStore
from tests.contracts.store_contract import StoreContract, in_loop
from tests.contracts.store_values import (
    all_audit,
    device,
    event,
    full_request,
    one_of_each,
    request,
    until,
    walk_unit,
)


class TinyDbPlace:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def open(self) -> TinyDbStore:
        return await TinyDbStore.open(self._directory)


@pytest.fixture
def place(tmp_path: Path) -> TinyDbPlace:
    return TinyDbPlace(tmp_path / "store")


class TestTinyDbStore(StoreContract):
    """The contract, with the limits of production."""


class RestlessPlace(TinyDbPlace):
    async def open(self) -> TinyDbStore:
        return await TinyDbStore.open(self._directory, journal_bytes_max=500, audit_rows_max=3)


class TestRestlessTinyDbStore(StoreContract):
    """The contract once more, with compactions and archived audit rows all the time."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> RestlessPlace:
        return RestlessPlace(tmp_path / "store")


class GatedDisk(Disk):
    """A disk whose fsyncs can be held, and then let through one by one."""

    def __init__(self) -> None:
        self._held = False
        self._passes = threading.Semaphore(0)
        self.fsyncs = 0

    def hold(self) -> None:
        self._held = True

    def let_through(self, fsyncs: int) -> None:
        self._passes.release(fsyncs)

    def fsync(self, fd: int) -> None:
        if self._held:
            self._passes.acquire()
        self.fsyncs += 1
        super().fsync(fd)


@pytest.mark.parametrize("noun", [*one_of_each(), event("a", details={"n": [1]})], ids=lambda noun: noun.kind)
def test_the_journal_writes_rows_as_records_do(noun: Any) -> None:
    """The fast JSON of a noun is the row that ``records`` describes, and loads back to an equal noun."""
    row = orjson.loads(to_json(noun))
    assert row == json.loads(json.dumps(records.dump(noun)))
    assert records.load(type(noun), row) == noun


def test_every_kind_is_tried() -> None:
    """A noun class that joins the schema joins these tests."""
    assert {type(noun) for noun in one_of_each()} == set(NOUNS)


@in_loop
async def test_plain_tinydb_opens_the_snapshot(tmp_path: Path) -> None:
    """``store.json`` is an ordinary TinyDB file: queries of TinyDB find the records."""
    store = await TinyDbStore.open(tmp_path)
    await store.commit(walk_unit(1))
    await store.commit(Unit([Put(full_request(2))]))
    await store.close()
    with TinyDB(tmp_path / "store.json", access_mode="r") as db:
        assert db.tables() == {"_meta", "audit", *(noun.kind for noun in NOUNS)}
        found = db.table("request").search(where("client_id") == "gw2")
        assert [row["grant"]["device_id"] for row in found] == ["dev-1"]
        audit = db.table("audit").get(doc_id=2)
        assert isinstance(audit, dict)
        assert audit["action"] == "user.create"


@in_loop
async def test_waiting_commits_share_one_fsync(tmp_path: Path) -> None:
    """Fifty commits that wait together cost a handful of fsyncs, and the event loop runs on meanwhile."""
    disk = GatedDisk()
    store = await TinyDbStore.open(tmp_path, disk=disk)
    before = disk.fsyncs
    disk.hold()
    commits = [asyncio.create_task(store.commit(walk_unit(n))) for n in range(50)]
    for _ in range(100):
        await asyncio.sleep(0)
    assert not any(commit.done() for commit in commits)
    disk.let_through(100)
    assert sorted(await asyncio.gather(*commits)) == [2 * n for n in range(1, 51)]
    assert disk.fsyncs - before <= 3
    await store.close()


@in_loop
async def test_readers_see_only_what_is_durable(tmp_path: Path) -> None:
    """Until the fsync is done neither records nor audit rows nor feeds show the unit."""
    disk = GatedDisk()
    store = await TinyDbStore.open(tmp_path, disk=disk)
    disk.hold()
    commit = asyncio.create_task(store.commit(walk_unit(1)))
    for _ in range(100):
        await asyncio.sleep(0)
    assert await store.get(Device, "dev-000001") is None
    assert await store.find(ProvisionRequest, "client_id", "gw1") == []
    assert await store.count(ProvisionRequest) == 0
    assert await store.audit_page() == []
    disk.let_through(100)
    await commit
    assert await store.get(Device, "dev-000001") == replace(device(1), version=1)
    await store.close()


@in_loop
async def test_a_duplicate_of_an_unflushed_record_is_refused(tmp_path: Path) -> None:
    """EC-07: a client id taken by a unit that is still on its way to the disk is taken."""
    disk = GatedDisk()
    store = await TinyDbStore.open(tmp_path, disk=disk)
    disk.hold()
    first = asyncio.create_task(store.commit(Unit([Put(request(1))])))
    await asyncio.sleep(0)
    rival = asyncio.create_task(store.commit(Unit([Put(request(2, client_id="gw1", client_id_claim="gw1"))])))
    for _ in range(100):
        await asyncio.sleep(0)
    disk.let_through(100)
    await first
    with pytest.raises(Duplicate, match="req-000001"):
        await rival
    await store.close()


@in_loop
async def test_writers_are_judged_by_the_newest_staged_change(tmp_path: Path) -> None:
    """Of three groups, the first landed and the second under way, a third sees what the second will leave."""
    disk = GatedDisk()
    store = await TinyDbStore.open(tmp_path, disk=disk)
    await store.commit(Unit([Put(request(1)), Put(request(2))]))

    async def started(*changes: Put | Delete) -> "asyncio.Task[int]":
        task = asyncio.create_task(store.commit(Unit(changes)))
        for _ in range(10):
            await asyncio.sleep(0)
        return task

    disk.hold()
    first = await started(Delete(request(1, version=1)), Put(request(2, version=1)))
    second = await started(Put(request(3, client_id="gw1", client_id_claim="gw1")), Put(request(2, version=2)))
    disk.let_through(1)
    await first
    rival = await started(Put(request(4, client_id="gw1", client_id_claim="gw1")))
    stale = await started(Put(request(2, version=2, attempts=9)))
    fresh = await started(Put(request(2, version=3, attempts=5)))
    assert not second.done()
    disk.let_through(100)
    outcomes = await asyncio.gather(second, rival, stale, fresh, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, Duplicate, StaleVersion, int]
    found = await store.find(ProvisionRequest, "account", "acme")
    assert [(r.id, r.version, r.attempts) for r in found] == [("req-000002", 4, 5), ("req-000003", 1, 0)]
    await store.close()


@in_loop
async def test_compaction_keeps_the_journal_short(tmp_path: Path) -> None:
    """Commits go on while snapshots are taken; a reopened store has every unit and every audit row once."""
    store = await TinyDbStore.open(tmp_path, journal_bytes_max=20_000, audit_rows_max=100)
    for start in range(0, 600, 50):
        await asyncio.gather(*(store.commit(walk_unit(n)) for n in range(start, start + 50)))
    archive = tmp_path / "audit-archive.jsonl"
    await until(archive.exists, store.health)
    assert (tmp_path / "store.json").stat().st_size > 20_000
    assert [row.seq for row in await all_audit(store)] == list(range(1, 1201))
    assert [row.seq for row in await store.audit_page(limit=200, newest_first=True)] == list(range(1200, 1000, -1))
    await store.close()
    assert (tmp_path / "store.log").stat().st_size == 0
    seqs = [json.loads(line)["seq"] for line in archive.read_text().splitlines()]
    assert seqs == list(range(1, 1101))
    store = await TinyDbStore.open(tmp_path)
    assert await store.count(Device) == 600
    assert [row.seq for row in await all_audit(store)] == list(range(1, 1201))
    assert [row.seq for row in await store.audit_page(after=437, limit=3)] == [438, 439, 440]
    await store.close()


@in_loop
async def test_archived_rows_are_found_by_halving(tmp_path: Path) -> None:
    """Any page of a long archive begins with the row after the given seq."""
    store = await TinyDbStore.open(tmp_path, audit_rows_max=1)
    await store.commit(Unit(audit=[event("x" * (n % 300)) for n in range(3000)]))
    await store.close()
    store = await TinyDbStore.open(tmp_path)
    for after in (0, 1, 2, 499, 1500, 2222, 2997, 2998, 2999):
        expected = list(range(after + 1, min(after + 6, 3001)))
        assert [row.seq for row in await store.audit_page(after=after, limit=5)] == expected
    await store.close()


def test_nouns_have_disjoint_index_names() -> None:
    """``find`` takes one name, so no kind has a unique and a shared index of the same name."""
    nouns: list[Noun] = one_of_each()
    for noun in nouns:
        assert not noun.unique().keys() & noun.indexed().keys()
