"""A whole store as a stream of parts, and the tally by which two of them are compared."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from provisioner.model.audit import AuditEvent
from provisioner.model.epoch import Epoch
from provisioner.model.ports import Moment, Noun, Store
from provisioner.store.schema import NOUNS, to_json

# What is copied. The epoch is not: it is what a store says of itself.
KINDS: tuple[type[Noun], ...] = tuple(noun for noun in NOUNS if noun is not Epoch)
AUDIT_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Part:
    """Some records of one kind, ordered by id, or some audit rows in order: never both."""

    kind: str
    nouns: Sequence[Noun] = ()
    audit: Sequence[AuditEvent] = ()

    def lines(self) -> list[bytes]:
        """The JSON of each, as every store keeps it."""
        return [to_json(each) for each in (*self.nouns, *self.audit)]


async def parts(store: Store, moment: Moment) -> AsyncIterator[Part]:
    """All that the store held at that moment: each kind in the order of ``KINDS``, then the audit log."""
    for noun in KINDS:
        async for nouns in moment.nouns(noun):
            yield Part(noun.kind, nouns=nouns)
    after = 0
    while after < moment.audit_seq:
        rows = await store.audit_page(after=after, limit=min(AUDIT_ROWS, moment.audit_seq - after))
        rows = [row for row in rows if row.seq <= moment.audit_seq]
        if not rows:
            return
        yield Part(AuditEvent.kind, audit=rows)
        after = rows[-1].seq


@dataclass(frozen=True, slots=True)
class Summary:
    """count and digest (hex SHA-256 of the lines of JSON) of one kind."""

    count: int
    digest: str


@dataclass(slots=True)
class Tally:
    """Counts and digests what passes."""

    _counts: dict[str, int] = field(default_factory=dict)
    _digests: dict[str, "hashlib._Hash"] = field(default_factory=dict)

    def add(self, kind: str, lines: Sequence[bytes]) -> None:
        digest = self._digests.setdefault(kind, hashlib.sha256())
        for line in lines:
            digest.update(line)
            digest.update(b"\n")
        self._counts[kind] = self._counts.get(kind, 0) + len(lines)

    def summaries(self) -> Mapping[str, Summary]:
        """By kind; one that has no records is left out."""
        return {kind: Summary(count, self._digests[kind].hexdigest()) for kind, count in sorted(self._counts.items())}


async def tallied(stream: AsyncIterator[Part]) -> Mapping[str, Summary]:
    tally = Tally()
    async for part in stream:
        tally.add(part.kind, part.lines())
    return tally.summaries()


def difference(copy: Mapping[str, Summary], source: Mapping[str, Summary]) -> str | None:
    """What differs, for people; None when nothing does."""
    none = Summary(0, "")
    differ = [
        f"{kind} ({copy.get(kind, none).count:,} of {source.get(kind, none).count:,})"
        for kind in sorted(copy.keys() | source.keys())
        if copy.get(kind) != source.get(kind)
    ]
    return ", ".join(differ) or None
