"""A disk that is slow, full, read-only or broken for one child process: ``bad_disk.c`` stands between the two."""

import os
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("bad_disk.c")
FLUSHES, FULL, READ_ONLY = "flushes fail", "writes find no space", "read-only"  # the first letter is what counts


class BadDisk:
    """Good until it is made bad. folder: for the compiled shim."""

    def __init__(self, folder: Path, *, flush_s: float = 0.0) -> None:
        self._library = folder / "bad_disk.so"
        self._fault = folder / "fault"
        self._flushes = folder / "flushes"
        self._flush_s = flush_s
        command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)

    @property
    def environment(self) -> dict[str, str]:
        """For the child."""
        return {
            **os.environ,
            "LD_PRELOAD": str(self._library),
            "BAD_DISK_FAULT": str(self._fault),
            "BAD_DISK_FLUSHES": str(self._flushes),
            "BAD_DISK_FLUSH_US": str(int(self._flush_s * 1e6)),
        }

    @property
    def flushes(self) -> int:
        """How many there were, failed ones among them."""
        return self._flushes.stat().st_size if self._flushes.exists() else 0

    def fail(self, how: str) -> None:
        self._fault.write_text({FLUSHES: "f", FULL: "w", READ_ONLY: "r"}[how])

    def recover(self) -> None:
        self._fault.unlink()
