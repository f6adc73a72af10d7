"""The tables of both SQL stores: one a kind of noun, the audit log, and what is known of the store itself.

A noun is kept as the JSON that every store writes, beside a text column for each of its indexes. NULL stands where an
index does not apply to the record, and such a record is in no index. Every index ends in the id, so that listings by
id read on where they stopped, however many rows there are. Text is compared by its bytes, as Python does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, MetaData, Table, Text, and_

SCHEMA_VERSION_TABLE = "schema_version"  # one row, ``version_num``: the number of the last migration as text
AUDIT = "audit"
META = "meta"

# The collation "C" of PostgreSQL is by bytes; it is all that SQLite has.
BYTEWISE = Text().with_variant(Text(collation="C"), "postgresql")
# SQLite makes only a column of the type INTEGER the number of its row.
SEQ = BigInteger().with_variant(Integer(), "sqlite")


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
        shared=("grant_user", "any_login", "any_client_id", "folded_client_id", "username", "account", "state"),
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

metadata = MetaData()


def index_name(kind: str, columns: Iterable[str]) -> str:
    return f"{kind}_by_{'_'.join(columns)}"


def _noun_table(kind: str, indexes: Indexes) -> Table:
    """record: the noun's JSON, its version included."""
    table = Table(
        kind,
        metadata,
        Column("id", BYTEWISE, primary_key=True),
        Column("version", Integer, nullable=False),
        Column("record", Text, nullable=False),
        *(Column(name, BYTEWISE) for name in indexes.names),
    )
    for name in indexes.unique:
        _add_index(table, (name,), unique=True)
    for names in (*((name,) for name in indexes.shared), *indexes.combined):
        _add_index(table, names)
    return table


def _add_index(table: Table, names: tuple[str, ...], *, unique: bool = False) -> None:
    columns = [table.c[name] for name in names]
    present = and_(*(column.is_not(None) for column in columns))
    Index(
        index_name(table.name, names),
        *columns,
        *(() if unique else (table.c.id,)),
        unique=unique,
        sqlite_where=present,
        postgresql_where=present,
    )


NOUN_TABLES: Mapping[str, Table] = {kind: _noun_table(kind, indexes) for kind, indexes in INDEXES.items()}

audit = Table(
    AUDIT,
    metadata,
    Column("seq", SEQ, primary_key=True, autoincrement=False),
    Column("record", Text, nullable=False),
)

# audit_seq: of the last audit row ever written.
meta = Table(
    META,
    metadata,
    Column("one", Integer, CheckConstraint("one = 1"), primary_key=True, autoincrement=False),
    Column("audit_seq", SEQ, nullable=False),
)
