"""From settings to an open store. Each kind is imported when it is asked for, so that nobody pays for the others."""

from pathlib import Path

from provisioner.model.ports import Store
from provisioner.store_settings import SqliteSettings, StoreSettings, TinyDbSettings


async def open_store(settings: StoreSettings, base: Path) -> Store:
    """The store that the settings name, relative to ``base``, made when it is not there. Raises Unavailable."""
    match settings:
        case TinyDbSettings():
            from provisioner.store.tinydb_store import TinyDbStore

            return await TinyDbStore.open(base / settings.path, requests_max=settings.requests_max)
        case SqliteSettings():
            from provisioner.store.sql.sqlite_store import SqliteStore

            return await SqliteStore.open(base / settings.path)
