"""What every store says of the size of a page."""

from provisioner.model.errors import InvalidInput, Problem

PAGE_MAX = 1_000


def check_limit(limit: int) -> None:
    if not 1 <= limit <= PAGE_MAX:
        raise InvalidInput([Problem("limit", f"must be from 1 to {PAGE_MAX:,}", "a number outside")])
