"""Records in memory as they were at one moment: nouns never change, so keeping the lists is enough."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from provisioner.model.ports import N, Noun

TOGETHER = 500


@dataclass(frozen=True, slots=True)
class Still:
    """A Moment. tables: kind -> records, ordered by id."""

    audit_seq: int
    tables: Mapping[str, Sequence[Noun]]

    async def nouns(self, noun: type[N]) -> AsyncIterator[Sequence[N]]:
        table = cast("Sequence[N]", self.tables[noun.kind])
        for start in range(0, len(table), TOGETHER):
            yield table[start : start + TOGETHER]
