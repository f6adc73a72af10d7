"""Several processes on one PostgreSQL: they race, are killed, and migrate it at once."""

import asyncio
import time

import pytest

from provisioner.model.audit import AuditEvent
from provisioner.model.device import Device
from provisioner.model.errors import Unavailable
from provisioner.model.ports import Put, Unit
from provisioner.model.request import ProvisionRequest
from provisioner.store.schema import SCHEMA
from provisioner.store.sql.postgres_options import PostgresOptions
from provisioner.store.sql.postgres_store import PostgresStore
from tests.contracts.postgres_process import begin
from tests.contracts.postgres_scene import (
    follow,
    opened,
    until,
)
from tests.contracts.store_contract import in_loop
from tests.contracts.store_values import request, walk_unit
from tests.support.postgres import PostgresServer


@pytest.fixture
def options(postgres: PostgresServer) -> PostgresOptions:
    return postgres.options(postgres.fresh_database())


@in_loop
async def test_many_processes_race_for_each_version(postgres: PostgresServer, options: PostgresOptions) -> None:
    """F-43: three processes add to one record: each version has one winner, nothing is lost, and a fourth process
    sees every audit row in order, without a gap."""
    async with opened(options) as store:
        await store.commit(Unit([Put(request(1))]))
        seen: list[AuditEvent] = []
        following = asyncio.create_task(follow(store, seen))
        processes = [begin(options, "add", "req-000001", "40") for _ in range(3)]
        told = await asyncio.gather(*(asyncio.to_thread(each.communicate, timeout=60) for each in processes))
        assert [each.returncode for each in processes] == [0, 0, 0], told
        await until(lambda: len(seen) == 120)
        following.cancel()
        won = sorted(int(line) for out, _ in told for line in out.split())
        assert won == list(range(1, 121))
        assert [row.seq for row in seen] == list(range(1, 121))
        assert [row.details["version"] for row in seen] == won
        assert len({row.details["process"] for row in seen}) == 3
        stored = await store.get(ProvisionRequest, "req-000001")
        assert stored is not None
        assert stored.attempts == 120


@in_loop
async def test_a_killed_process_leaves_whole_units(postgres: PostgresServer, options: PostgresOptions) -> None:
    """kill -9 of a process that commits: what it was told is there, and no unit is there by half."""
    async with opened(options) as store:
        for first in (1_000, 2_000, 3_000):
            process = begin(options, "commit", str(first))
            assert process.stdout is not None
            acknowledged = [int(await asyncio.to_thread(process.stdout.readline)) for _ in range(30)]
            process.kill()
            rest, _ = await asyncio.to_thread(process.communicate)
            acknowledged += [int(line) for line in rest.splitlines(keepends=True) if line.endswith(b"\n")]
            for number in acknowledged:
                assert await store.get(Device, f"dev-{number:06d}") is not None
        # The server may still be at what the last one sent.
        async with store.moment() as moment:
            devices = [each.id async for some in moment.nouns(Device) for each in some]
            requests = [each.request async for some in moment.nouns(Device) for each in some]
            assert requests == [each.id async for some in moment.nouns(ProvisionRequest) for each in some]
            assert len(devices) >= 90
            assert moment.audit_seq == 2 * len(devices)


def test_f_44_processes_migrate_at_once(postgres: PostgresServer) -> None:
    """F-44: four processes that find an empty database at once all open it, and one of them has migrated it."""
    options = postgres.options(postgres.empty_database())
    processes = [begin(options, "open") for _ in range(4)]
    told = [each.communicate(timeout=60) for each in processes]
    assert [each.returncode for each in processes] == [0] * 4, told
    assert postgres.ask("SELECT version_num FROM schema_version", database=options.database) == [str(SCHEMA.version)]


def test_f_44_a_process_killed_in_the_middle_of_a_migration(postgres: PostgresServer) -> None:
    """F-44: nothing of it stays, and the next one migrates from the beginning."""
    options = postgres.options(postgres.empty_database())
    postgres.administer(
        """CREATE FUNCTION wait() RETURNS event_trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(60); END $$""",
        """CREATE EVENT TRIGGER wait ON ddl_command_end WHEN TAG IN ('CREATE FUNCTION') EXECUTE FUNCTION wait()""",
        database=options.database,
    )
    process = begin(options, "open")
    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event = 'PgSleep'"
    until_s = time.monotonic() + 30
    while not postgres.ask(waits, options.database):
        assert time.monotonic() < until_s, process.poll()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    postgres.cut_connections(options.database)
    postgres.administer("DROP EVENT TRIGGER wait", "DROP FUNCTION wait", database=options.database)
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert postgres.ask(tables, database=options.database) == [0]
    again = begin(options, "open")
    assert (again.communicate(timeout=60)[1], again.returncode) == (b"", 0)


@in_loop
async def test_f_44_a_newer_schema_is_refused(postgres: PostgresServer, options: PostgresOptions) -> None:
    """F-44: this program does not open a database of a newer one, nor commits any more when it was open before."""
    async with opened(options) as store:
        await store.commit(walk_unit(1))
        postgres.administer("UPDATE schema_version SET version_num = '99'", database=options.database)
        with pytest.raises(Unavailable, match="schema 99 and this program knows schema"):
            await PostgresStore.open(options)
        with pytest.raises(Unavailable, match="a newer program has migrated it"):
            await store.commit(walk_unit(2))
        assert await store.count(Device) == 1
