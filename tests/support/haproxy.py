"""A real HAProxy in front of gates, in a folder of its own."""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import listens

START_S_MAX = 10.0
# Debian installs the server where an ordinary user's PATH does not lead.
PROGRAM = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin") or "haproxy"
_TIMES = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 330s
    timeout server 330s
"""


class Haproxy:
    """configuration: the whole file. ports: of its frontends, which are waited for. name: of its files."""

    def __init__(self, folder: Path, configuration: str, ports: Sequence[int], name: str = "haproxy") -> None:
        self.file = folder / f"{name}.cfg"
        self.file.write_text(configuration)
        self._ports = ports
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, "-db", "-f", str(self.file)], stdout=log, stderr=log)
        until_s = time.monotonic() + START_S_MAX
        for port in self._ports:
            while not listens(port):
                assert self._process.poll() is None, f"haproxy ended: {self._log.read_text()[-2000:]}"
                assert time.monotonic() < until_s, "haproxy does not listen"
                time.sleep(0.01)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_S_MAX)


def passing(servers: Mapping[int, Sequence[tuple[int, str]]]) -> str:
    """A configuration: port of a frontend -> (port of a server, its options), for each of its servers."""
    parts = [_TIMES]
    for port, behind in servers.items():
        parts.append(f"listen on-{port}\n    bind 127.0.0.1:{port}\n")
        parts += [f"    server at-{to} 127.0.0.1:{to} {options}\n" for to, options in behind]
    return "".join(parts)
