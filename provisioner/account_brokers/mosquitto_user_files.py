"""The files that a mosquitto on this host reads its users from, and the record that they are rendered from.

`passwords` and `acl` are of the devices' listener. `control-passwords` and `control-acl` are of the listener that only
this service uses. `users.jsonl` is ours alone: who each user is, and the digest of one that is disabled just now.
"""

import json
import os
import secrets
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from provisioner.account_brokers.mosquitto_log import NOTICES
from provisioner.account_brokers.mosquitto_passwords import password_digest, replace_file
from provisioner.model.errors import Unavailable
from provisioner.model.secret import Secret
from provisioner.model.topics import DeviceTopics

RECORDS, PASSWORDS, ACL = "users.jsonl", "passwords", "acl"
CONTROL_PASSWORDS, CONTROL_ACL = "control-passwords", "control-acl"
MARKS = "fleetgate/read"
OURS_ONLY, WITH_GROUP = 0o600, 0o640


@dataclass(frozen=True, slots=True)
class KnownUser:
    """digest: of the password, as mosquitto keeps it."""

    account: str
    username: str
    client_id: str
    digest: str
    enabled: bool = True

    @property
    def is_home(self) -> bool:
        """Whether the user's name is ``<account>/<client id>``, so that the patterns say what it may."""
        return self.username == f"{self.account}/{self.client_id}"


class _Lines:
    """What stands of a user in the files, made once."""

    __slots__ = ("access", "password", "record")

    def __init__(self, user: KnownUser, control_prefix: str) -> None:
        home = DeviceTopics(user.account, user.client_id, control_prefix).home
        self.record = json.dumps([user.account, user.username, user.client_id, user.digest, user.enabled]) + "\n"
        self.password = f"{user.username}:{user.digest}\n"
        self.access = "" if user.is_home else _section(user.username, home, control_prefix)


def _section(username: str, home: str, control_prefix: str) -> str:
    """What a user of another name may. The patterns are for it too: they would give it an account of its name."""
    below = (f"{home}/#", f"{control_prefix}/{home}/#")
    patterned = (f"{username}/#", f"{control_prefix}/{username}/#")
    lines = [f"user {username}", *(f"topic deny {each}" for each in patterned)]
    return "\n".join((*lines, *(f"topic readwrite {each}" for each in below), ""))


class UserFiles:
    """Reads and writes them; blocking. group: who may read what mosquitto reads, None for nobody but us."""

    def __init__(self, folder: Path, control_prefix: str = "$EDC", group: str | None = None) -> None:
        self._folder, self._control_prefix, self._group = folder, control_prefix, group
        self._users: dict[str, KnownUser] = {}
        self._lines: dict[str, _Lines] = {}
        self._sections = 0

    @property
    def users(self) -> Mapping[str, KnownUser]:
        """By username, as they will be written next."""
        return self._users

    @property
    def sections(self) -> int:
        """How many users have a section of their own in the access list, which mosquitto searches from its start."""
        return self._sections

    def put(self, user: KnownUser) -> None:
        if user.username in self._users:
            self.remove(user.username)
        self._lines[user.username] = _Lines(user, self._control_prefix)
        self._users[user.username] = user
        self._sections += not user.is_home

    def remove(self, username: str) -> None:
        self._sections -= not self._users[username].is_home
        del self._users[username], self._lines[username]

    def load(self) -> None:
        """What was written last; nothing when there is nothing yet. Raises Unavailable for a damaged record."""
        try:
            text = (self._folder / RECORDS).read_text("utf-8")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"{self._folder / RECORDS} cannot be read: {type(error).__name__}") from None
        for number, line in enumerate(text.splitlines(), 1):
            try:
                account, username, client_id, digest, enabled = json.loads(line)
                self.put(KnownUser(account, username, client_id, digest, bool(enabled)))
            except (ValueError, TypeError):
                raise Unavailable(f"{self._folder / RECORDS}: line {number} is damaged") from None

    @property
    def paths(self) -> list[Path]:
        return [self._folder / name for name in (RECORDS, PASSWORDS, ACL, CONTROL_PASSWORDS, CONTROL_ACL)]

    def prepare(self, service: str, password: Secret) -> None:
        """Everything that mosquitto needs to be started; users that were known stay. Raises Unavailable."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"{self._folder} cannot be made: {type(error).__name__}") from None
        self.load()
        self._write(CONTROL_PASSWORDS, f"{service}:{password_digest(password)}\n")
        self.write(self.lines(), frozenset(), service, secrets.token_hex(8))

    def lines(self) -> list[tuple[KnownUser, _Lines]]:
        """A copy that another thread may write from."""
        return [(user, self._lines[name]) for name, user in self._users.items()]

    def write(self, lines: Iterable[tuple[KnownUser, _Lines]], out: Set[str], service: str, mark: str) -> None:
        """The record first, for the others can be made from it; the mark last, for it says that they were read.

        out: usernames that are left out this time, though they are known. Raises Unavailable."""
        lines = list(lines)
        let_in = [line for user, line in lines if user.enabled and user.username not in out]
        self._write(RECORDS, "".join(line.record for _, line in lines), shared=False)
        self._write(PASSWORDS, "".join(line.password for line in let_in))
        patterns = f"pattern readwrite %u/#\npattern readwrite {self._control_prefix}/%u/#\n"
        self._write(ACL, f"user {service}\ntopic deny #\n" + "".join(line.access for line in let_in) + patterns)
        self._write(CONTROL_ACL, control_acl(service, mark))

    def _write(self, name: str, text: str, *, shared: bool = True) -> None:
        group = self._group if shared else None
        try:
            replace_file(self._folder / name, text, mode=WITH_GROUP if group else OURS_ONLY, group=group)
        except (OSError, LookupError) as error:
            raise Unavailable(f"{self._folder / name} cannot be written: {type(error).__name__}") from None


def control_acl(service: str, mark: str) -> str:
    """What the service may do on its listener: hear of connections, and prove that this very file was read."""
    return f"user {service}\ntopic read {NOTICES}\ntopic readwrite {MARKS}/{mark}\n"


def read_or_make_secret(path: Path, fresh: Secret) -> Secret:
    """The service's own password; ``fresh`` is kept there when there is none yet. Raises Unavailable; then nothing new
    is there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OURS_ONLY)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(fresh.reveal() + "\n")
                file.flush()
                os.fsync(descriptor)
        except OSError:
            path.unlink()
            raise
    except FileExistsError:
        return _read_secret(path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {type(error).__name__}") from None
    return fresh


def _read_secret(path: Path) -> Secret:
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(f"{path} cannot be read: {type(error).__name__}") from None
    if not text:
        raise Unavailable(f"{path} is empty; it should hold one password")
    return Secret(text)
