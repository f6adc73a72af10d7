"""The one writer of an SQLite database: all that waits in one transaction, each unit behind a savepoint of its own.

One thread at a time. A statement works in memory for the most part; a commit waits for the disk. What a unit is told is
told after the commit, so that no refusal rests on a unit that is lost.
"""

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from provisioner.model import records
from provisioner.model.audit import AuditEvent
from provisioner.model.errors import Conflict, Unavailable
from provisioner.model.ports import Noun, Put, Unit
from provisioner.store.sql import rows, sqlite_changes
from provisioner.store.sql.names import AUDIT, META

_log = logging.getLogger(__name__)
_MARKS = 1 << 30
_AUDIT_SQL = f"INSERT INTO {AUDIT} (seq, record) VALUES (?, ?)"


@dataclass(frozen=True, slots=True)
class Adoption:
    """Records and audit rows that are taken over as they are."""

    nouns: Sequence[Noun]
    audit: Sequence[AuditEvent]


@dataclass(frozen=True, slots=True)
class Probe:
    """A write that changes no record."""


Work = Unit | Adoption | Probe


class Writer:
    """connection: in autocommit mode, and nobody else writes to its database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._seq = int(connection.execute(f"SELECT audit_seq FROM {META}").fetchone()[0])
        self._seq_ahead = self._seq
        self._mark = int(connection.execute("PRAGMA user_version").fetchone()[0])
        self._doubtful = False  # a commit failed, and what it wrote may still be found by a crash

    def write(self, works: Sequence[Work]) -> list[int | Exception]:
        """``prepare`` and ``commit`` at once."""
        outcomes = self.prepare(works)
        self.commit()
        return outcomes

    def prepare(self, works: Sequence[Work]) -> list[int | Exception]:
        """The seq that each commit will return, or its refusal. Nothing is kept, or seen by readers, before ``commit``.

        Raises Unavailable: nothing of any of them was kept."""
        with self._or_taken_back():
            if self._doubtful:
                self._outdate()
            return self._prepared(works)

    def commit(self) -> None:
        """Returns when what was prepared is on the disk. Raises Unavailable: nothing of it was kept."""
        with self._or_taken_back():
            self._doubtful = True
            self._connection.execute("COMMIT")
            self._doubtful = False
            self._seq = self._seq_ahead

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _or_taken_back(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._take_back()
            if not isinstance(error, sqlite3.Error):
                raise
            reason = told(error)
            _log.error("the store could not write: %s", reason)
            raise Unavailable(f"the store could not write to its disk: {reason}; nothing was changed") from None

    def _prepared(self, works: Sequence[Work]) -> list[int | Exception]:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        seq = self._seq
        outcomes: list[int | Exception] = []
        for work in works:
            execute("SAVEPOINT unit")
            try:
                seq = self._apply(work, seq)
                outcomes.append(seq)
            except sqlite3.Error:
                raise
            except Exception as refusal:  # a refusal, or a mistake that only this unit's caller has to hear of
                execute("ROLLBACK TO unit")
                outcomes.append(refusal)
            execute("RELEASE unit")
        if seq != self._seq:
            execute(f"UPDATE {META} SET audit_seq = ?", (seq,))
        self._seq_ahead = seq
        return outcomes

    def _apply(self, work: Work, seq: int) -> int:
        """The seq of the log's last row after it."""
        match work:
            case Unit():
                for change in work.changes:
                    verb = sqlite_changes.put if isinstance(change, Put) else sqlite_changes.delete
                    verb(self._connection, change.noun)
                return self._append(work.audit, seq)
            case Adoption():
                for noun in work.nouns:
                    sqlite_changes.keep(self._connection, noun)
                new = [event for event in work.audit if event.seq > seq]
                if new and seq not in (0, new[0].seq - 1):
                    raise Conflict(f"audit row {new[0].seq} does not follow row {seq}")
                return self._append(new, new[0].seq - 1 if new else seq)
            case Probe():
                self._leave_mark()
                return seq

    def _append(self, events: Sequence[AuditEvent], seq: int) -> int:
        for number, event in enumerate(events, seq + 1):
            row = rows.as_audit(records.stamped(event, "seq", number))
            self._connection.execute(_AUDIT_SQL, (number, row))
        return seq + len(events)

    def _take_back(self) -> None:
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        if self._doubtful:
            # When this fails too, the next write begins with it.
            with suppress(sqlite3.Error):
                self._outdate()

    def _outdate(self) -> None:
        """A commit whose flush failed is in the WAL whole, and a crash of ours would bring back what was reported lost:
        write something else over it. Without a flush, which would fail again."""
        self._connection.execute("PRAGMA synchronous = OFF")
        try:
            self._leave_mark()
        finally:
            self._connection.execute("PRAGMA synchronous = FULL")
        self._doubtful = False

    def _leave_mark(self) -> None:
        """Any value that differs from the last one: SQLite writes nothing where nothing changes."""
        self._mark = (self._mark + 1) % _MARKS
        self._connection.execute(f"PRAGMA user_version = {self._mark}")


def told(error: sqlite3.Error) -> str:
    """What went wrong, without values: SQLite's own name of it."""
    return str(getattr(error, "sqlite_errorname", type(error).__name__))
