"""The backup file: whole or refused, private, the same for every kind of store, and readable by later programs."""

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provisioner.model.effect import Effect
from provisioner.model.errors import Conflict, InvalidInput, LimitReached, Unavailable
from provisioner.model.ports import Put, Unit
from provisioner.model.request import ProvisionRequest
from provisioner.services import copying
from provisioner.services.copying import Place
from provisioner.store.backup_file import Backup, Header, write_backup
from provisioner.store.disk import Disk
from provisioner.store.schema import Rows, Schema
from provisioner.store.tinydb_store import TinyDbStore
from provisioner.store.whole import parts, tallied
from tests.contracts.store_stage import in_loop
from tests.contracts.store_values import NOON, all_audit, event, one_of_each, provision_user, request, walk_unit
from tests.support.stores import KINDS, empty_site

ADA = "admin:ada"
WALKS = 600  # more than one part of each kind


async def made(folder: Path, walks: int = 2) -> Path:
    """A backup of a small store of the default kind."""
    store = await TinyDbStore.open(folder / "source")
    for number in range(walks):
        await store.commit(walk_unit(1_000 + number))
    await copying.backup(ADA, store, folder / "backup", NOON)
    await store.close()
    return folder / "backup"


@pytest.mark.parametrize(("kind", "other"), [("tinydb", "sqlite"), ("sqlite", "postgresql"), ("postgresql", "tinydb")])
@in_loop
async def test_a_backup_of_one_kind_fills_a_store_of_another(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str, other: str
) -> None:
    """D9, F-40: the file knows no kind of store; records, versions and audit rows come back as they were."""
    source, target = empty_site(kind, tmp_path / "source", request), empty_site(other, tmp_path / "target", request)
    store = await source.open()
    await asyncio.gather(*(store.commit(walk_unit(1_000 + number)) for number in range(WALKS)))
    await store.commit(Unit([Put(noun) for noun in one_of_each()], [event("each")]))
    async with store.moment() as moment:
        before = dict(await tallied(parts(store, moment)))
    assert dict(await copying.backup(ADA, store, tmp_path / "backup", NOON)) == before
    await store.close()
    store = await target.open()
    found = await copying.restore(await Backup.open(tmp_path / "backup"), Place(store=store, name="t"), NOON)
    assert dict(found.summaries) == before
    assert found.epoch == 3, "one later than that of the backup"
    assert found.open_requests == WALKS + 2
    assert [row.action for row in (await all_audit(store))[-2:]] == ["request.create", "store.restored"]
    assert await store.count(Effect) == WALKS + 1
    await store.close()


@pytest.mark.parametrize("kind", KINDS)
@in_loop
async def test_a_backup_is_of_one_moment(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    """F-40: while devices are granted a backup holds whole units, and the audit rows of exactly those."""
    store = await empty_site(kind, tmp_path / "source", request).open()
    await store.commit(walk_unit(1))
    commits = [asyncio.create_task(store.commit(walk_unit(number))) for number in range(2, 60)]
    await asyncio.sleep(0)
    summaries = await copying.backup(ADA, store, tmp_path / "backup", NOON)
    await asyncio.gather(*commits)
    await store.close()
    counts = {summaries[noun].count for noun in ("request", "device", "account_user", "effect")}
    assert len(counts) == 1
    assert summaries["audit"].count == 2 * counts.pop()
    assert (await Backup.open(tmp_path / "backup")).summaries == summaries


def cut(text: bytes) -> bytes:
    return b"".join(text.splitlines(keepends=True)[:-1])


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda text: b"",
    "no backup": lambda text: b"%PDF-1.4\n",
    "no end": cut,
    "cut in a line": lambda text: text[:-40],
    "a record changed": lambda text: text.replace(b'"gw1000"', b'"gw1009"'),
    "a record gone": lambda text: b"".join(
        line for line in text.splitlines(keepends=True) if not line.startswith(b"effect")
    ),
    "two in one": lambda text: text + text,
    "no JSON": lambda text: text.replace(b'fleetgate-backup {"', b"fleetgate-backup {", 1),
    "no JSON at its end": lambda text: cut(text) + b"end {\n",
    "no summaries at its end": lambda text: cut(text) + b'end {"request":[1]}\n',
    "an epoch that is no number": lambda text: text.replace(b'"epoch":1', b'"epoch":"1"', 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
@in_loop
async def test_a_damaged_backup_is_refused(tmp_path: Path, damage: str) -> None:
    """F-40: what is not whole is told before anything is written, by the file's name."""
    path = await made(tmp_path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(InvalidInput, match="backup"):
        await Backup.open(path)


@in_loop
async def test_a_record_that_no_program_would_write_is_refused(tmp_path: Path) -> None:
    """F-40: a backup that was made up, end and all, still holds valid records or nothing; the store is left marked."""
    source = await TinyDbStore.open(tmp_path / "source")
    await source.commit(Unit([Put(request(1))]))
    async with source.moment() as moment:
        lines = [part async for part in parts(source, moment)]
    await source.close()

    class Forged:
        kind = "request"

        def lines(self) -> list[bytes]:
            return [line.replace(b'"gw1"', b'"a/b"') for part in lines for line in part.lines()]

    async def stream() -> Any:
        yield Forged()

    await write_backup(tmp_path / "backup", Header(made_at=NOON, epoch=1, audit_seq=0), stream())
    store = await TinyDbStore.open(tmp_path / "target")
    with pytest.raises(InvalidInput, match="client_id"):
        await copying.restore(await Backup.open(tmp_path / "backup"), Place(store=store, name="t"), NOON)
    with pytest.raises(Conflict, match="was not finished"):
        await copying.usable_epoch(store)
    await store.close()


def _renamed(rows: Rows) -> Rows:
    return rows | {"provision_user": [{**row, "id": row["id"] + "-v2"} for row in rows["provision_user"]]}


@in_loop
async def test_f_44_an_old_backup_is_migrated_and_a_newer_one_refused(tmp_path: Path) -> None:
    """F-44: a backup of an older schema passes the migrations; one of a newer schema is refused with both numbers."""
    store = await TinyDbStore.open(tmp_path / "source")
    await store.commit(Unit([Put(provision_user("old"))], [event("a")]))
    await copying.backup(ADA, store, tmp_path / "backup", NOON)
    await store.close()
    schema = Schema(2, migrations={1: _renamed})
    backup = await Backup.open(tmp_path / "backup", schema)
    store = await TinyDbStore.open(tmp_path / "target", schema=schema)
    await copying.restore(backup, Place(store=store, name="t"), NOON)
    assert [user.id for user in (await store.page(type(provision_user()))).items] == ["old-v2"]
    assert [row.subject for row in await all_audit(store)] == ["a", "backup"]
    await store.close()
    text = (tmp_path / "backup").read_bytes()
    (tmp_path / "newer").write_bytes(text.replace(b'"schema":1', b'"schema":2'))
    with pytest.raises(Unavailable, match=r"schema 2 .* knows schema 1"):
        await Backup.open(tmp_path / "newer")


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


class FullDisk(Disk):
    def write(self, fd: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@in_loop
async def test_f_42_a_full_disk_leaves_no_half_backup(tmp_path: Path) -> None:
    """F-42: the command says so, nothing has the name of a backup, and the next one succeeds."""
    store = await TinyDbStore.open(tmp_path / "source")
    header = Header(made_at=NOON, epoch=1, audit_seq=0)
    async with store.moment() as moment:
        with pytest.raises(Unavailable, match="No space left"):
            await write_backup(tmp_path / "backup", header, parts(store, moment), FullDisk())
        with pytest.raises(Unavailable, match="could not be written"):
            await write_backup(tmp_path / "no folder" / "backup", header, parts(store, moment))
        assert names(tmp_path) == ["source"]
        await write_backup(tmp_path / "backup", header, parts(store, moment))
    assert (await Backup.open(tmp_path / "backup")).header == header
    await store.close()


class StuckDisk(Disk):
    """Its writes begin, and end when they are let."""

    def __init__(self) -> None:
        self.began, self.goes_on = threading.Event(), threading.Event()
        self.written_to: list[int] = []

    def write(self, fd: int, data: bytes) -> None:
        self.began.set()
        assert self.goes_on.wait(10)
        self.written_to.append(os.fstat(fd).st_ino)


def inode_of_the_unfinished(folder: Path) -> int:
    (fresh,) = folder.glob(".backup.*.tmp")
    return fresh.stat().st_ino


@in_loop
async def test_f_39_a_backup_that_is_given_up_writes_to_nothing_else(tmp_path: Path) -> None:
    """F-39: its descriptor is closed once nothing is written to it any more, for its number may soon be a device's."""
    store, disk = await TinyDbStore.open(tmp_path / "source"), StuckDisk()
    async with store.moment() as moment:
        header = Header(made_at=NOON, epoch=1, audit_seq=0)
        writing = asyncio.ensure_future(write_backup(tmp_path / "backup", header, parts(store, moment), disk))
        assert await asyncio.to_thread(disk.began.wait, 10)
        inode = inode_of_the_unfinished(tmp_path)
        writing.cancel()
        done, _ = await asyncio.wait([writing], timeout=0.05)
        disk.goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await writing
    assert not done
    assert disk.written_to == [inode]
    assert names(tmp_path) == ["source"]
    await store.close()


@in_loop
async def test_a_backup_is_private_and_overwrites_nothing(tmp_path: Path) -> None:
    """F-39: 0600 whatever the umask; a file, or a link, that is there already stays as it is."""
    umask = os.umask(0)
    try:
        path = await made(tmp_path)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(names(tmp_path)) == ["backup", "source"]
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    store = await TinyDbStore.open(tmp_path / "source")
    for taken in (path, tmp_path / "link"):
        with pytest.raises(InvalidInput, match="overwrites nothing"):
            await copying.backup(ADA, store, taken, NOON)
    await store.close()


@in_loop
async def test_a_backup_that_does_not_fit_says_so(tmp_path: Path) -> None:
    """D9: more requests than the default store takes are refused by name, and the store is not used by mistake."""
    path = await made(tmp_path, 11)
    store = await TinyDbStore.open(tmp_path / "target", requests_max=10)
    with pytest.raises(LimitReached, match="at most 10 request records"):
        await copying.restore(await Backup.open(path), Place(store=store, name="t"), NOON)
    assert await store.count(ProvisionRequest) == 0
    with pytest.raises(Conflict, match="was not finished"):
        await copying.usable_epoch(store)
    await store.close()
