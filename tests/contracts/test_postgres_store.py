"""The store for many gates, against a real PostgreSQL: the common contract, and what only it has."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from provisioner.model.errors import InvalidInput, Unavailable
from provisioner.model.secret import Secret
from provisioner.store.sql.postgres_options import PostgresOptions
from provisioner.store.sql.postgres_store import PostgresStore
from provisioner.store_settings import PostgresSettings, StoreSettings
from provisioner.stores import open_store, shared_of
from tests.contracts.shared_contract import SharedContract
from tests.contracts.store_contract import StoreContract, in_loop
from tests.support.papers import CLIENT, DAY, Paper
from tests.support.postgres import PostgresServer, running_postgres

HERE = ("127.0.0.1",)


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
