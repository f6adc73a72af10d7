"""The default store's files: older and newer schemas, damage, and what does not belong together."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.model.device import Device
from provisioner.model.errors import Unavailable
from provisioner.model.ports import Put, Unit
from provisioner.model.records import Row
from provisioner.model.request import ProvisionRequest
from provisioner.store.schema import Rows, Schema
from provisioner.store.tinydb_store import TinyDbStore
from tests.contracts.store_contract import in_loop
from tests.contracts.store_values import (
    all_audit,
    event,
    provision_user,
    request,
    walk_unit,
)


async def reopened_after_copy(store: TinyDbStore, directory: Path, target: Path) -> TinyDbStore:
    """What is stored now is in the snapshot of ``target``."""
    await store.close()
    shutil.copytree(directory, target)
    return await TinyDbStore.open(directory)


def _with_suffix(rows: Rows) -> Rows:
    return rows | {"provision_user": [{**row, "id": row["id"] + "-v2"} for row in rows["provision_user"]]}


def _verifier_moved(row: Row) -> Row:
    return {**row, "verifier": row["verifier"].removesuffix("!")}


class TestMigrations:
    @in_loop
    async def test_an_old_store_is_migrated_once(self, tmp_path: Path) -> None:
        """F-44: snapshot and journal of an older schema both pass the migrations, step by step, one time."""
        schema = Schema(
            3,
            migrations={
                1: _with_suffix,
                2: lambda rows: rows | {"provision_user": [_verifier_moved(r) for r in rows["provision_user"]]},
            },
        )
        store = await TinyDbStore.open(tmp_path / "store")
        await store.commit(Unit([Put(replace(provision_user("in-snapshot"), verifier="v!"))]))
        store = await reopened_after_copy(store, tmp_path / "store", tmp_path / "old")
        await store.commit(Unit([Put(provision_user("in-journal"))], [event("a")]))
        (tmp_path / "old" / "store.log").write_bytes((tmp_path / "store" / "store.log").read_bytes())
        await store.close()
        for _ in range(2):
            store = await TinyDbStore.open(tmp_path / "old", schema=schema)
            users = (await store.page(type(provision_user()))).items
            assert [(user.id, user.verifier[:2]) for user in users] == [
                ("in-journal-v2", "hm"),
                ("in-snapshot-v2", "v"),
            ]
            assert [row.subject for row in await all_audit(store)] == ["a"]
            await store.close()

    @in_loop
    async def test_a_newer_schema_is_refused(self, tmp_path: Path) -> None:
        """F-44: a downgrade is refused with both numbers, and touches nothing."""
        newer = Schema(2, migrations={1: lambda rows: rows})
        store = await TinyDbStore.open(tmp_path, schema=newer)
        await store.commit(Unit([Put(request(1))]))
        await store.close()
        before = (tmp_path / "store.json").read_bytes()
        with pytest.raises(Unavailable, match=r"schema 2 .* knows schema 1"):
            await TinyDbStore.open(tmp_path)
        assert (tmp_path / "store.json").read_bytes() == before
        store = await TinyDbStore.open(tmp_path, schema=newer)
        assert await store.count(ProvisionRequest) == 1
        await store.close()

    def test_a_schema_knows_every_step(self) -> None:
        """A schema number without its migration is a mistake of the program."""
        with pytest.raises(ValueError, match="no migration from schema 2"):
            Schema(3, migrations={1: lambda rows: rows})


class TestDamage:
    @in_loop
    async def test_a_damaged_snapshot_is_refused(self, tmp_path: Path) -> None:
        """What is no store is not opened, and the message says which file."""
        store = await TinyDbStore.open(tmp_path)
        await store.commit(Unit([Put(request(1))]))
        await store.close()
        good = (tmp_path / "store.json").read_bytes()
        changed = [(b'"gw1"', b'"g#1"'), (b"lobby", b"l"), (b'"id":', b'"di":'), (b'"device":{}', b'"device":{"1":7}')]
        for bad in (b"", good[:-20], b"[]", b"{}", *(good.replace(*each) for each in changed)):
            assert bad != good
            (tmp_path / "store.json").write_bytes(bad)
            with pytest.raises(Unavailable, match=r"store\.json"):
                await TinyDbStore.open(tmp_path)
        (tmp_path / "store.json").write_bytes(good)
        await (await TinyDbStore.open(tmp_path)).close()

    @pytest.mark.parametrize("bad", [b"{", b"[1]", b"7", b'{"seq":"2"}', b'{"seq":2}', b'{"seq":2,"at":1}', b"\xff"])
    @in_loop
    async def test_a_damaged_archive_is_told(self, tmp_path: Path, bad: bytes) -> None:
        """Audit rows that cannot be read are Unavailable by their file's name, and never passed over in silence."""
        store = await TinyDbStore.open(tmp_path, audit_rows_max=1)
        await store.commit(Unit(audit=[event("a"), event("b"), event("c"), event("d")]))
        await store.close()
        lines = (tmp_path / "audit-archive.jsonl").read_bytes().splitlines()
        lines[1] = bad
        (tmp_path / "audit-archive.jsonl").write_bytes(b"\n".join([*lines, b""]))
        store = await TinyDbStore.open(tmp_path, audit_rows_max=1)
        with pytest.raises(Unavailable, match=r"audit-archive\.jsonl is damaged after row 0"):
            await store.audit_page()
        assert [row.subject for row in await store.audit_page(limit=1, newest_first=True)] == ["d"]
        await store.close()

    @in_loop
    async def test_a_journal_without_its_snapshot_is_refused(self, tmp_path: Path) -> None:
        """A lost snapshot is not taken for a new store."""
        store = await TinyDbStore.open(tmp_path / "a")
        await store.commit(Unit([Put(request(1))]))
        journal = (tmp_path / "a" / "store.log").read_bytes()
        await store.close()
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "store.log").write_bytes(journal)
        with pytest.raises(Unavailable, match="missing"):
            await TinyDbStore.open(tmp_path / "b")

    @in_loop
    async def test_a_journal_that_skips_units_is_refused(self, tmp_path: Path) -> None:
        """F-40: an older snapshot beside a journal that begins later would lose units in silence."""
        store = await TinyDbStore.open(tmp_path / "a")
        store = await reopened_after_copy(store, tmp_path / "a", tmp_path / "old")
        for number in range(3):
            await store.commit(Unit([Put(request(number))]))
        lines = (tmp_path / "a" / "store.log").read_bytes().splitlines(keepends=True)
        await store.close()
        (tmp_path / "old" / "store.log").write_bytes(b"".join(lines[1:]))
        with pytest.raises(Unavailable, match="unit 1 is missing"):
            await TinyDbStore.open(tmp_path / "old")

    @in_loop
    async def test_a_journal_older_than_the_snapshot_is_not_replayed(self, tmp_path: Path) -> None:
        """Units that the snapshot contains are passed over, and the store goes on after them."""
        store = await TinyDbStore.open(tmp_path / "store")
        await store.commit(walk_unit(1))
        journal = (tmp_path / "store" / "store.log").read_bytes()
        await store.commit(walk_unit(2))
        await store.close()
        for number in (3, 4):
            (tmp_path / "store" / "store.log").write_bytes(journal)
            store = await TinyDbStore.open(tmp_path / "store")
            assert await store.commit(walk_unit(number)) == 2 * number
            shutil.copytree(tmp_path / "store", tmp_path / str(number))
            await store.close()
        store = await TinyDbStore.open(tmp_path / "4")
        assert await store.count(Device) == 4
        await store.close()
