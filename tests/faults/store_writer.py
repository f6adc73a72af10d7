"""A process that commits units until it is killed: prints the number of each unit once it is acknowledged.

Arguments: directory, first number.
"""

import asyncio
import itertools
import os
import sys
from pathlib import Path

from provisioner.store.tinydb_store import TinyDbStore
from tests.contracts.store_values import walk_unit


async def write(directory: Path, first: int) -> None:
    store = await TinyDbStore.open(directory, requests_max=10**9, audit_rows_max=50, journal_bytes_max=1 << 16)
    numbers = itertools.count(first)

    async def caller() -> None:
        for number in numbers:
            await store.commit(walk_unit(number))
            os.write(1, b"%d\n" % number)

    await asyncio.gather(*(caller() for _ in range(6)))


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2])))
