"""A process of its own on a PostgreSQL store. Arguments: what to do, and its arguments. Options: JSON on the first line
of standard input, so that the password is in no process list.

    open                 migrate if need be, then end
    add ID TIMES         add one attempt to that request so often, each from a fresh reading; print versions won
    commit FIRST         commit walks until it is killed; print the number of each once it is acknowledged
"""

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

from provisioner.model.errors import StaleVersion
from provisioner.model.ports import Put, Unit
from provisioner.model.request import ProvisionRequest
from provisioner.model.secret import Secret
from provisioner.store.sql.postgres_options import PostgresOptions
from provisioner.store.sql.postgres_store import PostgresStore
from tests.contracts.store_values import event, walk_unit
from tests.support.installation import ROOT


def begin(options: PostgresOptions, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start one; ``communicate`` waits for it."""
    command = [sys.executable, "-m", "tests.contracts.postgres_process", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(told(options))
    process.stdin.flush()
    return process


def told(options: PostgresOptions) -> bytes:
    """The line that ``told_options`` reads in a process."""
    assert options.password is not None
    return (
        json.dumps(asdict(replace(options, password=None)) | {"password": options.password.reveal()}).encode() + b"\n"
    )


def told_options() -> PostgresOptions:
    values = json.loads(sys.stdin.readline())
    return PostgresOptions(**values | {"password": Secret(values["password"])})


async def add(store: PostgresStore, id: str, times: int) -> None:
    done = 0
    while done < times:
        read = await store.get(ProvisionRequest, id)
        assert read is not None
        won = event(id, "request.added", details={"version": read.version, "process": os.getpid()})
        try:
            await store.commit(Unit([Put(replace(read, attempts=read.attempts + 1))], [won]))
        except StaleVersion:
            continue
        done += 1
        os.write(1, b"%d\n" % read.version)


async def commit(store: PostgresStore, first: int) -> None:
    numbers = itertools.count(first)

    async def caller() -> None:
        for number in numbers:
            await store.commit(walk_unit(number))
            os.write(1, b"%d\n" % number)

    await asyncio.gather(*(caller() for _ in range(6)))


async def main(options: PostgresOptions, what: str, arguments: Sequence[str]) -> None:
    store = await PostgresStore.open(options)
    try:
        match what:
            case "add":
                await add(store, arguments[0], int(arguments[1]))
            case "commit":
                await commit(store, int(arguments[0]))
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(told_options(), sys.argv[1], sys.argv[2:]))
