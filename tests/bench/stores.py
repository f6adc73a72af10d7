"""What a store does by itself, without gate and services: how fast records come in, and what a look-up costs.

``python -m tests.bench.stores [REQUESTS ...]`` measures sqlite in a folder that is removed again, and prints one line a
figure. The figures of a whole service are those of ``tests.bench.run``.
"""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path

import uvloop

from provisioner.model.ports import Put, Store, Unit
from provisioner.model.request import ProvisionRequest, RequestState, login_key
from provisioner.store.sql.sqlite_store import SqliteStore
from tests.contracts.store_values import event, request, walk_unit

PARTS = 10
ROWS_OF_A_UNIT = 1_000
UNITS_AT_ONCE = 4
_FIRST_WALK = 100_000_000


def id_of(number: int) -> str:
    """In the order of creation, as those of real requests."""
    return f"req-{number:018d}"


def imported(number: int) -> ProvisionRequest:
    """One of a hundred accounts."""
    return request(number, id=id_of(number), account=f"acme{number % 100}", username=f"lobby{number}")


async def imported_per_s(store: Store, first: int, rows: int) -> list[float]:
    """P8: rows a second, for each tenth of so many; in units of a thousand, four under way."""
    last = first + rows
    units = (range(n, min(n + ROWS_OF_A_UNIT, last)) for n in range(first, last, ROWS_OF_A_UNIT))
    rates: list[float] = []
    done, began_s = 0, time.perf_counter()

    async def importer() -> None:
        nonlocal done, began_s
        for unit in units:
            await store.commit(Unit([Put(imported(n)) for n in unit], [event("import") for _ in unit]))
            done += len(unit)
            if done >= rows / PARTS:
                rates.append(done / (time.perf_counter() - began_s))
                done, began_s = 0, time.perf_counter()

    await asyncio.gather(*(importer() for _ in range(UNITS_AT_ONCE)))
    return rates


async def reads_us(store: Store, rows: int, times: int = 400) -> dict[str, float]:
    """The median cost of each kind of read, in microseconds, when ``rows`` requests were imported."""
    chance = random.Random(rows)

    def number() -> int:
        return chance.randrange(rows)

    async def find() -> None:
        n = number()
        (found,) = await store.find(ProvisionRequest, "login", login_key(f"lobby{n}", f"gw{n}"))
        assert found.id == id_of(n)

    async def page() -> None:
        where = {"account": f"acme{number() % 100}", "state": RequestState.PENDING.value}
        assert (await store.page(ProvisionRequest, where=where, after=id_of(number()), limit=10)) is not None

    reads: dict[str, Callable[[], Awaitable[object]]] = {
        "get": lambda: store.get(ProvisionRequest, id_of(number())),
        "find": find,
        "page": page,
        "audit": lambda: store.audit_page(after=number(), limit=10),
    }
    return {name: await _median_us(read, times) for name, read in reads.items()}


async def walks_per_s(store: Store, in_flight: int, walks: int) -> float:
    """Commits of what a provisioned device leaves (four records, two audit rows), as many under way."""
    numbers = iter(range(_FIRST_WALK, _FIRST_WALK + walks))
    began_s = time.perf_counter()

    async def caller() -> None:
        for number in numbers:
            await store.commit(walk_unit(number))

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return walks / (time.perf_counter() - began_s)


async def _median_us(read: Callable[[], Awaitable[object]], times: int) -> float:
    took = []
    for _ in range(times):
        began_s = time.perf_counter()
        await read()
        took.append(time.perf_counter() - began_s)
    return statistics.median(took) * 1e6


async def measure(path: Path, sizes: list[int]) -> None:
    store = await SqliteStore.open(path)
    try:
        stored = 0
        for size in sizes:
            rates = await imported_per_s(store, stored, size - stored)
            stored = size
            told = ", ".join(f"{rate:,.0f}" for rate in rates)
            print(f"sqlite: {size:,} requests came in at {statistics.harmonic_mean(rates):,.0f}/s ({told})", flush=True)
            for name, us in (await reads_us(store, size)).items():
                print(f"sqlite: {name} with {size:,} stored: {us:,.0f} us", flush=True)
        print(f"sqlite: {await walks_per_s(store, 50, 4_000):,.0f} walks/s at 50 in flight", flush=True)
    finally:
        await store.close()


def main() -> None:
    sizes = [int(each) for each in islice(sys.argv, 1, None)] or [1_000, 100_000]
    with tempfile.TemporaryDirectory(prefix="fleetgate-stores-") as folder:
        uvloop.run(measure(Path(folder) / "bench.db", sizes))


if __name__ == "__main__":
    main()
