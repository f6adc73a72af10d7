"""The store ``sqlite``: the common contract, and what is its own."""

from pathlib import Path

import pytest

from provisioner.store.sql.sqlite_store import SqliteStore
from tests.contracts.store_contract import StoreContract


class SqlitePlace:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def open(self) -> SqliteStore:
        return await SqliteStore.open(self._path)


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    return SqlitePlace(tmp_path / "store" / "fleetgate.db")


class TestSqliteStore(StoreContract):
    """The contract, against a file."""
