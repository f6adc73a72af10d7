"""The few calls by which a store changes its disk, in one object, so that a slow or a failing disk can stand in."""

import os
from contextlib import suppress
from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700


class Disk:
    """The disk of this host. Every method raises OSError."""

    def write(self, fd: int, data: bytes) -> None:
        """All of ``data``, at the position of the descriptor."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def truncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def replace(self, source: Path, target: Path) -> None:
        source.replace(target)


def open_private(path: Path, flags: int) -> int:
    """A descriptor of a file that only its owner may read, whatever the umask or the file's age."""
    fd = os.open(path, flags | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        os.fchmod(fd, PRIVATE_FILE)
    except OSError:
        os.close(fd)
        raise
    return fd


def make_private_directory(directory: Path) -> None:
    directory.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    directory.chmod(PRIVATE_DIRECTORY)


def sync_directory(disk: Disk, directory: Path) -> None:
    """Without it a rename or a new file may be gone after a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        disk.fsync(fd)
    finally:
        os.close(fd)


def temporary(path: Path) -> Path:
    """Where a file is written before it takes the name ``path``; a crash may leave it behind."""
    return path.with_name(path.name + ".tmp")


def forget(path: Path) -> None:
    """Remove a file that nobody needs; that it cannot be removed is no failure."""
    with suppress(OSError):
        path.unlink()
