"""Settings of the store: which kind it is, and where."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

_LOCAL = frozenset(("127.0.0.1", "::1", "localhost"))


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


class PostgresSettings(_Part):
    """A PostgreSQL database, which any number of processes share.

    host: a name, an address or the folder of a socket; several, joined by commas, are tried in turn until one of them
    takes writes. password_file: one line, relative to the settings; None where the server asks for no password.
    sslmode: as libpq has it; None: ``prefer`` on this machine, ``verify-full`` to any other. ca: PEM file of the
    certificates to trust, None: those of the system. pool_max: connections that read; a process has up to two more.
    """

    kind: Literal["postgresql"]
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=5432, ge=1, le=65_535)
    database: str = Field(default="fleetgate", min_length=1)
    user: str = Field(default="fleetgate", min_length=1)
    password_file: Path | None = None
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] | None = None
    ca: Path | None = None
    pool_max: int = Field(default=4, ge=1, le=100)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sslmode == "verify-ca" and self.ca is None:
            raise ValueError("sslmode verify-ca needs ca: any name in a certificate of any public authority would do")
        return self

    @property
    def is_local(self) -> bool:
        """Whether nothing leaves this machine."""
        return all(host in _LOCAL or host.startswith("/") for host in self.host.split(","))


def _kind(store: Any) -> str:
    """The discriminator; a mapping that names no kind is the default store."""
    kind = store.get("kind", "tinydb") if isinstance(store, Mapping) else getattr(store, "kind", "")
    return str(kind)


StoreSettings = Annotated[
    Annotated[TinyDbSettings, Tag("tinydb")]
    | Annotated[SqliteSettings, Tag("sqlite")]
    | Annotated[PostgresSettings, Tag("postgresql")],
    Discriminator(_kind),
]
"""A new kind: a class above, its tag here, and a case in ``provisioner.stores``."""
