"""The store for many gates, against a real PostgreSQL: the common contract, and what only it has."""

import pytest

from provisioner.store.sql.postgres_options import PostgresOptions
from provisioner.store.sql.postgres_store import PostgresStore
from tests.contracts.shared_contract import SharedContract
from tests.contracts.store_contract import StoreContract
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
