"""Schema 1: the first tables."""

import sqlalchemy as sa
from alembic import op

from provisioner.store.sql.migrations import postgres_1

revision = "1"
down_revision = None

# kind -> (indexes of one holder, indexes of many, indexes over several columns), as they were in schema 1.
_KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, ...], ...]]] = {
    "account": ((), ("broker",), ()),
    "provision_user": ((), ("account",), ()),
    "request": (
        ("login", "client_id"),
        (
            *("grant_user", "any_login", "any_client_id", "folded_client_id"),
            *("open_keyless_username", "open_username", "username", "account", "state"),
        ),
        (("account", "state"),),
    ),
    "device": (("request", "client_id"), ("any_client_id", "account", "state"), (("account", "state"),)),
    "account_user": ((), ("device", "account"), ()),
    "effect": ((), ("broker",), ()),
    "epoch": ((), (), ()),
}
_BYTEWISE = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for kind, (unique, shared, combined) in _KINDS.items():
        op.create_table(
            kind,
            sa.Column("id", _BYTEWISE, primary_key=True),
            sa.Column("version", sa.Integer, nullable=False),
            sa.Column("record", sa.Text, nullable=False),
            *(sa.Column(name, _BYTEWISE) for name in unique + shared),
        )
        for name in unique:
            _index(kind, (name,), unique=True)
        for names in (*((name,) for name in shared), *combined):
            _index(kind, names, unique=False)
    op.create_table(
        "audit",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_table(
        "meta",
        sa.Column("one", sa.Integer, sa.CheckConstraint("one = 1"), primary_key=True, autoincrement=False),
        sa.Column("audit_seq", _SEQ, nullable=False),
    )
    op.execute("INSERT INTO meta (one, audit_seq) VALUES (1, 0)")
    if op.get_bind().dialect.name == "postgresql":
        for statement in postgres_1.statements(_KINDS):
            op.execute(statement)


def _index(kind: str, names: tuple[str, ...], *, unique: bool) -> None:
    present = sa.text(" AND ".join(f"{name} IS NOT NULL" for name in names))
    op.create_index(
        f"{kind}_by_{'_'.join(names)}",
        kind,
        [*names, *(() if unique else ("id",))],
        unique=unique,
        sqlite_where=present,
        postgresql_where=present,
    )
