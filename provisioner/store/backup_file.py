"""A backup: one private file of text, the same for every kind of store, that says itself whether it is whole.

The first line is ``fleetgate-backup`` and a header as JSON, then one line a record, ``KIND JSON``, in the order of
``whole.parts``; the last one is ``end`` and, by kind, count and digest. It takes its name once it is finished.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

import orjson

from provisioner.model import records
from provisioner.model.audit import AuditEvent
from provisioner.model.errors import FleetgateError, InvalidInput, Problem, Unavailable
from provisioner.model.ports import Noun
from provisioner.model.records import Row
from provisioner.store.disk import Disk, forget, open_private, sync_directory
from provisioner.store.schema import SCHEMA, Rows, Schema, to_json
from provisioner.store.whole import Part, Summary, Tally

P = ParamSpec("P")
T = TypeVar("T")

MAGIC, END = b"fleetgate-backup", b"end"
TOGETHER = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """epoch: of the store that the backup is of. audit_seq: of the newest audit row in it."""

    made_at: datetime
    epoch: int
    audit_seq: int
    schema: int = SCHEMA.version

    def __post_init__(self) -> None:
        if not all(type(number) is int and number >= 0 for number in (self.epoch, self.audit_seq, self.schema)):
            raise ValueError("epoch, audit_seq and schema are numbers")


async def write_backup(
    path: Path, header: Header, stream: AsyncIterator[Part], disk: Disk | None = None
) -> Mapping[str, Summary]:
    """What was written. Raises InvalidInput when ``path`` exists already, Unavailable on a failing disk."""
    disk = disk or Disk()
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        fd = _begin(path, fresh)  # here, so that nobody who gives up meanwhile leaves it open
    except OSError as error:
        raise Unavailable(f"the backup {path} could not be written: {error.strerror}") from None
    try:
        tally = Tally()
        await _in_thread(disk.write, fd, b"%s %s\n" % (MAGIC, to_json(header)))
        async for part in stream:
            lines, kind = part.lines(), part.kind.encode()
            tally.add(part.kind, lines)
            await _in_thread(disk.write, fd, b"".join(b"%s %s\n" % (kind, line) for line in lines))
        summaries = tally.summaries()
        await _in_thread(_finish, disk, fd, summaries)
        await _in_thread(_name, disk, fresh, path)
    except BaseException as error:
        forget(fresh)
        if isinstance(error, OSError):
            raise Unavailable(f"the backup {path} could not be written: {error.strerror}") from None
        raise
    finally:
        os.close(fd)
    return summaries


async def _in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Whoever gives up waits until the thread is done with the descriptor: once closed, its number may be another's."""
    work = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _begin(path: Path, fresh: Path) -> int:
    """A file that nobody else has open or put there: the folder may be one that everybody writes to."""
    _check_free(path)
    return open_private(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)


def _finish(disk: Disk, fd: int, summaries: Mapping[str, Summary]) -> None:
    end = {kind: asdict(summary) for kind, summary in summaries.items()}
    disk.write(fd, b"%s %s\n" % (END, to_json(end)))
    disk.fsync(fd)


def _name(disk: Disk, fresh: Path, path: Path) -> None:
    _check_free(path)
    disk.replace(fresh, path)
    sync_directory(disk, path.parent)


def _check_free(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise InvalidInput([Problem("target", f"{path} must not exist: a backup overwrites nothing", "a file")])


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was read from its first to its last line once, and is whole."""

    path: Path
    header: Header
    summaries: Mapping[str, Summary]
    schema: Schema

    @classmethod
    async def open(cls, path: Path, schema: Schema = SCHEMA) -> "Backup":
        """Raises InvalidInput when it is no backup, cut short or damaged; Unavailable when of a newer schema."""
        try:
            return await asyncio.to_thread(cls._checked, path, schema)
        except OSError as error:
            raise InvalidInput([Problem(str(path), f"must be a readable file: {error.strerror}", "none")]) from None

    @classmethod
    def _checked(cls, path: Path, schema: Schema) -> "Backup":
        tally, header, end = Tally(), None, None
        for number, (word, text) in enumerate(_lines(path), 1):
            if (number == 1) != (word == MAGIC.decode()) or end is not None:
                raise _damaged(path, number)
            if header is None:
                header = _header(path, text)
                schema.check(header.schema)
            elif word == END.decode():
                end = _end(path, number, text)
            else:
                tally.add(word, [text])
        summaries = tally.summaries()
        if header is None or end != summaries:
            raise InvalidInput([Problem(str(path), "must be a whole backup: its end is missing or belies it", "less")])
        return cls(path, header, summaries, schema)

    async def parts(self) -> AsyncIterator[Part]:
        """All of it, in today's form."""
        batches = self._migrated() if self.header.schema < self.schema.version else self._batches()
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            yield batch

    def _batches(self) -> Iterator[Part]:
        kind, rows = "", list[Row]()
        for number, (word, text) in enumerate(_lines(self.path), 1):
            if rows and (word != kind or len(rows) == TOGETHER):
                yield self._part(kind, rows)
                rows = []
            if number > 1 and word != END.decode():
                kind = word
                rows.append(orjson.loads(text))

    def _migrated(self) -> Iterator[Part]:
        rows: Rows = {kind: [] for kind in (*(noun.kind for noun in self.schema.nouns), AuditEvent.kind)}
        for word, text in _lines(self.path):
            if word not in (MAGIC.decode(), END.decode()):
                rows.setdefault(word, []).append(orjson.loads(text))
        for kind, table in self.schema.migrated(rows, self.header.schema).items():
            for start in range(0, len(table), TOGETHER):
                yield self._part(kind, table[start : start + TOGETHER])

    def _part(self, kind: str, rows: list[Row]) -> Part:
        classes: dict[str, type[Noun]] = {noun.kind: noun for noun in self.schema.nouns}
        try:
            if kind == AuditEvent.kind:
                return Part(kind, audit=[records.load(AuditEvent, row) for row in rows])
            return Part(kind, nouns=[records.load(classes[kind], row) for row in rows])
        except (TypeError, ValueError, KeyError) as error:
            why = str(error) if isinstance(error, FleetgateError) else type(error).__name__
            raise InvalidInput([Problem(str(self.path), f"must hold whole {kind} records: {why}", "others")]) from None


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The first word of each line, and what follows it."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            word, _, text = line.partition(b" ")
            if not text.endswith(b"\n") or not word.isascii():
                raise _damaged(path, number)
            yield word.decode(), text[:-1]


def _header(path: Path, text: bytes) -> Header:
    try:
        return records.load(Header, orjson.loads(text))
    except (TypeError, ValueError):
        raise _damaged(path, 1) from None


def _end(path: Path, number: int, text: bytes) -> Mapping[str, Summary]:
    try:
        return {kind: Summary(**summary) for kind, summary in orjson.loads(text).items()}
    except (TypeError, ValueError, AttributeError):
        raise _damaged(path, number) from None


def _damaged(path: Path, number: int) -> InvalidInput:
    return InvalidInput([Problem(str(path), f"must be a backup: line {number} is none of one", "something else")])
