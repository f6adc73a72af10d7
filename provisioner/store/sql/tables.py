"""The tables of both SQL stores: one a kind of noun, the audit log, and what is known of the store itself.

A noun is kept as the JSON that every store writes, beside a text column for each of its indexes. NULL stands where an
index does not apply to the record, and such a record is in no index. Every index ends in the id, so that listings by
id read on where they stopped, however many rows there are. Text is compared by its bytes, as Python does.
"""

from collections.abc import Mapping

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, MetaData, Table, Text, and_

from provisioner.store.sql.names import AUDIT, INDEXES, META, SCHEMA_VERSION_TABLE, Indexes, index_name

__all__ = [
    "AUDIT",
    "INDEXES",
    "META",
    "NOUN_TABLES",
    "SCHEMA_VERSION_TABLE",
    "Indexes",
    "audit",
    "index_name",
    "meta",
    "metadata",
]

# The collation "C" of PostgreSQL is by bytes; it is all that SQLite has.
BYTEWISE = Text().with_variant(Text(collation="C"), "postgresql")
# SQLite makes only a column of the type INTEGER the number of its row.
SEQ = BigInteger().with_variant(Integer(), "sqlite")


metadata = MetaData()


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
