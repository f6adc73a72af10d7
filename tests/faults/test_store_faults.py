"""The default store against crashes, full and failing disks, second writers and curious neighbours."""

import asyncio
import errno
import os
import random
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from provisioner.model.device import Device
from provisioner.model.errors import LimitReached, Unavailable
from provisioner.model.ports import Put, Unit
from provisioner.model.request import ProvisionRequest
from provisioner.store.tinydb_store import TinyDbStore
from tests.contracts.store_contract import in_loop
from tests.contracts.store_values import all_audit, event, request, until, walk_unit
from tests.faults.disks import FailingDisk, RecordingDisk
from tests.faults.whole_units import whole_units

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20


@contextmanager
def writer(directory: Path, first: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A child that writes to the store, its first unit acknowledged already."""
    command = [sys.executable, "-m", "tests.faults.store_writer", str(directory), str(first)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            assert int(child.stdout.readline()) >= first
            yield child
        finally:
            child.kill()


def test_f23_a_killed_writer_loses_nothing_and_leaves_no_half_unit(tmp_path: Path, seed: int) -> None:
    """F-23: kill -9 at 20 arbitrary moments, compactions among them: what was acknowledged is there, all is whole."""
    moments = random.Random(f"{seed}/kills")
    for kill in range(KILLS):
        directory = tmp_path / str(kill // 4)
        first = (kill % 4) * 100_000
        with writer(directory, first) as child:
            time.sleep(moments.uniform(0, 0.2))  # the fault itself: any moment will do
            child.kill()
            assert child.stdout is not None
            acknowledged = {int(line) for line in child.stdout.read().split(b"\n")[:-1]}
        kept = asyncio.run(whole_units(TinyDbStore.open(directory)))
        assert acknowledged <= kept, f"kill {kill} lost {sorted(acknowledged - kept)[:5]}"


def test_f43_a_second_writer_is_refused(tmp_path: Path) -> None:
    """F-43: the second opener learns which process has the store and where to go; a kill frees the lock."""
    with writer(tmp_path, 0) as child:
        with pytest.raises(Unavailable, match=rf"process {child.pid};.*running service.*CLI"):
            asyncio.run(TinyDbStore.open(tmp_path))
        assert child.poll() is None
    assert asyncio.run(whole_units(TinyDbStore.open(tmp_path))) >= {0}


@in_loop
async def test_f43_one_process_does_not_open_a_store_twice(tmp_path: Path) -> None:
    """F-43: the lock holds within a process too, and the first opener is not disturbed."""
    store = await TinyDbStore.open(tmp_path)
    with pytest.raises(Unavailable, match=f"process {os.getpid()}"):
        await TinyDbStore.open(tmp_path)
    await store.commit(walk_unit(1))
    await store.close()


@in_loop
async def test_f42_a_lock_that_cannot_be_signed_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-42: a disk too full for the number of its process leaves no store locked by nobody."""

    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as on_a_full_disk:
        on_a_full_disk.setattr(os, "pwrite", full)
        with pytest.raises(Unavailable, match="No space left"):
            await TinyDbStore.open(tmp_path)
    await (await TinyDbStore.open(tmp_path)).close()


FAILURES = [
    (("write",), errno.ENOSPC),
    (("write",), errno.EIO),
    (("fsync",), errno.EIO),
    (("write", "truncate"), errno.EIO),
    (("write", "truncate", "fsync", "replace"), errno.EROFS),
]


@pytest.mark.parametrize(("broken", "code"), FAILURES, ids=str)
@in_loop
async def test_f42_a_failing_disk_is_no_success(tmp_path: Path, broken: Sequence[str], code: int) -> None:
    """F-42: commits get Unavailable and change nothing, health is red, and both recover with the disk."""
    disk = FailingDisk()
    store = await TinyDbStore.open(tmp_path / "store", disk=disk)
    await store.commit(walk_unit(1))
    disk.broken, disk.code = set(broken), code
    commits = [store.commit(walk_unit(number)) for number in range(2, 12)]
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert os.strerror(code) in str(outcomes[0])
    with pytest.raises(Unavailable):
        await store.health()
    assert await store.count(Device) == 1
    assert len(await all_audit(store)) == 2
    if "truncate" not in broken:
        shutil.copytree(tmp_path / "store", tmp_path / "crashed early")
        assert await whole_units(TinyDbStore.open(tmp_path / "crashed early")) == {1}
    disk.broken = set()
    assert await store.commit(walk_unit(3)) == 4
    await store.health()
    shutil.copytree(tmp_path / "store", tmp_path / "crashed late")
    await store.close()
    for name in ("store", "crashed late"):
        assert await whole_units(TinyDbStore.open(tmp_path / name)) == {1, 3}


@in_loop
async def test_f42_health_recovers_with_the_disk(tmp_path: Path) -> None:
    """F-42: readiness turns green by itself, without a commit that would try the disk; probes leave nothing behind."""
    disk = FailingDisk()
    store = await TinyDbStore.open(tmp_path, disk=disk)
    disk.broken, disk.code = {"write"}, errno.ENOSPC
    for _ in range(2):
        with pytest.raises(Unavailable, match="No space left"):
            await store.health()
    disk.broken = set()
    await store.health()
    assert (tmp_path / "store.log").stat().st_size == 0
    await store.close()


@in_loop
async def test_f42_units_behind_a_failed_group_fail_with_it(tmp_path: Path) -> None:
    """F-42: a unit that was judged by a lost one is lost too; the same calls made again succeed."""
    disk = FailingDisk()
    store = await TinyDbStore.open(tmp_path, disk=disk)
    disk.broken = {"fsync"}
    first = asyncio.create_task(store.commit(Unit([Put(request(1))], [event("a")])))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    builds_on_it = asyncio.create_task(store.commit(Unit([Put(request(1, version=1))], [event("b")])))
    outcomes = await asyncio.gather(first, builds_on_it, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    disk.broken = set()
    assert await store.commit(Unit([Put(request(1))], [event("a")])) == 1
    assert await store.commit(Unit([Put(request(1, version=1))], [event("b")])) == 2
    await store.close()


@in_loop
async def test_f42_a_lost_rival_refuses_nobody(tmp_path: Path) -> None:
    """F-42: who meets a unique value of a unit that is then lost is judged again without it."""
    disk = FailingDisk()
    store = await TinyDbStore.open(tmp_path, disk=disk)
    disk.broken = {"write"}
    lost = asyncio.create_task(store.commit(Unit([Put(request(1))])))
    await asyncio.sleep(0)
    rival = asyncio.create_task(store.commit(Unit([Put(request(2, client_id="gw1", client_id_claim="gw1"))])))
    outcomes = await asyncio.gather(lost, rival, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    await store.close()


@in_loop
async def test_f23_each_step_is_durable_before_the_next(tmp_path: Path) -> None:
    """F-23: a commit ends with an fsync; a compaction archives, then replaces the snapshot, then cuts the journal."""
    disk = RecordingDisk()
    store = await TinyDbStore.open(tmp_path / "store", disk=disk, audit_rows_max=1)
    disk.calls.clear()
    await store.commit(walk_unit(1))
    assert disk.calls == [("write", "store.log"), ("fsync", "store.log")]
    disk.calls.clear()
    await store.close()
    assert disk.calls == [
        ("truncate", "audit-archive.jsonl"),
        ("write", "audit-archive.jsonl"),
        ("fsync", "audit-archive.jsonl"),
        ("fsync", "store"),
        ("write", "store.json.tmp"),
        ("fsync", "store.json.tmp"),
        ("replace", "store.json"),
        ("fsync", "store"),
        ("write", "store.log.tmp"),
        ("fsync", "store.log.tmp"),
        ("replace", "store.log"),
        ("fsync", "store"),
    ]


@in_loop
async def test_f42_a_failing_compaction_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """F-42: when no snapshot can be written the journal just grows, and holds everything at the end."""
    disk = FailingDisk()
    store = await TinyDbStore.open(tmp_path / "store", disk=disk, journal_bytes_max=5_000, audit_rows_max=5)
    disk.broken = {"replace"}
    for number in range(30):
        await store.commit(walk_unit(number))
    await until(lambda: "could not be compacted" in caplog.text, store.health)
    await store.close()
    assert (tmp_path / "store" / "store.log").stat().st_size > 30_000
    # The audit rows were archived before the snapshot failed: each is there once all the same.
    assert (tmp_path / "store" / "audit-archive.jsonl").stat().st_size > 0
    assert await whole_units(TinyDbStore.open(tmp_path / "store")) == set(range(30))


@in_loop
async def test_f40_an_older_store_beside_a_newer_archive(tmp_path: Path) -> None:
    """F-40: a restored backup beside the archive that went on gives no seq twice and forgets no archived row."""
    store = await TinyDbStore.open(tmp_path / "store", audit_rows_max=2)
    await store.commit(Unit(audit=[event(str(number)) for number in range(1, 6)]))
    await store.close()
    shutil.copytree(tmp_path / "store", tmp_path / "backup")
    store = await TinyDbStore.open(tmp_path / "store", audit_rows_max=2)
    await store.commit(Unit(audit=[event(str(number)) for number in range(6, 11)]))
    await store.close()
    shutil.copy(tmp_path / "store" / "audit-archive.jsonl", tmp_path / "backup")
    store = await TinyDbStore.open(tmp_path / "backup", audit_rows_max=2)
    assert await store.commit(Unit(audit=[event("9 again")])) == 9
    assert [row.subject for row in await all_audit(store)] == [*map(str, range(1, 9)), "9 again"]
    assert [row.subject for row in await store.audit_page(after=4, limit=2)] == ["5", "6"]
    await store.close()


@in_loop
async def test_f42_a_disk_that_fails_at_opening_leaves_the_lock_free(tmp_path: Path) -> None:
    """F-42: an open that fails says so and can be tried again."""
    disk = FailingDisk()
    disk.broken, disk.code = {"write"}, errno.ENOSPC
    with pytest.raises(Unavailable, match="No space left"):
        await TinyDbStore.open(tmp_path, disk=disk)
    await (await TinyDbStore.open(tmp_path)).close()


@in_loop
async def test_files_are_private(tmp_path: Path) -> None:
    """Whatever the umask and whatever was there before, files are 0600 and directories 0700."""
    directory = tmp_path / "store"
    directory.mkdir(mode=0o755)
    (directory / "store.lock").touch(mode=0o644)
    umask = os.umask(0)
    try:
        store = await TinyDbStore.open(directory, audit_rows_max=1)
        await store.commit(walk_unit(1))
        await store.close()
    finally:
        os.umask(umask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    expected = ["store.json", "store.lock", "store.log", "audit-archive.jsonl"]
    assert modes == dict.fromkeys(expected, 0o600)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@in_loop
async def test_request_10001_is_refused(tmp_path: Path) -> None:
    """D9: the default store takes 10,000 requests, then names the way to a larger one; other records still go."""
    store = await TinyDbStore.open(tmp_path)
    for start in range(0, 10_000, 2_000):
        await store.commit(Unit([Put(request(number)) for number in range(start, start + 2_000)]))
    with pytest.raises(LimitReached, match=r"10,000 request.*sqlite.*fleetgate store migrate"):
        await store.commit(Unit([Put(request(10_000))]))
    assert await store.count(ProvisionRequest) == 10_000
    first = await store.get(ProvisionRequest, "req-000000")
    assert first is not None
    await store.commit(Unit([Put(first)], [event("still writes")]))
    await store.close()
    store = await TinyDbStore.open(tmp_path)
    with pytest.raises(LimitReached):
        await store.commit(Unit([Put(request(10_000))]))
    await store.close()
