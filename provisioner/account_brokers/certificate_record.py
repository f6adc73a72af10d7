"""What an account broker that trusts our authority must remember of users: whose certificates are refused just now.

One file of our own, ``certificates.jsonl``: the latest line of a user counts. It is written before a device is
answered, so that no certificate is out that is not in it; mosquitto never reads it.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from provisioner.account_brokers.mosquitto_passwords import replace_file
from provisioner.model.errors import Unavailable

RECORDS = "certificates.jsonl"
_OURS_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class Holder:
    """certificates: serials in lower-case hex, the latest last; those before it are refused. turn: of two users of one
    client id the later one holds it, the other's certificates are refused. gone_s: since when it is no user."""

    account: str
    username: str
    client_id: str
    certificates: tuple[str, ...]
    enabled: bool
    turn: int
    gone_s: float | None = None

    @property
    def is_gone(self) -> bool:
        return self.gone_s is not None

    @property
    def home(self) -> str:
        """The common name of its certificates, which is its name and its client id at the broker."""
        return f"{self.account}/{self.client_id}"


@dataclass(frozen=True, slots=True)
class Change:
    """Whether serials are refused now that were not (``ends``), or the other way round (``begins``)."""

    ends: bool = False
    begins: bool = False

    def __bool__(self) -> bool:
        return self.ends or self.begins


class CertificateRecord:
    """Lives on one event loop but for ``load``, ``shrink`` and ``write``, which block. A change is what ``put`` or
    ``remove`` makes of a holder, then written, then kept. Instants are seconds since 1970."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORDS
        self._holders: dict[str, Holder] = {}
        self._of: dict[str, set[str]] = {}
        self._refused: dict[str, frozenset[str]] = {}
        self._turn = 0

    def load(self) -> None:
        """What is there; the file stays as it is. Raises Unavailable, for one that is damaged too."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            text = self._path.read_bytes() if self._path.exists() else b""
            *lines, _ = text.split(b"\n")  # a line that a crash cut short was never told of
            for line in lines:
                *values, certificates = json.loads(line)
                account, username, client_id, enabled, turn, gone_s = values
                self.keep(Holder(account, username, client_id, tuple(certificates), enabled, turn, gone_s))
        except (OSError, ValueError, TypeError) as error:
            raise Unavailable(f"{self._path} cannot be read: {type(error).__name__}") from None

    def shrink(self, forget_before_s: float) -> None:
        """The file without the lines that count no more, nor those who were gone before that instant, whose
        certificates have run out since; it is made when missing. Raises Unavailable."""
        for holder in list(self._holders.values()):
            if holder.gone_s is not None and holder.gone_s < forget_before_s:
                self._drop(holder)
        try:
            replace_file(self._path, "".join(map(_line, self._holders.values())), mode=_OURS_ONLY)
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be written: {type(error).__name__}") from None

    def get(self, username: str) -> Holder | None:
        holder = self._holders.get(username)
        return None if holder is None or holder.is_gone else holder

    def last(self, username: str) -> Holder | None:
        """Also when it is gone, as long as its certificates are refused."""
        return self._holders.get(username)

    def shut_homes(self) -> set[str]:
        """Names that nobody may use just now."""
        return {home for home in self._of if (holder := self.at(home)) is None or not holder.enabled}

    def present(self) -> list[Holder]:
        return [holder for holder in self._holders.values() if not holder.is_gone]

    def put(self, holder: Holder) -> Holder | None:
        """What it becomes: one that is new takes its client id over. None: it is known just so."""
        former = self.get(holder.username)
        kept = replace(holder, turn=former.turn if former else self._turn + 1)
        return kept if kept != former else None

    def remove(self, username: str, now_s: float) -> Holder | None:
        """What it becomes, with certificates that are refused. None: it is no user."""
        former = self.get(username)
        return replace(former, gone_s=now_s) if former is not None else None

    def at(self, home: str) -> Holder | None:
        """Who holds this name."""
        there = [self._holders[username] for username in self._of.get(home, ())]
        return max((each for each in there if not each.is_gone), key=lambda each: each.turn, default=None)

    def refused(self) -> list[str]:
        """Serials, each once."""
        return sorted(set[str]().union(*self._refused.values()))

    def write(self, holder: Holder) -> None:
        """Blocks until it is durable. Not in two threads at once. Raises Unavailable; then nothing was taken."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, _OURS_ONLY)
            with os.fdopen(descriptor, "a", encoding="utf-8") as file:
                self._cut_to_whole_lines(descriptor)
                file.write(_line(holder))
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be written: {type(error).__name__}") from None

    def keep(self, holder: Holder) -> Change:
        """It was written."""
        self._holders[holder.username] = holder
        self._of.setdefault(holder.home, set()).add(holder.username)
        self._turn = max(self._turn, holder.turn)
        before, after = self._refused.get(holder.home, frozenset()), self._refused_at(holder.home)
        self._refused[holder.home] = after
        return Change(ends=bool(after - before), begins=bool(before - after))

    def _cut_to_whole_lines(self, descriptor: int) -> None:
        """Without what a full disk left of a line, which would become the beginning of the next one."""
        length = os.fstat(descriptor).st_size
        if length and os.pread(descriptor, 1, length - 1) != b"\n":
            os.ftruncate(descriptor, self._path.read_bytes().rfind(b"\n") + 1)

    def _drop(self, holder: Holder) -> None:
        del self._holders[holder.username]
        self._of[holder.home].discard(holder.username)
        self._refused[holder.home] = self._refused_at(holder.home)

    def _refused_at(self, home: str) -> frozenset[str]:
        """All that were made for this name but the valid one of who holds it."""
        valid = self.at(home)
        there = [self._holders[username] for username in self._of.get(home, ())]
        every = {serial for holder in there for serial in holder.certificates}
        return frozenset(every - set(valid.certificates[-1:] if valid is not None and valid.enabled else ()))


def _line(holder: Holder) -> str:
    values = [holder.account, holder.username, holder.client_id, holder.enabled, holder.turn, holder.gone_s]
    return json.dumps([*values, list(holder.certificates)]) + "\n"
