"""The few exceptions of fleetgate: one class per thing a caller does differently.

A refused device is not an exception but a value (see ``decision.Refusal``). Wording for people is made
at a door; these classes carry the facts.
"""

from collections.abc import Iterable
from dataclasses import dataclass


class FleetgateError(Exception):
    """Base of all of them; never raised itself."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule of one field. ``shape`` describes the value (type, length), never shows it."""

    field: str
    rule: str
    shape: str

    def __str__(self) -> str:
        return f"{self.field}: {self.rule} (got {self.shape})"


class InvalidInput(FleetgateError, ValueError):
    """Input breaks one or more rules; every broken rule is in ``problems``. Nothing was stored."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


class NotFound(FleetgateError, LookupError):
    """No ``noun`` with that ``id``."""

    def __init__(self, noun: str, id: str) -> None:
        self.noun, self.id = noun, id
        super().__init__(f"no {noun} {id!r}")


class Conflict(FleetgateError):
    """The change contradicts what is stored: a duplicate, or a version that moved on meanwhile."""


class Duplicate(Conflict):
    """A unique index already holds this value for another record."""

    def __init__(self, noun: str, index: str, holder: str) -> None:
        self.noun, self.index, self.holder = noun, index, holder
        super().__init__(f"another {noun} ({holder}) already has this {index}")


class StaleVersion(Conflict):
    """The record changed since it was read; read it again and decide again."""


class IllegalMove(Conflict):
    """The life cycle has no such move; nothing changed."""


class NotAllowed(FleetgateError):
    """The caller is not authenticated, or may not do this."""


class Unavailable(FleetgateError):
    """A store or a broker cannot serve now; the same call may succeed later. Nothing was done."""


class LimitReached(FleetgateError):
    """A stated limit stands in the way; the message names it and what to do about it."""


def shape(value: object) -> str:
    """Describe a value without showing it: its type and size. Safe for secrets."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"text of {len(value)} characters" if value else "empty text"
    if isinstance(value, list | tuple | dict | set | bytes):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__
