"""The audit log: the newest rows in memory, older ones in ``audit-archive.jsonl``. Seqs have no gaps."""

import asyncio
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import orjson

from provisioner.model import records
from provisioner.model.audit import AuditEvent
from provisioner.model.errors import Unavailable
from provisioner.store.disk import Disk, open_private, sync_directory
from provisioner.store.schema import to_json

_SCAN_BYTES = 1 << 16


class AuditArchive:
    """One row a line, in order of seq. Its methods block and raise OSError; one thread at a time may append."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._length, self.last_seq = _good_end(path)

    def append(self, events: Iterable[AuditEvent]) -> None:
        """Add the rows that are not in it yet, so that doing it again after a crash adds none twice."""
        new = [event for event in events if event.seq > self.last_seq]
        if not new:
            return
        data = b"".join(to_json(event) + b"\n" for event in new)
        fd = open_private(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            self._disk.truncate(fd, self._length)
            try:
                self._disk.write(fd, data)
                self._disk.fsync(fd)
            except OSError:
                with suppress(OSError):
                    self._disk.truncate(fd, self._length)
                raise
        finally:
            os.close(fd)
        if self._length == 0:
            sync_directory(self._disk, self._path.parent)
        self._length += len(data)
        self.last_seq = new[-1].seq

    def page(self, after: int, limit: int) -> list[AuditEvent]:
        """Up to ``limit`` rows with ``seq > after``, in order. Raises Unavailable where it is damaged."""
        found: list[AuditEvent] = []
        try:
            for line in self._lines(self._start_of(after)):
                row = orjson.loads(line)
                if row["seq"] > after:
                    found.append(records.load(AuditEvent, row))
                    if len(found) == limit:
                        break
        except (ValueError, TypeError, KeyError) as error:
            raise Unavailable(f"{self._path.name} is damaged after row {after} ({type(error).__name__})") from None
        return found

    def _start_of(self, after: int) -> int:
        """Offset of a line that is not later than the first row with ``seq > after``, found by halving."""
        low, high = 0, self._length
        while high - low > _SCAN_BYTES:
            middle = (low + high) // 2
            with self._path.open("rb") as file:
                file.seek(middle)
                start = middle + len(file.readline())
                line = file.readline() if start < high else b""
            if line and orjson.loads(line)["seq"] <= after:
                low = start
            else:
                high = middle
        return low

    def _lines(self, start: int) -> Iterator[bytes]:
        if start >= self._length:
            return
        with self._path.open("rb") as file:
            file.seek(start)
            position = start
            for line in file:
                position += len(line)
                if position > self._length:
                    return
                yield line


class AuditLog:
    """All rows, as the event loop sees them. ``rows`` in memory begin where the archive may end."""

    def __init__(self, archive: AuditArchive, rows: Sequence[AuditEvent], last_seq: int) -> None:
        self.archive = archive
        self._rows = list(rows)
        self.last_seq = last_seq

    @property
    def first_in_memory(self) -> int:
        return self.last_seq - len(self._rows) + 1

    def extend(self, rows: Sequence[AuditEvent]) -> None:
        if rows:
            self._rows.extend(rows)
            self.last_seq = rows[-1].seq

    def split(self, keep: int) -> tuple[list[AuditEvent], list[AuditEvent]]:
        """The rows in memory as (older ones, the newest ``keep``)."""
        cut = max(0, len(self._rows) - keep)
        return self._rows[:cut], self._rows[cut:]

    def forget_through(self, seq: int) -> None:
        """Drop rows that are archived."""
        del self._rows[: max(0, seq - self.first_in_memory + 1)]

    async def page(self, after: int, limit: int) -> list[AuditEvent]:
        """Rows with ``seq > after`` in order. Raises OSError or Unavailable when archived rows cannot be read."""
        found: list[AuditEvent] = []
        while len(found) < limit and after < self.last_seq:
            start = after + 1 - self.first_in_memory
            if start >= 0:
                return found + self._rows[start : start + limit - len(found)]
            older = await asyncio.to_thread(self.archive.page, after, limit - len(found))
            if not older:
                after = self.first_in_memory - 1  # the archive was taken away; what is left is still in order
                continue
            found += older
            after = older[-1].seq
        return found

    async def newest(self, after: int, limit: int) -> list[AuditEvent]:
        """The last ``limit`` rows with ``seq > after``, newest first."""
        rows = await self.page(max(after, self.last_seq - limit), limit)
        return rows[::-1]


def _good_end(path: Path) -> tuple[int, int]:
    """Offset after the last whole row, and its seq. What a crash left behind it is still in snapshot and journal."""
    if not path.exists():
        return 0, 0
    with path.open("rb") as file:
        end = _after_last_newline(file, file.seek(0, os.SEEK_END))
        while end > 0:
            start = _after_last_newline(file, end - 1)
            file.seek(start)
            with suppress(ValueError, TypeError, KeyError):
                return end, int(orjson.loads(file.read(end - start))["seq"])
            end = start
    return 0, 0


def _after_last_newline(file: BinaryIO, end: int) -> int:
    """Offset after the last newline before ``end``; 0 when there is none."""
    while end > 0:
        start = max(0, end - _SCAN_BYTES)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
