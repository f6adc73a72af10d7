"""Names of tables, columns and indexes. What reads and writes records needs no more, and so no SQLAlchemy."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SCHEMA_VERSION_TABLE = "schema_version"  # one row, ``version_num``: the number of the last migration as text
AUDIT = "audit"
META = "meta"


@dataclass(frozen=True, slots=True)
class Indexes:
    """The names that ``unique()`` and ``indexed()`` of a noun may return, those that few records share first.

    combined: listings that filter by several of them at once; a listing by others reads through the rows of one."""

    unique: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    combined: tuple[tuple[str, ...], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return self.unique + self.shared

    def best(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """The index that leaves the fewest rows to read through. Raises KeyError for a name that is none."""
        asked = set(wanted)
        if unknown := asked - set(self.names):
            raise KeyError(f"no index {sorted(unknown)[0]}")
        first = next(name for name in self.names if name in asked)
        return next((each for each in self.combined if first in each and asked.issuperset(each)), (first,))


INDEXES: Mapping[str, Indexes] = {
    "account": Indexes(shared=("broker",)),
    "provision_user": Indexes(shared=("account",)),
    "request": Indexes(
        unique=("login", "client_id"),
        shared=(
            *("grant_user", "any_login", "any_client_id", "folded_client_id"),
            *("open_keyless_username", "open_username", "username", "account", "state"),
        ),
        combined=(("account", "state"),),
    ),
    "device": Indexes(
        unique=("request", "client_id"),
        shared=("any_client_id", "account", "state"),
        combined=(("account", "state"),),
    ),
    "account_user": Indexes(shared=("device", "account")),
    "effect": Indexes(shared=("broker",)),
    "epoch": Indexes(),
}


def index_name(kind: str, columns: Iterable[str]) -> str:
    return f"{kind}_by_{'_'.join(columns)}"
