"""The sqlite store against crashes, full, failing and slow disks, second writers and half-done migrations."""

import asyncio
import os
import random
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import pytest

from provisioner.model.device import Device
from provisioner.model.errors import Unavailable
from provisioner.store.sql.sqlite_store import SqliteStore
from tests.contracts.later_program import LATER, open_sqlite
from tests.contracts.store_contract import in_loop
from tests.contracts.store_values import walk_unit
from tests.faults import sqlite_operator
from tests.faults.whole_units import whole_units
from tests.support.bad_disk import FLUSHES, FULL, READ_ONLY, BadDisk

ROOT = Path(__file__).resolve().parents[2]
KILLS = 8


class Operator:
    """The child that has the store open."""

    def __init__(self, path: Path, environment: Mapping[str, str] | None = None) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.sqlite_operator", str(path)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Self:
        assert self.heard() == "open"
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def ask(self, line: str) -> str:
        self.say(line)
        return self.heard()

    def say(self, line: str) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()

    def heard(self) -> str:
        assert self.child.stdout is not None
        return self.child.stdout.readline().strip()

    def kill(self) -> str:
        """What it said until then."""
        self.child.kill()
        rest, _ = self.child.communicate()
        return rest


def test_f23_a_killed_writer_loses_nothing_and_leaves_no_half_unit(tmp_path: Path, seed: int) -> None:
    """F-23: kill -9 at arbitrary moments, checkpoints among them: what was acknowledged is there, all is whole."""
    moments = random.Random(f"{seed}/kills")
    for kill in range(KILLS):
        with Operator(tmp_path / "store.db") as operator:
            operator.say(f"write {kill * 100_000}")
            acknowledged = {int(operator.heard())}
            time.sleep(moments.uniform(0, 0.3))  # the fault itself: any moment will do
            acknowledged |= {int(line) for line in operator.kill().splitlines()}
        kept = asyncio.run(whole_units(SqliteStore.open(tmp_path / "store.db")))
        assert acknowledged <= kept, f"kill {kill} lost {sorted(acknowledged - kept)[:5]}"


def test_f43_a_second_process_is_refused(tmp_path: Path) -> None:
    """F-43: the second opener learns which process has the store and where to go; a kill frees the lock."""
    path = tmp_path / "store.db"
    with Operator(path) as operator:
        with pytest.raises(Unavailable, match=rf"process {operator.child.pid};.*running service.*CLI"):
            asyncio.run(SqliteStore.open(path))
        assert operator.ask("commit 1") == "2"
    assert asyncio.run(whole_units(SqliteStore.open(path))) == {1}


@pytest.mark.parametrize("fault", [FULL, READ_ONLY, FLUSHES])
def test_f42_a_failing_disk_is_no_success(tmp_path: Path, fault: str) -> None:
    """F-42: while writes or flushes fail, commits and health say so and change nothing; then it goes on by itself."""
    disk = BadDisk(tmp_path)
    with Operator(tmp_path / "store.db", environment=disk.environment) as operator:
        assert operator.ask("commit 1") == "2"
        disk.fail(fault)
        for number in (2, 3):
            assert operator.ask(f"commit {number}").startswith("Unavailable: the store could not write to its disk")
            assert operator.ask("health").startswith("Unavailable")
            assert operator.ask(f"get {number}") == "nothing"
        assert operator.ask("get 1") == "dev-000001"
        assert operator.ask("audit") == "1 2"
        disk.recover()
        assert operator.ask("health") == "good"
        assert operator.ask("commit 2") == "4"
        assert operator.ask("audit") == "1 2 3 4"
    assert asyncio.run(whole_units(SqliteStore.open(tmp_path / "store.db"))) == {1, 2}


@pytest.mark.parametrize("fault", [FULL, READ_ONLY, FLUSHES])
def test_f42_a_crash_does_not_bring_back_what_was_reported_lost(tmp_path: Path, fault: str) -> None:
    """F-42, F-23: a unit whose flush failed is not there after kill -9, though it had been written."""
    disk = BadDisk(tmp_path)
    with Operator(tmp_path / "store.db", environment=disk.environment) as operator:
        assert operator.ask("commit 1") == "2"
        disk.fail(fault)
        assert operator.ask("commit 2").startswith("Unavailable")
    assert asyncio.run(whole_units(SqliteStore.open(tmp_path / "store.db"))) == {1}


@pytest.mark.parametrize("fault", [FULL, READ_ONLY, FLUSHES])
def test_f42_a_store_that_cannot_be_opened_is_unavailable(tmp_path: Path, fault: str) -> None:
    """F-42: opening on a bad disk fails with the reason and harms nothing; later it opens."""
    disk = BadDisk(tmp_path)
    path = tmp_path / "store.db"
    disk.fail(fault)
    operator = Operator(path, environment=disk.environment)
    assert operator.heard().startswith("Unavailable: cannot open the store")
    assert operator.child.wait(20) == 1
    operator.kill()
    disk.recover()
    with Operator(path, environment=disk.environment) as operator:
        assert operator.ask("commit 1") == "2"


def test_a_slow_disk_is_shared_by_all_who_wait(tmp_path: Path) -> None:
    """D9: where a flush takes 3 ms, fifty callers together make at least 1,000 commits a second: in the time of the
    flushes that they need and of their own work, however busy the machine is."""
    disk = BadDisk(tmp_path, flush_s=0.003)
    with Operator(tmp_path / "store.db", environment=disk.environment) as operator:
        began_s = time.monotonic()
        operator.ask("commit 1000000")
        assert time.monotonic() - began_s >= 0.003
        before = disk.flushes
        work_s = float(operator.ask("walks 2000"))
        flushes = disk.flushes - before
        assert flushes >= 2_000 / sqlite_operator.IN_FLIGHT
        assert 2_000 / (work_s + flushes * 0.003) >= 1_000


def test_the_event_loop_waits_for_no_flush(tmp_path: Path) -> None:
    """D9: while an import, a checkpoint and commits each wait for a very slow disk, the event loop goes on."""
    disk = BadDisk(tmp_path, flush_s=0.6)
    with Operator(tmp_path / "store.db", environment=disk.environment) as operator:
        began_s = time.monotonic()
        stalled_s = float(operator.ask("stall 4000"))
        assert time.monotonic() - began_s >= 3.0
        assert stalled_s < 0.45
    assert (tmp_path / "store.db").stat().st_size > 1_000_000


@in_loop
async def test_f44_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """F-44: a downgrade is refused with both numbers, and the newer program still finds everything."""
    path = tmp_path / "store.db"
    await _filled(path)
    await (await open_sqlite(path)).close()
    before = path.read_bytes()
    with pytest.raises(Unavailable, match=f"schema {LATER.version} .* knows schema {LATER.version - 1}"):
        await SqliteStore.open(path)
    assert path.read_bytes() == before
    store = await open_sqlite(path)
    assert await store.count(Device) == 20
    await store.close()


@in_loop
async def test_what_is_no_store_is_not_opened(tmp_path: Path) -> None:
    """Damage, and databases of other programs, are told with the file's name and stay as they are."""
    await _filled(tmp_path / "store.db")
    good = (tmp_path / "store.db").read_bytes()
    for bad in (b"something else" * 100, b"\0" * 8192, good[: len(good) // 2]):
        (tmp_path / "bad.db").write_bytes(bad)
        with pytest.raises(Unavailable, match=r"bad\.db"):
            await SqliteStore.open(tmp_path / "bad.db")
        assert (tmp_path / "bad.db").read_bytes() == bad
    with sqlite3.connect(tmp_path / "foreign.db") as foreign:
        foreign.execute("CREATE TABLE recipes (name)")
    foreign.close()
    with pytest.raises(Unavailable, match=r"foreign\.db is no store"):
        await SqliteStore.open(tmp_path / "foreign.db")


@in_loop
async def test_a_folder_in_the_way_is_unavailable(tmp_path: Path) -> None:
    """A path that cannot be a file is told, without a traceback of SQLite's."""
    (tmp_path / "store.db").mkdir()
    with pytest.raises(Unavailable, match=r"store\.db"):
        await SqliteStore.open(tmp_path / "store.db")


@in_loop
async def test_f39_files_are_private(tmp_path: Path) -> None:
    """F-39: the database and the files that SQLite puts beside it are 0600, whatever the umask or a former mode."""
    path = tmp_path / "new" / "store.db"
    former = os.umask(0)
    try:
        store = await SqliteStore.open(path)
        await store.commit(walk_unit(1))
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
        await store.close()
    finally:
        os.umask(former)
    assert modes == dict.fromkeys(("store.db", "store.db-wal", "store.db-shm", "store.db.lock"), 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def _filled(path: Path) -> None:
    store = await SqliteStore.open(path)
    await asyncio.gather(*(store.commit(walk_unit(number)) for number in range(20)))
    await store.close()
