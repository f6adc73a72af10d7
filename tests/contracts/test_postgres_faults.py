"""The PostgreSQL store when its server, its connections or its disk misbehave."""

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from provisioner.model.audit import AuditEvent
from provisioner.model.device import Device
from provisioner.model.errors import Unavailable
from provisioner.store.sql.postgres_options import PostgresOptions
from provisioner.store.sql.postgres_store import PostgresStore
from tests.contracts.postgres_scene import (
    CALLERS,
    RECOVERED_S_MAX,
    Outcomes,
    assert_true,
    committing,
    follow,
    opened,
    recovered_s,
    until,
)
from tests.contracts.store_contract import in_loop
from tests.contracts.store_values import device, walk_unit
from tests.support.postgres import PostgresServer, running_postgres

TOLD_S_MAX = 3.0
CONNECT_S_LONG = 30  # so that what waits for a time-out, whichever it is, is told far too late


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of this module's own, for it is stopped and started."""
    with running_postgres() as running:
        yield running


@pytest.fixture
def options(server: PostgresServer) -> PostgresOptions:
    return server.options(server.fresh_database())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_restart_in_the_middle_of_commits(server: PostgresServer, options: PostgresOptions, how: Any) -> None:
    """Stopped and crashed, every commit of 50 callers is durable, or refused and absent; feeds miss no row; the
    store is back within five seconds of the server, by itself."""

    async def scenario() -> None:
        async with opened(options) as store, opened(options) as other:
            outcomes: Outcomes = {}
            stop = asyncio.Event()
            seen: list[AuditEvent] = []
            following = asyncio.create_task(follow(other, seen))
            running = asyncio.create_task(committing(store, outcomes, stop))
            await until(lambda: len(outcomes) > 200)
            await asyncio.to_thread(server.stop, how)
            await asyncio.to_thread(server.start)
            assert await recovered_s(store) < RECOVERED_S_MAX
            before = len(outcomes)
            await until(lambda: len(outcomes) > before + 200)
            stop.set()
            await running
            await assert_true(other, outcomes)
            last = (await other.audit_page(newest_first=True, limit=1))[0].seq
            await until(lambda: bool(seen) and seen[-1].seq == last)
            following.cancel()
            assert [row.seq for row in seen] == list(range(1, last + 1))

    asyncio.run(scenario())


def test_a_failover_in_the_middle_of_commits() -> None:
    """The server dies and its synchronous standby takes over: no commit is lost, none is made twice, and the store
    finds the new server by itself."""
    with running_postgres() as first, running_postgres(primary=first) as second:
        first.wait_for_each_commit()
        options = first.options(first.empty_database(), host=f"{first.address},{second.address}")

        async def scenario() -> None:
            async with opened(options) as store:
                outcomes: Outcomes = {}
                stop = asyncio.Event()
                running = asyncio.create_task(committing(store, outcomes, stop))
                await until(lambda: len(outcomes) > 200)
                await asyncio.to_thread(first.stop, signal.SIGQUIT)
                await asyncio.to_thread(second.promote)
                assert await recovered_s(store) < RECOVERED_S_MAX
                before = len(outcomes)
                await until(lambda: len(outcomes) > before + 200)
                stop.set()
                await running
                await assert_true(store, outcomes)

        asyncio.run(scenario())


@in_loop
async def test_connections_cut_in_the_middle_of_commits(server: PostgresServer, options: PostgresOptions) -> None:
    """However often pg_terminate_backend strikes, the outcome of each commit is found out, not guessed."""
    async with opened(options) as store:
        outcomes: Outcomes = {}
        stop = asyncio.Event()
        running = asyncio.create_task(committing(store, outcomes, stop))
        for cut in range(1, 21):
            await until(lambda so_far=cut: len(outcomes) > so_far * 50)  # type: ignore[misc]  # a default binds the loop's value
            await asyncio.sleep(random.random() / 100)
            await asyncio.to_thread(server.cut_connections, options.database)
        stop.set()
        await running
        assert sum(isinstance(each, int) for each in outcomes.values()) > 20 * 50 / 2
        await assert_true(store, outcomes)


@in_loop
async def test_a_server_that_is_away_is_told_of_quickly(server: PostgresServer, options: PostgresOptions) -> None:
    """While it is away nothing hangs: every verb raises Unavailable at once, opening does as well."""
    patient = replace(options, connect_s=CONNECT_S_LONG)
    async with opened(patient) as store:
        await store.commit(walk_unit(1))
        await asyncio.to_thread(server.stop)
        try:
            verbs: list[Callable[[], Awaitable[object]]] = [
                lambda: store.get(Device, "dev-000001"),
                lambda: store.page(Device),
                lambda: store.commit(walk_unit(2)),
                store.health,
                lambda: store.notify("x"),
                lambda: store.acquire("effects", "a", 1),
                lambda: store.adopt([device(7, version=1)]),
                lambda: PostgresStore.open(patient),
            ]
            for verb in verbs:
                began_s = time.monotonic()
                with pytest.raises(Unavailable, match="cannot be reached"):
                    await verb()
                assert time.monotonic() - began_s < TOLD_S_MAX
        finally:
            await asyncio.to_thread(server.start)
        assert await recovered_s(store) < RECOVERED_S_MAX
        await store.commit(walk_unit(2))
        assert await store.count(Device) == 2


@in_loop
async def test_what_cannot_be_found_out_is_not_called_undone(server: PostgresServer, options: PostgresOptions) -> None:
    """A server that stays away after a connection broke during a commit: the commit says that nobody knows, those
    behind it that nothing was done; and both are true afterwards."""
    async with opened(replace(options, settle_s=0.5)) as store:
        outcomes: Outcomes = {}
        stop = asyncio.Event()
        running = asyncio.create_task(committing(store, outcomes, stop))
        await until(lambda: len(outcomes) > 100)
        await asyncio.to_thread(server.stop, signal.SIGQUIT)
        try:
            await until(lambda: sum(isinstance(each, Unavailable) for each in outcomes.values()) > 2 * CALLERS)
        finally:
            await asyncio.to_thread(server.start)
        stop.set()
        await running
        unknown = {number for number, each in outcomes.items() if "is not known" in str(each)}
        assert len(unknown) <= CALLERS
        for number, outcome in outcomes.items():
            if number not in unknown:
                stored = await store.get(Device, f"dev-{number:06d}")
                assert (stored is not None) == isinstance(outcome, int), (number, outcome)


@in_loop
async def test_a_connection_that_hangs_is_cut(server: PostgresServer, options: PostgresOptions) -> None:
    """A server process that stops answering costs a commit some seconds, and it is made once."""
    async with opened(replace(options, statement_s=0.5)) as store:
        await store.commit(walk_unit(1))
        find = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND query LIKE 'SELECT fleetgate_commit%%'"
        (pid,) = server.ask(find, options.database)
        os.kill(pid, signal.SIGSTOP)
        try:
            assert await store.commit(walk_unit(2)) == 4
        finally:
            os.kill(pid, signal.SIGCONT)
        assert await store.commit(walk_unit(3)) == 6
        await assert_true(store, {1: 2, 2: 4, 3: 6})


@in_loop
async def test_a_read_only_server_commits_nothing(server: PostgresServer, options: PostgresOptions) -> None:
    """F-42: Unavailable, nothing changed, reads go on; and it goes on by itself once the server takes writes again."""
    async with opened(options) as store:
        await store.commit(walk_unit(1))
        read_only = sql.SQL("ALTER SYSTEM SET default_transaction_read_only = {}")
        server.administer(read_only.format(sql.Literal("on")), "SELECT pg_reload_conf()")
        try:
            with pytest.raises(Unavailable):
                async with asyncio.timeout(5):  # a server process reads its settings when it likes
                    while True:
                        await store.health()
            for _ in range(2):
                with pytest.raises(Unavailable, match="it is read-only"):
                    await store.commit(walk_unit(2))
            assert await store.get(Device, "dev-000001") is not None
        finally:
            off = "SET default_transaction_read_only = off"
            server.administer(off, read_only.format(sql.Literal("off")), "SELECT pg_reload_conf()")
        assert await recovered_s(store) < RECOVERED_S_MAX
        await assert_true(store, {1: 2})


@in_loop
async def test_a_full_disk_refuses_a_unit_and_nothing_else(server: PostgresServer, options: PostgresOptions) -> None:
    """F-42: the unit that did not fit is Unavailable and leaves nothing, the one beside it is committed."""
    async with opened(options) as store:
        server.administer(
            """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF new.id = 'dev-000002' THEN RAISE disk_full; END IF; RETURN new; END $$""",
            "CREATE TRIGGER full_disk BEFORE INSERT ON device FOR EACH ROW EXECUTE FUNCTION full_disk()",
            database=options.database,
        )
        commits = [asyncio.create_task(store.commit(walk_unit(number))) for number in (1, 2, 3)]
        first, second, third = await asyncio.gather(*commits, return_exceptions=True)
        assert isinstance(second, Unavailable)
        assert "its disk is full; nothing was changed" in str(second)
        assert (first, third) == (2, 4)
        await assert_true(store, {1: 2, 2: second, 3: 4})


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted, which an ordinary user may not")
def test_a_disk_that_fills_up() -> None:
    """F-42: on a disk of a few megabytes commits go on until it is full, then they are Unavailable and change nothing;
    when there is room again they go on."""
    with running_postgres() as server:
        disk = server.folder / "small"
        disk.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size=12m,mode=700,uid={server.folder.stat().st_uid}", "tmpfs", disk],
            check=True,
        )
        try:
            asyncio.run(fill_up(server, disk))
        finally:
            server.stop(signal.SIGQUIT)
            subprocess.run(["umount", disk], check=True)


@in_loop
async def test_signals_outlive_a_restart(server: PostgresServer, options: PostgresOptions) -> None:
    """A listener is told that it may have missed something, and hears what comes after; a lease is still held."""
    async with opened(options) as store, opened(options) as other:
        fence = await store.acquire("effects", "a", 60)
        heard: list[str | None] = []

        async def listen() -> None:
            async for message in other.signals():
                heard.append(message)

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        await store.notify("before")
        await until(lambda: "before" in heard)
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        await until(lambda: heard[-1] is None)
        await store.notify("after")
        await until(lambda: heard[-1] == "after")
        listening.cancel()
        assert await other.acquire("effects", "b", 60) is None
        assert fence is not None
        assert await store.renew("effects", fence, 60)


async def fill_up(server: PostgresServer, disk: Path) -> None:
    place = sql.SQL("CREATE TABLESPACE small LOCATION {}").format(sql.Literal(str(disk)))
    options = server.options(server.empty_database())
    move = sql.SQL("ALTER DATABASE {} SET TABLESPACE small").format(sql.Identifier(options.database))
    server.administer(place, move)
    async with opened(options) as store:
        outcomes: Outcomes = {}
        for number in range(20_000):
            try:
                outcomes[number] = await store.commit(walk_unit(number))
            except Unavailable as error:
                outcomes[number] = error
                assert "its disk is full" in str(error)
                break
        assert isinstance(outcomes[len(outcomes) - 1], Unavailable)
        await assert_true(store, outcomes)
        await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=64m", disk], check=True)
        await store.commit(walk_unit(30_000))
