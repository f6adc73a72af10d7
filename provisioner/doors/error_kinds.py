"""Kinds of errors, as every door names them, and the exit status that each one has on the command line."""

from provisioner.model.errors import (
    Conflict,
    FleetgateError,
    InvalidInput,
    LimitReached,
    NotAllowed,
    NotFound,
    Unavailable,
)

# What is none of these was asked wrongly: ``usage``. What nobody foresaw is ``failure``.
ERROR_KINDS: tuple[tuple[type[FleetgateError], str], ...] = (
    (InvalidInput, "invalid_input"),
    (NotFound, "not_found"),
    (Conflict, "conflict"),
    (LimitReached, "limit"),
    (Unavailable, "unavailable"),
    (NotAllowed, "not_allowed"),
)
PARTLY_DONE = 7
EXIT_STATUS = {
    "failure": 1,
    "limit": 1,
    "usage": 2,
    "not_allowed": 3,
    "not_found": 4,
    "conflict": 5,
    "invalid_input": 6,
    "unavailable": 8,
}


def kind_of(error: FleetgateError) -> str:
    return next((kind for cls, kind in ERROR_KINDS if isinstance(error, cls)), "usage")
