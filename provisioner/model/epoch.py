"""The epoch of a store: how often it was restored from a backup, and whether it may be used at all.

Every request remembers the epoch in which a person last answered for it. After a restore none of the open ones has
the store's own: each may have been used up in the time that the backup does not know, so a person has to say again.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

FIRST = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The one record of its kind; a store without it is in its first epoch.

    number: the epoch. began_at: when the backup was restored, None in the first one.
    filling: what is being copied into the store; until that is done nobody may use it. moved_to: where everything
    went; from then on this store is an old copy, and nobody may use it any more.
    """

    kind: ClassVar[str] = "epoch"

    id: str = "store"
    number: int = FIRST
    began_at: datetime | None = None
    filling: str | None = None
    moved_to: str | None = None
    version: int = 0

    def unique(self) -> dict[str, str]:
        return {}

    def indexed(self) -> dict[str, str]:
        return {}

    def obstacle(self) -> str | None:
        """Why the store must not be used, and what to do; None when it may be."""
        if self.filling is not None:
            return f"the copy of {self.filling} into this store was not finished: run the same command again"
        if self.moved_to is not None:
            return f"everything in this store was moved to {self.moved_to}: name that one in the settings"
        return None
