"""Many who wait for the same costly step share one."""

import asyncio

import pytest

from provisioner.account_brokers.batching import Batch


def test_who_asks_before_a_step_begins_shares_it() -> None:
    """A hundred who ask at once need one step; those who ask while it runs need one more, and no more."""

    async def scenario() -> None:
        began = 0
        running, go_on = asyncio.Event(), asyncio.Event()

        async def step() -> None:
            nonlocal began
            began += 1
            running.set()
            await go_on.wait()

        batch = Batch(step)
        first = [asyncio.create_task(batch.request()) for _ in range(100)]
        await running.wait()
        later = [asyncio.create_task(batch.request()) for _ in range(100)]
        await asyncio.sleep(0)
        assert began == 1
        go_on.set()
        await asyncio.gather(*first, *later)
        assert began == 2
        await batch.settle()

    asyncio.run(scenario())


def test_a_failed_step_is_told_to_those_who_shared_it_alone() -> None:
    """The next step runs, and whoever asked for it hears nothing of the former."""

    async def scenario() -> None:
        outcomes = [OSError("full"), None]

        async def step() -> None:
            if (outcome := outcomes.pop(0)) is not None:
                raise outcome

        batch = Batch(step)
        results = await asyncio.gather(batch.request(), batch.request(), return_exceptions=True)
        assert [type(each) for each in results] == [OSError, OSError]
        await batch.request()

    asyncio.run(scenario())


def test_a_waiter_that_gives_up_ends_no_step() -> None:
    """A cancelled request leaves the step to the others."""

    async def scenario() -> None:
        done = 0

        async def step() -> None:
            nonlocal done
            await asyncio.sleep(0.01)
            done += 1

        batch = Batch(step)
        gone, waiting = (asyncio.create_task(batch.request()) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        await waiting
        assert done == 1

    asyncio.run(scenario())


def test_between_two_steps_there_is_rest() -> None:
    """A step that took its time is not followed at once by the next one."""

    async def scenario() -> None:
        times: list[float] = []

        async def step() -> None:
            times.append(asyncio.get_running_loop().time())
            await asyncio.sleep(0.05)
            times.append(asyncio.get_running_loop().time())

        batch = Batch(step)
        await batch.request()
        await batch.request()
        assert times[2] - times[1] >= 0.04

    asyncio.run(scenario())
