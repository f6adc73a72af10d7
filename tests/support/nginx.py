"""A real nginx in front of gates, as docs/many-gates.md sets it up, in a folder of its own."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

START_S_MAX = 10.0
# Debian installs the server where an ordinary user's PATH does not lead.
PROGRAM = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"


class Nginx:
    """configuration: the whole file. name: of its files."""

    def __init__(self, folder: Path, configuration: str, name: str = "nginx") -> None:
        self._file, self.log, self._pid = (folder / f"{name}.{kind}" for kind in ("conf", "log", "pid"))
        self._file.write_text(configuration)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        directives = f"daemon off; pid {self._pid};"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "-e", "stderr", "-c", self._file, "-g", directives], stdout=log, stderr=log
            )
        until_s = time.monotonic() + START_S_MAX
        # It writes the file once it listens; to look at its ports would be a connection to a gate.
        while not (self._pid.exists() and self._pid.read_text()):
            assert self._process.poll() is None, f"nginx ended: {self.log.read_text()[-2000:]}"
            assert time.monotonic() < until_s, "nginx does not listen"
            time.sleep(0.01)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.terminate()  # its workers would outlive a kill
            self._process.wait(START_S_MAX)
