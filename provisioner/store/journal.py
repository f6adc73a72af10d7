"""``store.log``: one line a unit, ``CRC32 JSON\\n``, appended and fsynced group by group.

A line is good when its checksum is, so a torn tail shows itself. Offsets are absolute: bytes ever appended
since opening, whatever was cut off at the head since.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from provisioner.store.disk import Disk, forget, open_private, sync_directory, temporary

_CHECKSUM_CHARACTERS = 8
# More than a file system block, so that a full disk cannot hide behind a block that is allocated already.
_PROBE = b"#" * 8191 + b"\n"


@dataclass(frozen=True, slots=True)
class JournalText:
    """What a journal file holds: the JSON of its good lines, their length in bytes, and what follows them."""

    units: list[bytes]
    good_bytes: int
    tail: bytes


def read_journal(path: Path) -> JournalText:
    """The lines until the first bad one; an absent file is an empty journal."""
    data = path.read_bytes() if path.exists() else b""
    units: list[bytes] = []
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        unit = _checked(data[start:end])
        if unit is None:
            break
        units.append(unit)
        start = end + 1
    return JournalText(units, start, data[start:])


def has_good_line(tail: bytes) -> bool:
    """Whether whole units follow the first bad line: then it was more than a write that a crash cut short."""
    return any(_checked(line) is not None for line in tail.split(b"\n")[1:])


def _framed(unit: bytes) -> bytes:
    return b"%08x %s\n" % (crc32(unit), unit)


def _checked(line: bytes) -> bytes | None:
    unit = line[_CHECKSUM_CHARACTERS + 1 :]
    return unit if unit and line[: _CHECKSUM_CHARACTERS + 1] == b"%08x " % crc32(unit) else None


class Journal:
    """The open journal. Its methods block and raise OSError; one thread at a time may call them."""

    def __init__(self, path: Path, disk: Disk, good_bytes: int) -> None:
        self._path = path
        self._disk = disk
        self._fd = open_private(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self._start = 0
        self._end = good_bytes
        # What still has to succeed before anything may be appended again.
        self._torn = True
        self._renamed = True
        try:
            self._repair()
        except OSError:
            os.close(self._fd)
            raise

    @property
    def size_bytes(self) -> int:
        return self._end - self._start

    @property
    def end(self) -> int:
        return self._end

    def append(self, units: Sequence[bytes]) -> int:
        """Make the units durable and return the offset after them; on OSError none of them is kept."""
        data = b"".join(map(_framed, units))
        self._write(data)
        self._end += len(data)
        return self._end

    def probe(self) -> None:
        """Return when an append could succeed now: a real write of a line that no reader takes, then taken back."""
        self._write(_PROBE)
        self._torn = True
        self._repair()

    def drop_head(self, until: int) -> None:
        """Forget what lies before the offset; a crash leaves the old file or the new one, both good."""
        self._repair()
        fresh = temporary(self._path)
        fd = open_private(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        try:
            self._disk.write(fd, self._read(until))
            self._disk.fsync(fd)
            self._disk.replace(fresh, self._path)
        except OSError:
            os.close(fd)
            forget(fresh)
            raise
        os.close(self._fd)
        self._fd, self._start, self._renamed = fd, until, True
        self._repair()

    def close(self) -> None:
        os.close(self._fd)

    def _write(self, data: bytes) -> None:
        self._repair()
        self._torn = True
        try:
            self._disk.write(self._fd, data)
            self._disk.fsync(self._fd)
        except OSError:
            # When this fails too, the next append begins with it.
            with suppress(OSError):
                self._repair()
            raise
        self._torn = False

    def _repair(self) -> None:
        """Cut what a failed write left, so that a crash cannot bring back a unit that was reported lost."""
        if self._torn:
            self._disk.truncate(self._fd, self.size_bytes)
            self._disk.fsync(self._fd)
            self._torn = False
        if self._renamed:
            sync_directory(self._disk, self._path.parent)
            self._renamed = False

    def _read(self, offset: int) -> bytes:
        parts: list[bytes] = []
        position = offset - self._start
        while position < self.size_bytes and (part := os.pread(self._fd, self.size_bytes - position, position)):
            parts.append(part)
            position += len(part)
        return b"".join(parts)
