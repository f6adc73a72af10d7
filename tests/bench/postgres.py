"""How fast the PostgreSQL store is: commits of walks and the reads of a walk, at some in flight, before some records.

``python -m tests.bench.postgres [REQUESTS ...]`` starts a server that flushes to the disk and prints one line a figure.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count, islice

from provisioner.model.device import Device
from provisioner.model.ports import Store
from provisioner.model.request import ProvisionRequest, login_key
from provisioner.model.user import AccountUser, account_user_id
from provisioner.store.sql.postgres_store import PostgresStore
from tests.contracts.store_values import device, request, walk_unit
from tests.support.postgres import PostgresServer, running_postgres

IN_FLIGHT = (1, 8, 50)
SIZES = (1_000, 1_000_000)
_TOGETHER = 5_000
_FIRST_OF_A_RUN = 10_000_000


async def fill(store: Store, requests: int) -> float:
    """Give the store that many requests, each with its device; records a second."""
    began_s = time.perf_counter()
    numbers = iter(range(requests))
    while together := list(islice(numbers, _TOGETHER)):
        await store.adopt([noun(number, version=1) for number in together for noun in (request, device)])
    return 2 * requests / (time.perf_counter() - began_s)


async def commits_per_s(store: Store, numbers: Iterator[int], in_flight: int, seconds: float) -> float:
    """Of units as one provisioned device leaves them (four records, two audit rows)."""
    return await _per_s(lambda: store.commit(walk_unit(next(numbers))), in_flight, seconds)


async def reads_per_s(store: Store, requests: int, in_flight: int, seconds: float) -> float:
    """Of what a walk reads: a request by its login, by its id, its device and its account user, each one read."""
    numbers = count()

    async def read() -> None:
        number = next(numbers) * 7919 % requests
        await store.find(ProvisionRequest, "login", login_key("lobby", f"gw{number}"))
        await store.get(ProvisionRequest, f"req-{number:06d}")
        await store.find(Device, "request", f"req-{number:06d}")
        await store.get(AccountUser, account_user_id("acme", f"user-{number}"))

    return 4 * await _per_s(read, in_flight, seconds)


async def _per_s(once: Callable[[], Awaitable[object]], in_flight: int, seconds: float) -> float:
    done = 0
    until_s = time.perf_counter() + seconds

    async def repeat() -> None:
        nonlocal done
        while time.perf_counter() < until_s:
            await once()
            done += 1

    began_s = time.perf_counter()
    await asyncio.gather(*(repeat() for _ in range(in_flight)))
    return done / (time.perf_counter() - began_s)


async def measure(server: PostgresServer, requests: int, seconds: float = 4.0) -> None:
    store = await PostgresStore.open(server.options(server.empty_database()))
    try:
        print(f"{requests:>9,} requests: filled at {await fill(store, requests):,.0f} records/s", flush=True)
        numbers = count(_FIRST_OF_A_RUN)
        await commits_per_s(store, numbers, 8, 1.0)  # warm
        for in_flight in IN_FLIGHT:
            commits = await commits_per_s(store, numbers, in_flight, seconds)
            reads = await reads_per_s(store, requests, in_flight, seconds)
            print(f"{requests:>9,} requests, {in_flight:>2} in flight: {commits:,.0f} commits/s, {reads:,.0f} reads/s")
    finally:
        await store.close()


def main() -> None:
    sizes = [int(text) for text in sys.argv[1:]] or SIZES
    with running_postgres(durable=True) as server:
        for size in sizes:
            asyncio.run(measure(server, size))


if __name__ == "__main__":
    main()
