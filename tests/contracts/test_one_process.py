"""What a store of one process gives in the place of other processes: the same verbs, always answered by itself."""

import asyncio
from collections.abc import AsyncGenerator
from typing import cast

import pytest

from provisioner.store.fanout import MESSAGES_MAX, Fanout
from provisioner.store.one_process import OneProcess
from tests.contracts.shared_contract import SharedContract
from tests.contracts.store_contract import in_loop


class OneProcessHall:
    async def enter(self) -> OneProcess:
        return OneProcess()


class TestOneProcess(SharedContract):
    @pytest.fixture
    def hall(self) -> OneProcessHall:
        return OneProcessHall()


@in_loop
async def test_a_listener_that_does_not_keep_up_is_told() -> None:
    """What waits for one listener is bounded; past that it learns that it missed something, and hears the rest."""
    fanout = Fanout()
    feed = cast("AsyncGenerator[str | None, None]", fanout.listen())
    first = asyncio.ensure_future(anext(feed))
    await asyncio.sleep(0)
    for number in range(MESSAGES_MAX + 2):
        fanout.send(str(number))
    fanout.close()
    assert [await first] + [message async for message in feed] == [None, str(MESSAGES_MAX + 1)]
