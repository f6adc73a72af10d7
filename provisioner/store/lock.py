"""One process at a time on a store directory (F-43): an flock, which the kernel drops with its process."""

import fcntl
import os
from pathlib import Path

from provisioner.model.errors import Unavailable
from provisioner.store.disk import open_private


class StoreLock:
    """Held from construction to ``release``. ``store.lock`` holds the pid of the holder, for people to read."""

    def __init__(self, path: Path) -> None:
        self._fd = open_private(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            if not isinstance(error, BlockingIOError):
                raise
            raise Unavailable(
                f"the store in {path.parent} is in use by process {holder}; "
                "administer it through the running service (the fleetgate CLI does), or stop that process first"
            ) from None
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            os.close(self._fd)
            raise

    def release(self) -> None:
        # The file stays: removing it would let two processes lock two files of the same name.
        os.close(self._fd)
