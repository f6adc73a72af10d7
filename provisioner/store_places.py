"""Stores as they are named on a command line, and opened for a copy: ``tinydb:FOLDER``, ``sqlite:FILE`` and
``postgresql://USER@HOST:PORT/DATABASE?password_file=FILE``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import TypeAdapter, ValidationError

from provisioner.config import rule_of
from provisioner.model.epoch import Epoch
from provisioner.model.errors import FleetgateError, InvalidInput, Problem, shape
from provisioner.model.ports import Store
from provisioner.services.copying import Place, usable_epoch
from provisioner.services.epochwatch import NOTICED_S
from provisioner.store_settings import PostgresSettings, SqliteSettings, StoreSettings, TinyDbSettings
from provisioner.stores import open_store

FORMS = "tinydb:FOLDER, sqlite:FILE or postgresql://USER@HOST:PORT/DATABASE?password_file=FILE"


def read_place(text: str) -> StoreSettings:
    """The settings of a store that is named like this. Raises InvalidInput, which shows no password."""
    kind, colon, rest = text.partition(":")
    if kind in ("tinydb", "sqlite") and rest:
        return _settings({"kind": kind, "path": rest})
    if kind == "postgresql" and colon:
        return _settings({"kind": kind, **_postgres(text)})
    raise InvalidInput([Problem("store", f"must be {FORMS}", shape(text))])


def _postgres(text: str) -> dict[str, Any]:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise InvalidInput([Problem("store", f"must be {FORMS}", shape(text))]) from None
    if url.password is not None:
        rule = "must not be on a command line, which everybody can read: put it in a file and name that"
        raise InvalidInput([Problem("store.password", rule, shape(url.password))])
    given = {"host": url.hostname, "port": port, "database": url.path.strip("/"), "user": unquote(url.username or "")}
    return {name: value for name, value in given.items() if value} | dict(parse_qsl(url.query))


def _settings(values: dict[str, Any]) -> StoreSettings:
    adapter: TypeAdapter[StoreSettings] = TypeAdapter(StoreSettings)
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        raise InvalidInput(
            Problem(".".join(["store", *map(str, e["loc"][1:])]), rule_of(e), shape(e["input"]))
            for e in error.errors(include_url=False, include_context=False)
        ) from None


def name_of(settings: StoreSettings, base: Path) -> str:
    """As it is named on a command line, wherever one stands; without what only says how to get in."""
    if isinstance(settings, PostgresSettings):
        return f"postgresql://{settings.user}@{settings.host}:{settings.port}/{settings.database}"
    return f"{settings.kind}:{(base / settings.path).resolve()}"


def yaml_of(settings: StoreSettings) -> dict[str, Any]:
    """What stands below ``store:`` in the settings of an installation."""
    return settings.model_dump(mode="json", exclude_defaults=True) | {"kind": settings.kind}


@asynccontextmanager
async def opened(settings: StoreSettings, base: Path, *, existing: bool = False) -> AsyncIterator[Place]:
    """existing: InvalidInput when it is not there, rather than a new one. Others as of ``open_store``."""
    name = name_of(settings, base)
    if existing and not _is_there(settings, base):
        raise InvalidInput([Problem("store", f"must be there already, {name} is not", "nothing")])
    store = await open_store(settings, base)
    try:
        shared = isinstance(settings, PostgresSettings)
        yield Place(store=store, name=name, settle_s=NOTICED_S if shared else 0.0)
    finally:
        await store.close()


async def open_usable(settings: StoreSettings, base: Path) -> tuple[Store, Epoch]:
    """For a service. Raises Conflict for half a copy, or for what was moved elsewhere; others as ``open_store``."""
    store = await open_store(settings, base)
    try:
        return store, await usable_epoch(store)
    except FleetgateError:
        await store.close()
        raise


def _is_there(settings: StoreSettings, base: Path) -> bool:
    if isinstance(settings, TinyDbSettings):
        return (base / settings.path / "store.json").is_file()
    return not isinstance(settings, SqliteSettings) or (base / settings.path).is_file()
