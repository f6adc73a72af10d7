"""A verb against a record that somebody else keeps changing."""

import asyncio

import pytest

from provisioner.model.errors import Conflict, StaleVersion
from provisioner.services.stale import TRIES, again_when_stale


@pytest.mark.parametrize("changes", [0, 1, TRIES - 1])
def test_a_verb_is_done_however_busy_the_record_was(changes: int) -> None:
    """F-08: it is tried again after each change in between, and done once."""
    tries: list[str] = []

    @again_when_stale
    async def revoke(who: str) -> str:
        tries.append(who)
        if len(tries) <= changes:
            raise StaleVersion("the record moved on")
        return "revoked"

    assert asyncio.run(revoke("gw1")) == "revoked"
    assert tries == ["gw1"] * (changes + 1)


@pytest.mark.parametrize(("error", "tries"), [(StaleVersion("moved on"), TRIES), (Conflict("a duplicate"), 1)])
def test_what_cannot_be_done_is_told(error: Conflict, tries: int) -> None:
    """It gives up after TRIES, and at once on a conflict of another kind."""
    tried = 0

    @again_when_stale
    async def revoke() -> None:
        nonlocal tried
        tried += 1
        raise error

    with pytest.raises(type(error)) as told:
        asyncio.run(revoke())
    assert (told.value, tried) == (error, tries)
