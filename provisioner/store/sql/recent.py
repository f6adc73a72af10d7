"""Records that were read or committed a moment ago, in memory, where one process alone writes.

A device's walk reads the same few records again and again, and every commit makes SQLite look at its pages anew.
"""

from collections.abc import Sequence
from typing import cast

from provisioner.model import records
from provisioner.model.ports import N, Noun, Put, Unit

RECORDS_MAX = 5_000  # some 2.6 KB each
_CHANGES_MAX = 50  # of a unit: an import is not read again at once, and would push out everything else


class Recent:
    """Lives on one event loop, and holds what is committed, never less: whoever reads on the loop may ``keep`` what it
    found, since what is committed meanwhile is told by ``landed`` later. A read in a thread may be behind that."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], Noun] = {}  # the oldest first

    def get(self, noun: type[N], id: str) -> N | None:
        return cast("N | None", self._records.get((noun.kind, id)))

    def keep(self, noun: Noun) -> None:
        key = (noun.kind, noun.id)
        self._records.pop(key, None)
        self._records[key] = noun
        if len(self._records) > RECORDS_MAX:
            del self._records[next(iter(self._records))]

    def landed(self, unit: Unit) -> None:
        """The unit is committed."""
        for change in unit.changes:
            noun = change.noun
            if isinstance(change, Put) and len(unit.changes) <= _CHANGES_MAX:
                self.keep(records.stamped(noun, "version", noun.version + 1))
            else:
                self._records.pop((noun.kind, noun.id), None)

    def forget(self, nouns: Sequence[Noun]) -> None:
        for noun in nouns:
            self._records.pop((noun.kind, noun.id), None)
