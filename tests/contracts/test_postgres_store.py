"""The store for many gates, against a real PostgreSQL: the common contract, and what only it has."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import create_engine, inspect
from sqlalchemy.pool import NullPool

from provisioner.model.device import Device
from provisioner.model.errors import InvalidInput, Unavailable
from provisioner.model.ports import Put, Unit
from provisioner.model.request import ProvisionRequest
from provisioner.model.secret import Secret
from provisioner.store.sql.postgres_options import PostgresOptions
from provisioner.store.sql.postgres_store import PostgresStore
from provisioner.store.sql.tables import SCHEMA_VERSION_TABLE, metadata
from provisioner.store_settings import PostgresSettings, StoreSettings
from provisioner.stores import open_store, shared_of
from tests.contracts.shared_contract import SharedContract
from tests.contracts.store_contract import StoreContract, in_loop
from tests.contracts.store_values import device, effect, walk_unit
from tests.support.papers import CLIENT, DAY, Paper
from tests.support.postgres import PostgresServer, running_postgres

HERE = ("127.0.0.1",)
CONNECTED = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
TRANSACTIONS = "SELECT xact_commit FROM pg_stat_database WHERE datname = %s"


class PostgresPlace:
    def __init__(self, options: PostgresOptions) -> None:
        self.options = options

    async def open(self) -> PostgresStore:
        return await PostgresStore.open(self.options)

    enter = open


@pytest.fixture
def place(postgres: PostgresServer) -> PostgresPlace:
    return PostgresPlace(postgres.options(postgres.fresh_database()))


@pytest.fixture
def hall(place: PostgresPlace) -> PostgresPlace:
    return place


class TestPostgresStore(StoreContract):
    """The contract."""


class TestPostgresShared(SharedContract):
    """Signals and leases between processes."""


OWN_TABLES = {"receipt", "lease"}  # what only this store has


def test_migrations_make_the_declared_tables(postgres: PostgresServer) -> None:
    """A migrated database has the tables, columns and indexes that are declared, and two tables of this store's own."""
    keywords = postgres.options(postgres.fresh_database()).keywords()
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(**keywords), poolclass=NullPool)
    with engine.connect() as connection:
        names = set(inspect(connection).get_table_names())
        assert names == {*metadata.tables, *OWN_TABLES, SCHEMA_VERSION_TABLE}
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": SCHEMA_VERSION_TABLE,
                "include_name": lambda name, kind, parents: kind != "table" or name not in OWN_TABLES,
            },
        )
        assert compare_metadata(context, metadata) == []


@in_loop
async def test_settings_open_it(postgres: PostgresServer, tmp_path: Path) -> None:
    """The settings name a file with the password; what is wrong with it is told by the name of the setting."""
    options = postgres.options(postgres.fresh_database())
    assert options.password is not None
    (tmp_path / "word").write_text(options.password.reveal() + "\n")
    told = {"kind": "postgresql", "port": options.port, "database": options.database, "password_file": "word"}
    settings = TypeAdapter(StoreSettings).validate_python(told)
    store = await open_store(settings, tmp_path)
    try:
        assert isinstance(store, PostgresStore)
        assert shared_of(store) is store
        await store.health()
    finally:
        await store.close()
    (tmp_path / "word").write_text("wrong\n")
    with pytest.raises(Unavailable, match="password authentication failed") as refused:
        await open_store(settings, tmp_path)
    assert "wrong" not in str(refused.value)
    for contents in ("", "two\nlines"):
        (tmp_path / "word").write_text(contents)
        with pytest.raises(InvalidInput, match=r"store\.password_file"):
            await open_store(settings, tmp_path)


@pytest.mark.parametrize(
    ("host", "is_local"), [("127.0.0.1", True), ("/run/pg", True), ("localhost,::1", True), ("db1,localhost", False)]
)
def test_only_this_machine_is_trusted_unseen(host: str, is_local: bool) -> None:
    """Where the network lies between, the server's certificate is verified unless the settings say otherwise."""
    settings = PostgresSettings(kind="postgresql", host=host)
    assert settings.is_local == is_local


PAPERS: dict[str, Callable[[Paper], Paper]] = {
    "another name": lambda authority: authority.issue("db", hosts=("db.example.org",)),
    "expired": lambda authority: authority.issue("db", hosts=HERE, life=(-2 * DAY, -DAY)),
    "another authority": lambda authority: Paper.authority().issue("db", hosts=HERE),
    "for clients": lambda authority: authority.issue("db", hosts=HERE, usage=CLIENT),
}


@in_loop
async def test_f_45_the_server_is_verified(tmp_path: Path) -> None:
    """F-45: only a certificate of the named authority, for this host, good now and for servers opens the store, and
    then every connection is encrypted; a server without TLS does not."""
    authority = Paper.authority()
    (tmp_path / "ca.pem").write_text(authority.pem)
    with running_postgres() as server:
        strict = server.options(server.empty_database(), sslmode="verify-full", sslrootcert=str(tmp_path / "ca.pem"))
        with pytest.raises(Unavailable, match="server does not support SSL"):
            await PostgresStore.open(strict)
        for fault, issued in PAPERS.items():
            server.secure(issued(authority))
            with pytest.raises(Unavailable, match=r"certificate|SSL error") as refused:
                await PostgresStore.open(strict)
            assert "cannot be reached" in str(refused.value), fault
        server.secure(authority.issue("db", hosts=HERE))
        store = await PostgresStore.open(strict)
        try:
            encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = %s"
            assert server.ask(encrypted, strict.user) == [True]
        finally:
            await store.close()
    with pytest.raises(ValidationError, match="verify-ca needs ca"):
        PostgresSettings(kind="postgresql", sslmode="verify-ca")


def test_the_password_is_shown_nowhere() -> None:
    """Neither the options as text nor what people are told of the place shows it."""
    options = PostgresOptions(password=Secret("Canary-word-7"))
    assert "Canary" not in repr(options) + options.place
    assert options.keywords()["password"] == "Canary-word-7"


@in_loop
async def test_what_no_text_of_the_database_can_hold(place: PostgresPlace) -> None:
    """A NUL or half a character finds nothing, and in an id or an index value it is an InvalidInput; inside a record it
    is as good as any other character."""
    store = await place.open()
    try:
        for text in ("a\0b", "\ud800"):
            assert await store.get(ProvisionRequest, text) is None
            assert await store.find(ProvisionRequest, "login", text) == []
            assert (await store.page(ProvisionRequest, where={"account": text})).items == []
            assert await store.count(ProvisionRequest, where={"account": text}) == 0
        odd = replace(device(1), metadata={"note": "a\0b"})
        with pytest.raises(InvalidInput, match="without NUL"):
            await store.commit(Unit([Put(odd), Put(replace(effect(1), id="a\0b"))]))
        with pytest.raises(InvalidInput, match="too long for an index"):
            await store.commit(Unit([Put(replace(effect(1), broker=token_hex(5_000)))]))
        await store.commit(Unit([Put(odd)]))
        assert await store.get(Device, odd.id) == replace(odd, version=1)
        assert [each.id for each in (await store.page(Device, after="dev-000000\0x")).items] == [odd.id]
    finally:
        await store.close()


@in_loop
async def test_waiting_reads_and_commits_share_statements(place: PostgresPlace, postgres: PostgresServer) -> None:
    """Two hundred devices that come at once cost some twenty statements, not hundreds."""
    store = await place.open()
    try:
        before = postgres.ask(TRANSACTIONS, place.options.database)[0]
        await asyncio.gather(*(store.commit(walk_unit(number)) for number in range(200)))
        found = await asyncio.gather(*(store.get(Device, f"dev-{number:06d}") for number in range(200)))
        assert [each.id for each in found if each is not None] == [f"dev-{number:06d}" for number in range(200)]
        await store.close()  # a server process tells what it did when it ends
        async with asyncio.timeout(10):
            while postgres.ask(CONNECTED, place.options.database):  # noqa: ASYNC110  # they end in their own time
                await asyncio.sleep(0.02)
        assert 4 <= postgres.ask(TRANSACTIONS, place.options.database)[0] - before < 40
    finally:
        await store.close()
