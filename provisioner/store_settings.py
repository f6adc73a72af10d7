"""Settings of the store: which kind it is, and where."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TinyDbSettings(_Part):
    """A folder of files that people can read; up to ``requests_max`` requests."""

    kind: Literal["tinydb"] = "tinydb"
    path: Path = Path("data")
    requests_max: int = Field(default=10_000, ge=1, le=10_000)


class SqliteSettings(_Part):
    """One database file, and beside it those that SQLite makes; millions of requests, one process."""

    kind: Literal["sqlite"]
    path: Path = Path("data/fleetgate.db")


def _kind(store: Any) -> str:
    """The discriminator; a mapping that names no kind is the default store."""
    kind = store.get("kind", "tinydb") if isinstance(store, Mapping) else getattr(store, "kind", "")
    return str(kind)


StoreSettings = Annotated[
    Annotated[TinyDbSettings, Tag("tinydb")] | Annotated[SqliteSettings, Tag("sqlite")],
    Discriminator(_kind),
]
"""A new kind: a class above, its tag here, and a case in ``provisioner.stores``."""
