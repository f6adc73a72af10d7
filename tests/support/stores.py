"""A place for a store of each kind, as settings, as the command line names it, and opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from provisioner.model.ports import Store
from provisioner.store_settings import StoreSettings
from provisioner.stores import open_store

KINDS = ("tinydb", "sqlite", "postgresql")


@dataclass(frozen=True, slots=True)
class StoreSite:
    """settings: what stands below ``store:``. url: how ``fleetgate store migrate`` takes it."""

    settings: Mapping[str, Any]
    url: str

    @property
    def kind(self) -> str:
        return str(self.settings["kind"])

    async def open(self, **changes: Any) -> Store:
        parsed: StoreSettings = TypeAdapter(StoreSettings).validate_python({**self.settings, **changes})
        return await open_store(parsed, Path("/"))


def empty_site(kind: str, folder: Path, request: pytest.FixtureRequest) -> StoreSite:
    """Nothing is there yet. A PostgreSQL is started by the first test that asks for one."""
    if kind == "tinydb":
        return StoreSite({"kind": kind, "path": str(folder / "data")}, f"tinydb:{folder / 'data'}")
    if kind == "sqlite":
        path = folder / "fleetgate.db"
        return StoreSite({"kind": kind, "path": str(path)}, f"sqlite:{path}")
    server = request.getfixturevalue("postgres")
    options = server.options(server.empty_database())
    folder.mkdir(parents=True, exist_ok=True)
    password = folder / "password"
    password.write_text(options.password.reveal())
    password.chmod(0o600)
    settings = {
        "kind": kind,
        "port": options.port,
        "database": options.database,
        "user": options.user,
        "password_file": str(password),
    }
    url = f"postgresql://{options.user}@127.0.0.1:{options.port}/{options.database}?password_file={password}"
    return StoreSite(settings, url)
