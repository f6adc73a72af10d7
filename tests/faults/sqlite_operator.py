"""A process that has an SQLite store open and does what it reads from its standard input, a line each.

Argument: the database file. Answers are a line each: what a verb returns, or the name of the exception and its message.

commit N, get N, health, audit: one verb each. walks N: that many commits, 50 under way; the seconds that all
threads worked for them, without what they waited for the disk or for other programs.
stall N: so many requests in one commit, and walks beside it; the longest time that the event loop stood still.
write N: commits from number N on, with the number of each once it is acknowledged, for good.
"""

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from provisioner.model.device import Device
from provisioner.model.errors import FleetgateError, Unavailable
from provisioner.model.ports import Put, Unit
from provisioner.store.sql.sqlite_store import SqliteStore
from tests.contracts.store_values import all_audit, request, walk_unit

IN_FLIGHT = 50


async def answer(store: SqliteStore, verb: str, number: int) -> str:
    match verb:
        case "commit":
            return str(await store.commit(walk_unit(number)))
        case "get":
            found = await store.get(Device, f"dev-{number:06d}")
            return "nothing" if found is None else found.id
        case "health":
            await store.health()
            return "good"
        case "audit":
            return " ".join(str(row.seq) for row in await all_audit(store))
        case "walks":
            began_s = time.process_time()
            await in_parallel(store, iter(range(number)))
            return f"{time.process_time() - began_s:.3f}"
        case "stall":
            return f"{await longest_stall_s(store, number):.3f}"
        case "write":
            await in_parallel(store, itertools.count(number), told=True)
    raise ValueError(verb)


async def in_parallel(store: SqliteStore, numbers: Iterator[int], *, told: bool = False) -> None:
    async def caller() -> None:
        for number in numbers:
            await store.commit(walk_unit(number))
            if told:
                os.write(1, b"%d\n" % number)

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))


async def longest_stall_s(store: SqliteStore, number: int) -> float:
    """An import of that size is more than the WAL takes before its content is brought into the file."""
    work = asyncio.gather(
        store.commit(Unit([Put(request(n)) for n in range(100_000, 100_000 + number)])), health(store)
    )
    longest_s, at_s = 0.0, time.perf_counter()
    while not work.done():
        await asyncio.sleep(0.005)
        longest_s, at_s = max(longest_s, time.perf_counter() - at_s), time.perf_counter()
    await work
    return longest_s


async def health(store: SqliteStore) -> None:
    for number in range(3):
        await store.commit(walk_unit(number))
        await store.health()


async def operate(path: Path) -> None:
    try:
        store = await SqliteStore.open(path)
    except Unavailable as error:
        print(f"Unavailable: {error}", flush=True)
        sys.exit(1)
    print("open", flush=True)
    for line in sys.stdin:
        verb, _, number = line.strip().partition(" ")
        try:
            print(await answer(store, verb, int(number or 0)), flush=True)
        except FleetgateError as error:
            print(f"{type(error).__name__}: {error}", flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(operate(Path(sys.argv[1])))
