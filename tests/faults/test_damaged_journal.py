"""The journal of the default store after a crash in the midst of a line, or with a line that has gone bad."""

import shutil
import stat
from pathlib import Path

import pytest

from provisioner.store.tinydb_store import TinyDbStore
from tests.contracts.store_contract import in_loop
from tests.contracts.store_values import walk_unit
from tests.faults.disks import RecordingDisk
from tests.faults.whole_units import whole_units


@in_loop
async def test_a_torn_tail_is_cut(tmp_path: Path) -> None:
    """F-42: wherever a crash cuts the last line, the units before it stay and the store writes on behind them."""
    store = await TinyDbStore.open(tmp_path / "store")
    await store.commit(walk_unit(1))
    good = (tmp_path / "store" / "store.log").stat().st_size
    await store.commit(walk_unit(2))
    whole = (tmp_path / "store" / "store.log").read_bytes()
    shutil.copytree(tmp_path / "store", tmp_path / "torn")
    await store.close()
    for length in [*range(good, len(whole), 97), len(whole) - 1]:
        (tmp_path / "torn" / "store.log").write_bytes(whole[:length])
        shutil.copytree(tmp_path / "torn", tmp_path / str(length))
        torn = await TinyDbStore.open(tmp_path / str(length))
        assert (tmp_path / str(length) / "store.log").stat().st_size == good
        assert await torn.commit(walk_unit(3)) == 4
        await torn.close()
        assert await whole_units(TinyDbStore.open(tmp_path / str(length))) == {1, 3}


@in_loop
async def test_damage_inside_the_journal_is_kept_for_people(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whole units behind a bad line are not thrown away: they are set aside, privately, and reported."""
    store = await TinyDbStore.open(tmp_path / "a")
    for number in range(3):
        await store.commit(walk_unit(number))
    lines = (tmp_path / "a" / "store.log").read_bytes().splitlines(keepends=True)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    await store.close()
    lines[1] = lines[1].replace(b"acme", b"acne", 1)
    (tmp_path / "b" / "store.log").write_bytes(b"".join(lines))
    assert await whole_units(TinyDbStore.open(tmp_path / "b")) == {0}
    kept = tmp_path / "b" / "store.log.damaged-after-1"
    assert kept.read_bytes() == b"".join(lines[1:])
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert kept.name in caplog.text


@in_loop
async def test_what_is_kept_for_people_is_on_the_disk_before_the_journal_is_cut(tmp_path: Path) -> None:
    """A power cut in between leaves the units in one of the two files, never in none."""
    store = await TinyDbStore.open(tmp_path / "a")
    for number in range(3):
        await store.commit(walk_unit(number))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    await store.close()
    journal = tmp_path / "b" / "store.log"
    journal.write_bytes(journal.read_bytes().replace(b"acme", b"acne", 1))
    disk = RecordingDisk()
    await (await TinyDbStore.open(tmp_path / "b", disk=disk)).close()
    kept = "store.log.damaged-after-0"
    assert disk.calls[:4] == [("write", kept), ("fsync", kept), ("fsync", "b"), ("truncate", "store.log")]
