"""Disks that fail on demand."""

import errno
import os
from pathlib import Path

from provisioner.store.disk import Disk


class RecordingDisk(Disk):
    """Keeps the order of what was done: (call, name of the file or of the directory)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def write(self, fd: int, data: bytes) -> None:
        self.calls.append(("write", _name(fd)))
        super().write(fd, data)

    def fsync(self, fd: int) -> None:
        self.calls.append(("fsync", _name(fd)))
        super().fsync(fd)

    def truncate(self, fd: int, length: int) -> None:
        self.calls.append(("truncate", _name(fd)))
        super().truncate(fd, length)

    def replace(self, source: Path, target: Path) -> None:
        self.calls.append(("replace", target.name))
        super().replace(source, target)


def _name(fd: int) -> str:
    return Path(f"/proc/self/fd/{fd}").readlink().name


class FailingDisk(Disk):
    """``broken`` names the calls that fail now (write, fsync, truncate, replace); ``code`` is their errno."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.code = errno.EIO

    def write(self, fd: int, data: bytes) -> None:
        if "write" in self.broken:
            super().write(fd, data[: len(data) // 2])  # a full disk takes what still fits
        self._check("write")
        super().write(fd, data)

    def fsync(self, fd: int) -> None:
        self._check("fsync")
        super().fsync(fd)

    def truncate(self, fd: int, length: int) -> None:
        self._check("truncate")
        super().truncate(fd, length)

    def replace(self, source: Path, target: Path) -> None:
        self._check("replace")
        super().replace(source, target)

    def _check(self, call: str) -> None:
        if call in self.broken:
            raise OSError(self.code, os.strerror(self.code))
