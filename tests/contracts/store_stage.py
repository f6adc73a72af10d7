"""What tests of stores stand on: where a store is kept, opened and closed, and an event loop for each test."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from provisioner.model.ports import Put, Store, Unit
from provisioner.model.request import ProvisionRequest

P = ParamSpec("P")
SELF = TypeVar("SELF")


class StorePlace(Protocol):
    """Where an adapter keeps one store. Opening it again finds what was committed."""

    async def open(self) -> Store: ...


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an asynchronous test on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def with_store(test: Callable[Concatenate[SELF, Store, P], Coroutine[Any, Any, None]]) -> Any:
    """Run an asynchronous test method with a store that is closed afterwards."""

    def run(self: SELF, place: StorePlace) -> None:
        async def scenario() -> None:
            async with opened(place) as store:
                await test(self, store)  # type: ignore[call-arg]  # the tests take nothing but the store

        asyncio.run(scenario())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@asynccontextmanager
async def opened(place: StorePlace) -> AsyncIterator[Store]:
    store = await place.open()
    try:
        yield store
    finally:
        await store.close()


async def put(store: Store, *nouns: Any) -> None:
    await store.commit(Unit([Put(noun) for noun in nouns]))


async def stored(store: Store, number: int) -> ProvisionRequest:
    found = await store.get(ProvisionRequest, f"req-{number:06d}")
    assert found is not None
    return found
