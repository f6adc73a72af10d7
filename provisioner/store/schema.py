"""What the stores keep: one tuple of noun classes, one schema number and the steps from older numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import orjson

from provisioner.model.account import Account
from provisioner.model.device import Device
from provisioner.model.effect import Effect
from provisioner.model.epoch import Epoch
from provisioner.model.errors import Unavailable
from provisioner.model.ports import Noun
from provisioner.model.records import Row
from provisioner.model.request import ProvisionRequest
from provisioner.model.user import AccountUser, ProvisionUser

NOUNS: tuple[type[Noun], ...] = (Account, ProvisionUser, ProvisionRequest, Device, AccountUser, Effect, Epoch)

Rows = dict[str, list[Row]]  # kind (``audit`` among them) -> rows
Migration = Callable[[Rows], Rows]


@dataclass(frozen=True, slots=True)
class Schema:
    """version: what this program writes. migrations: n -> how rows of version n become rows of version n + 1."""

    version: int = 1
    nouns: tuple[type[Noun], ...] = NOUNS
    migrations: Mapping[int, Migration] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if missing := set(range(1, self.version)) - self.migrations.keys():
            raise ValueError(f"no migration from schema {min(missing)}")

    def check(self, version: int) -> None:
        """F-44: what a newer program wrote is refused with Unavailable, for this one would misread it."""
        if version > self.version:
            raise Unavailable(
                f"the store was written with schema {version} and this program knows schema {self.version}: "
                "upgrade the program, or restore a backup made before the upgrade"
            )

    def migrated(self, rows: Rows, version: int) -> Rows:
        """Rows of ``version`` in today's form."""
        for step in range(version, self.version):
            rows = self.migrations[step](rows)
        return rows


SCHEMA = Schema()


def to_json(value: object) -> bytes:
    """The same JSON that ``records.dump`` describes, made without the detour over a row.

    Raises TypeError for what JSON cannot carry: numbers beyond 64 bits, lone surrogates, keys that are no text."""
    return orjson.dumps(value, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")
