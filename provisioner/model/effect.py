"""An effect: something that must still be done at an account broker because it was committed (D6)."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar


class EffectVerb(StrEnum):
    """APPLY: bring the account user to the broker as it is stored now. REMOVE: take it away there."""

    APPLY = "apply"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Written in the commit that makes it necessary, deleted once done; doing it twice is harmless.

    id: ``<account>/<username>``: the latest effect on a user replaces an older one.
    broker: name of the account broker.
    """

    kind: ClassVar[str] = "effect"

    id: str
    verb: EffectVerb
    broker: str
    account: str
    username: str
    created_at: datetime
    version: int = 0

    def unique(self) -> dict[str, str]:
        return {}

    def indexed(self) -> dict[str, str]:
        return {"broker": self.broker}
