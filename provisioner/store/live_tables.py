"""The records of one kind in memory: durable ones for readers, staged ones ahead of them for writers.

A change is staged (checked against everything that went before it, durable or not), then landed once its unit is
on disk, or lost. Readers see landed changes only, so nobody acts on what a failing disk may still take back.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import TypeVar

from provisioner.model import records
from provisioner.model.errors import Duplicate, LimitReached, StaleVersion
from provisioner.model.ports import Noun

Key = tuple[str, str]  # index name, value
K = TypeVar("K")


@dataclass(slots=True, eq=False)
class Change:
    """A staged change. before, after: the record, None where there is none. freed, claimed: unique keys that it
    gives up and takes. shadowed: what stood in the way of those, and of the id (last), before it was staged."""

    table: "LiveTable"
    id: str
    before: Noun | None
    after: Noun | None
    freed: list[Key]
    claimed: list[Key]
    shadowed: list["Change | None"] = field(default_factory=list)


class LiveTable:
    def __init__(self, kind: str, records_max: int | None = None) -> None:
        self.kind = kind
        self._records_max = records_max
        self._rows: dict[str, Noun] = {}
        self._order: list[str] = []  # ids, sorted
        self._unique: dict[Key, str] = {}
        self._shared: dict[Key, set[str]] = {}
        self._ahead: dict[str, Change] = {}  # id -> last staged change of it
        self._claims: dict[Key, Change] = {}  # unique key -> last staged change that took it or gave it up
        self._count_ahead = 0

    def fill(self, nouns: Iterable[Noun]) -> None:
        """Take what was read from disk. A unique value that two records hold raises Duplicate."""
        for noun in nouns:
            for key in noun.unique().items():
                holder = self._unique.setdefault(key, noun.id)
                if holder != noun.id:
                    raise Duplicate(self.kind, key[0], holder)
            for key in noun.indexed().items():
                self._shared.setdefault(key, set()).add(noun.id)
            self._rows[noun.id] = noun
        self._order = sorted(self._rows)
        self._count_ahead = len(self._rows)

    # reading

    def get(self, id: str) -> Noun | None:
        return self._rows.get(id)

    def all(self) -> list[Noun]:
        return [self._rows[id] for id in self._order]

    def find(self, index: str, value: str) -> list[Noun]:
        return [self._rows[id] for id in sorted(self._ids(index, value))]

    def page(self, where: Mapping[str, str] | None, after: str | None, limit: int) -> Sequence[Noun]:
        if where:
            ids = nsmallest(limit, (id for id in self._matching(where) if after is None or id > after))
        else:
            start = 0 if after is None else bisect_right(self._order, after)
            ids = self._order[start : start + limit]
        return [self._rows[id] for id in ids]

    def count(self, where: Mapping[str, str] | None) -> int:
        return len(self._matching(where)) if where else len(self._rows)

    def _ids(self, index: str, value: str) -> set[str]:
        holder = self._unique.get((index, value))
        return {holder} if holder is not None else self._shared.get((index, value), set())

    def _matching(self, where: Mapping[str, str]) -> set[str]:
        smallest, *others = sorted((self._ids(*key) for key in where.items()), key=len)
        return smallest.intersection(*others)

    # staging

    def put(self, noun: Noun) -> Change:
        """Raises StaleVersion, Duplicate or LimitReached; then nothing is staged."""
        return self._take(self._expected(noun), records.stamped(noun, "version", noun.version + 1))

    def adopt(self, noun: Noun) -> Change:
        """As ``put``, whatever is there, and the noun stays as it is. Raises Duplicate or LimitReached."""
        return self._take(self._current(noun.id), noun)

    def delete(self, noun: Noun) -> Change:
        """Raises StaleVersion, also when there is no such record; then nothing is staged."""
        before = self._expected(noun)
        if before is None:
            raise StaleVersion(f"{self.kind} {noun.id} does not exist")
        return self._stage(Change(self, noun.id, before, None, list(before.unique().items()), []))

    def _take(self, before: Noun | None, noun: Noun) -> Change:
        if before is None and self._records_max is not None and self._count_ahead >= self._records_max:
            raise LimitReached(
                f"the tinydb store keeps at most {self._records_max:,} {self.kind} records: move to the sqlite store "
                "with `fleetgate store migrate`, or delete some"
            )
        held = before.unique() if before is not None else {}
        wanted = noun.unique()
        claimed = [key for key in wanted.items() if held.get(key[0]) != key[1]]
        for key in claimed:
            holder = self._holder(key)
            if holder is not None and holder != noun.id:
                raise Duplicate(self.kind, key[0], holder)
        freed = [key for key in held.items() if wanted.get(key[0]) != key[1]]
        return self._stage(Change(self, noun.id, before, noun, freed, claimed))

    def unstage(self, change: Change) -> None:
        """Undo the change that was staged last."""
        _restore(self._ahead, change.id, change.shadowed.pop())
        for key in reversed(change.freed + change.claimed):
            _restore(self._claims, key, change.shadowed.pop())
        self._count_ahead -= _growth(change)

    def land(self, change: Change) -> None:
        """The change is on disk. Changes land in the order in which they were staged."""
        if self._ahead.get(change.id) is change:
            del self._ahead[change.id]
        for key in change.freed:
            del self._unique[key]
            self._unclaim(key, change)
        for key in change.claimed:
            self._unique[key] = change.id
            self._unclaim(key, change)
        self._index(change)
        if change.after is not None:
            if change.before is None:
                insort(self._order, change.id)
            self._rows[change.id] = change.after
        else:
            del self._rows[change.id]
            del self._order[bisect_left(self._order, change.id)]

    def lose(self) -> None:
        """None of the staged changes will reach the disk."""
        self._ahead.clear()
        self._claims.clear()
        self._count_ahead = len(self._rows)

    def _expected(self, noun: Noun) -> Noun | None:
        """The record that writers see under this id, which must have the version that the caller read."""
        current = self._current(noun.id)
        version = current.version if current is not None else 0
        if noun.version != version:
            raise StaleVersion(f"{self.kind} {noun.id} is at version {version}, not at {noun.version}")
        return current

    def _current(self, id: str) -> Noun | None:
        change = self._ahead.get(id)
        return change.after if change is not None else self._rows.get(id)

    def _holder(self, key: Key) -> str | None:
        change = self._claims.get(key)
        if change is None:
            return self._unique.get(key)
        return change.id if key in change.claimed else None

    def _stage(self, change: Change) -> Change:
        shadowed = change.shadowed
        for key in change.freed + change.claimed:
            shadowed.append(self._claims.get(key))
            self._claims[key] = change
        shadowed.append(self._ahead.get(change.id))
        self._ahead[change.id] = change
        self._count_ahead += _growth(change)
        return change

    def _unclaim(self, key: Key, change: Change) -> None:
        if self._claims.get(key) is change:
            del self._claims[key]

    def _index(self, change: Change) -> None:
        old = change.before.indexed() if change.before is not None else {}
        new = change.after.indexed() if change.after is not None else {}
        for key in old.items():
            if new.get(key[0]) != key[1]:
                ids = self._shared[key]
                ids.discard(change.id)
                if not ids:
                    del self._shared[key]
        for key in new.items():
            if old.get(key[0]) != key[1]:
                self._shared.setdefault(key, set()).add(change.id)


def _growth(change: Change) -> int:
    return (change.after is not None) - (change.before is not None)


def _restore(entries: dict[K, Change], key: K, shadowed: Change | None) -> None:
    if shadowed is None:
        del entries[key]
    else:
        entries[key] = shadowed
