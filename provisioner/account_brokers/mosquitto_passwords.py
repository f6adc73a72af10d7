"""What mosquitto reads its users from: digests in its own form, files that are replaced as a whole, and the sign to
read them again."""

import base64
import contextlib
import hashlib
import hmac
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from provisioner.model.errors import Unavailable
from provisioner.model.secret import Secret

# mosquitto's own figure, 0.07 ms: enough for a secret of 128 bits. A broker of one thread computes it again for every
# connection at every reload, so that the figure for a human-chosen password is a compromise (6.6 ms).
ITERATIONS_GENERATED = 101
ITERATIONS_HUMAN = 10_000
SALT_BYTES = 12
FILE_MODE = 0o640
COMMAND_S_MAX = 10.0


def password_digest(password: Secret, *, iterations: int = ITERATIONS_GENERATED) -> str:
    """What stands behind ``<username>:`` in a password file: ``$7$``, PBKDF2 with SHA-512, a salt of its own."""
    salt = secrets.token_bytes(SALT_BYTES)
    return _form(iterations, salt, _derived(password, iterations, salt))


def digest_matches(digest: str, password: Secret) -> bool:
    """Whether the digest was made from this password; False for a digest of another form too."""
    try:
        _, kind, iterations, salt, _ = digest.split("$")
        count, salt_bytes = int(iterations), base64.b64decode(salt, validate=True)
        expected = _form(count, salt_bytes, _derived(password, count, salt_bytes))
    except ValueError:
        return False
    return kind == "7" and hmac.compare_digest(expected, digest)


def replace_file(path: Path, text: str, *, mode: int = FILE_MODE, group: str | None = None) -> None:
    """All or nothing: who opens the path reads the former text or this one. Raises OSError or LookupError; then
    nothing changed.

    group: who may read it besides us; None takes our own, or that of a folder with the setgid bit."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            if group is not None:
                shutil.chown(name, group=group)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """How mosquitto is told to read its files again: by its pid file, or by a command (``systemctl reload ...``)."""

    pid_file: Path | None = None
    command: Sequence[str] = ()

    def __post_init__(self) -> None:
        if (self.pid_file is None) == (not self.command):
            raise ValueError("exactly one of pid_file and command")

    def __call__(self) -> None:
        """Blocks until the sign is given, not until it is followed. Raises Unavailable."""
        if self.pid_file is not None:
            _hang_up(self.pid_file)
        else:
            _run(self.command)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginFiles:
    """The two files of one listener, written together and read together."""

    password_file: Path
    acl_file: Path
    reload: Reload
    group: str | None = None

    def __call__(self, passwords: str, access: str) -> None:
        """Blocks. Raises Unavailable; when only the sign failed, mosquitto reads the files at its next start."""
        try:
            replace_file(self.acl_file, access, group=self.group)
            replace_file(self.password_file, passwords, group=self.group)
        except (OSError, LookupError) as error:
            raise Unavailable(f"mosquitto's files cannot be written: {type(error).__name__}") from None
        self.reload()


def _derived(password: Secret, iterations: int, salt: bytes) -> bytes:
    return hashlib.pbkdf2_hmac("sha512", password.reveal().encode(), salt, iterations)


def _form(iterations: int, salt: bytes, derived: bytes) -> str:
    return f"$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(derived).decode()}"


def _hang_up(pid_file: Path) -> None:
    try:
        pid = int(pid_file.read_text("ascii"))
        _check_takes_sign(pid)
        os.kill(pid, signal.SIGHUP)
    except (OSError, ValueError) as error:
        raise Unavailable(f"mosquitto cannot be told by its pid file: {type(error).__name__}") from None


def _check_takes_sign(pid: int) -> None:
    """A pid file may outlive its process, and SIGHUP ends most others; and mosquitto itself, as long as it starts: it
    writes the file a while before it asks for the signal. Raises ValueError."""
    process = Path(f"/proc/{pid}")
    if pid <= 1:
        raise ValueError("not mosquitto")
    if not Path("/proc/self").exists():
        return
    if (process / "comm").read_text().strip() != "mosquitto":
        raise ValueError("not mosquitto")
    asked_for = re.search(r"^SigCgt:\s*([0-9a-f]+)$", (process / "status").read_text(), re.M)
    if asked_for is None or not int(asked_for[1], 16) & 1 << signal.SIGHUP - 1:
        raise ValueError("mosquitto has not started yet")


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(list(command), check=True, capture_output=True, timeout=COMMAND_S_MAX)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"the reload command failed: {type(error).__name__}") from None
