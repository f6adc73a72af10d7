"""Runs testssl.sh against a server on this host and reads what it found."""

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAM = "testssl"
# In rising order; what testssl says of itself (DEBUG, WARN, INFO) is no finding.
SEVERITIES = ("OK", "LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL")
# Said of this host's OpenSSL, and of a protocol that is no HTTP.
OF_ITSELF = frozenset({"engine_problem", "service", "scanTime", "optimal_proto", "clientsimulation"})
_VERSION = re.compile(r"testssl(?:\.sh)?\s+(\d+\.\d+\.\d+)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Finding:
    """severity: one of ``SEVERITIES``, or INFO, WARN or DEBUG."""

    id: str
    severity: str
    finding: str

    @property
    def is_serious(self) -> bool:
        """MEDIUM or worse."""
        return self.severity in SEVERITIES[SEVERITIES.index("MEDIUM") :]


def version() -> str:
    """Raises FileNotFoundError when it is not installed; scripts/system-packages says how."""
    done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, timeout=30, check=False)
    found = _VERSION.search(_COLOURS.sub("", done.stdout))
    return found[1] if found else "of an unknown version"


def findings(port: int, authority: Path, checks: Sequence[str], within_s: float) -> list[Finding]:
    """Of the server on that port of the loopback interface, whose certificate for ``localhost`` the authority signed.

    checks: options of testssl, such as ``--protocols``. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "findings.json"
        command = [PROGRAM, "--quiet", "--warnings", "off", "--color", "0", "--ip", "127.0.0.1", "--nodns", "none"]
        command += ["--add-ca", str(authority), *checks, "--jsonfile", str(path), f"localhost:{port}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=within_s, check=False)
        if not path.exists():
            raise RuntimeError(f"testssl did nothing: {_COLOURS.sub('', done.stdout)[-500:]}")
        return [Finding(each["id"], each["severity"], each["finding"]) for each in json.loads(path.read_text())]
