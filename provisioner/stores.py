"""From settings to an open store. Each kind is imported when it is asked for, so that nobody pays for the others."""

from pathlib import Path

from provisioner.model.errors import InvalidInput, Problem
from provisioner.model.ports import Shared, Store
from provisioner.model.secret import Secret
from provisioner.store.one_process import OneProcess
from provisioner.store_settings import PostgresSettings, SqliteSettings, StoreSettings, TinyDbSettings

PASSWORD_CHARACTERS_MAX = 1_000


async def open_store(settings: StoreSettings, base: Path) -> Store:
    """The store that the settings name, relative to ``base``, made when it is not there. Raises Unavailable, and
    InvalidInput for a file that the settings name and nobody can use."""
    match settings:
        case TinyDbSettings():
            from provisioner.store.tinydb_store import TinyDbStore

            return await TinyDbStore.open(base / settings.path, requests_max=settings.requests_max)
        case SqliteSettings():
            from provisioner.store.sql.sqlite_store import SqliteStore

            return await SqliteStore.open(base / settings.path)
        case PostgresSettings():
            from provisioner.store.sql.postgres_options import PostgresOptions
            from provisioner.store.sql.postgres_store import PostgresStore

            secure = None if settings.is_local else "verify-full"
            options = PostgresOptions(
                host=settings.host,
                port=settings.port,
                database=settings.database,
                user=settings.user,
                password=_password(base / settings.password_file) if settings.password_file else None,
                sslmode=settings.sslmode or secure or "prefer",
                sslrootcert=str(base / settings.ca) if settings.ca else None,
                readers_max=settings.pool_max,
            )
            return await PostgresStore.open(options)


def shared_of(store: Store) -> Shared:
    """What the processes on this store share. For a store of one process: the same within its memory."""
    return store if isinstance(store, Shared) else OneProcess()


def _password(path: Path) -> Secret:
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        rule = "must name a readable file with one password"
        raise InvalidInput([Problem("store.password_file", rule, type(error).__name__)]) from None
    if not text or len(text) > PASSWORD_CHARACTERS_MAX or not text.isprintable():
        rule = "must hold one password on one line"
        raise InvalidInput([Problem("store.password_file", rule, f"{len(text)} characters")])
    return Secret(text)
