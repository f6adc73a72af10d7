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
    """Blocking, and not for two threads at once. Raises Unavailable where the file cannot be read or written; then
    nothing was taken. Instants are seconds since 1970."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORDS
        self._holders: dict[str, Holder] = {}
        self._of: dict[str, set[str]] = {}
        self._refused: dict[str, frozenset[str]] = {}
        self._turn = 0

    def load(self, forget_before_s: float) -> None:
        """What is there, without those who were gone before that instant, whose certificates have run out since. The
        file is made smaller; it is made when missing."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lines = self._path.read_text("utf-8").splitlines() if self._path.exists() else []
            for line in lines:
                *values, certificates = json.loads(line)
                account, username, client_id, enabled, turn, gone_s = values
                self._keep(Holder(account, username, client_id, tuple(certificates), enabled, turn, gone_s))
            for holder in list(self._holders.values()):
                if holder.gone_s is not None and holder.gone_s < forget_before_s:
                    self._drop(holder)
            replace_file(self._path, "".join(map(_line, self._holders.values())), mode=_OURS_ONLY)
        except (OSError, ValueError, TypeError) as error:
            raise Unavailable(f"{self._path} cannot be read or written: {type(error).__name__}") from None

    def get(self, username: str) -> Holder | None:
        holder = self._holders.get(username)
        return None if holder is None or holder.is_gone else holder

    def present(self) -> list[Holder]:
        return [holder for holder in self._holders.values() if not holder.is_gone]

    def put(self, holder: Holder) -> Change:
        """Durable when it returns. A user that is new takes its client id over."""
        former = self.get(holder.username)
        kept = replace(holder, turn=former.turn if former else self._turn + 1)
        return self._append(kept) if kept != former else Change()

    def remove(self, username: str, now_s: float) -> Change:
        """Its certificates are refused from now on."""
        former = self.get(username)
        return self._append(replace(former, gone_s=now_s)) if former is not None else Change()

    def at(self, home: str) -> Holder | None:
        """Who holds this name."""
        there = [self._holders[username] for username in self._of.get(home, ())]
        return max((each for each in there if not each.is_gone), key=lambda each: each.turn, default=None)

    def refused(self) -> list[str]:
        """Serials, each once."""
        return sorted(set[str]().union(*self._refused.values()))

    def _append(self, holder: Holder) -> Change:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _OURS_ONLY)
            with os.fdopen(descriptor, "a", encoding="utf-8") as file:
                file.write(_line(holder))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be written: {type(error).__name__}") from None
        return self._keep(holder)

    def _keep(self, holder: Holder) -> Change:
        self._holders[holder.username] = holder
        self._of.setdefault(holder.home, set()).add(holder.username)
        self._turn = max(self._turn, holder.turn)
        before, after = self._refused.get(holder.home, frozenset()), self._refused_at(holder.home)
        self._refused[holder.home] = after
        return Change(ends=bool(after - before), begins=bool(before - after))

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
