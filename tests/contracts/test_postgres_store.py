"""The store for many gates, against a real PostgreSQL: the common contract, and what only it has."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from provisioner.model.errors import InvalidInput, Unavailable
from provisioner.model.secret import Secret
from provisioner.store.sql.postgres_options import PostgresOptions
from provisioner.store.sql.postgres_store import PostgresStore
from provisioner.store_settings import PostgresSettings, StoreSettings
from provisioner.stores import open_store, shared_of
from tests.contracts.shared_contract import SharedContract
from tests.contracts.store_contract import StoreContract, in_loop
from tests.support.postgres import PostgresServer


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


def test_the_password_is_shown_nowhere() -> None:
    """Neither the options as text nor what people are told of the place shows it."""
    options = PostgresOptions(password=Secret("Canary-word-7"))
    assert "Canary" not in repr(options) + options.place
    assert options.keywords()["password"] == "Canary-word-7"
