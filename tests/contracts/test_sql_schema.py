"""The tables of the SQL stores: what is declared, what the migrations make, and how records lie in them."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import NullPool

from provisioner.model.errors import InvalidInput, Unavailable
from provisioner.model.ports import Noun
from provisioner.model.request import RequestState
from provisioner.store.schema import NOUNS, SCHEMA
from provisioner.store.sql import migrate, rows
from provisioner.store.sql.tables import INDEXES, SCHEMA_VERSION_TABLE, metadata
from tests.contracts.store_values import full_request, one_of_each, request


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(tmp_path / "tables.db", isolation_level=None)

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    event.listen(engine, "begin", lambda begun: begun.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.connect() as opened:
        yield opened


def all_forms() -> list[Noun]:
    """Records of every kind in each form that has indexes of its own."""
    return [*one_of_each(), full_request(3), request(4, state=RequestState.REVOKED)]


def test_each_index_of_each_noun_has_a_column() -> None:
    """The declared names are exactly those that unique() and indexed() can return, and no more."""
    assert INDEXES.keys() == {noun.kind for noun in NOUNS}
    for kind, indexes in INDEXES.items():
        forms = [noun for noun in all_forms() if noun.kind == kind]
        assert {name for noun in forms for name in noun.unique()} == set(indexes.unique)
        assert {name for noun in forms for name in noun.indexed()} == set(indexes.shared)
        assert all(set(names) <= set(indexes.names) for names in indexes.combined)


def test_migrations_make_the_declared_tables(connection: Connection) -> None:
    """A new database has the tables, columns and indexes that are declared, and nothing else."""
    migrate.migrate(connection)
    context = MigrationContext.configure(connection, opts={"version_table": SCHEMA_VERSION_TABLE})
    assert compare_metadata(context, metadata) == []


def test_every_schema_number_has_its_step() -> None:
    """One number for all stores: the steps are 1, 2, ... up to the schema that the program writes."""
    config = Config()
    config.set_main_option("script_location", str(migrate.STEPS[0].parent))
    config.set_main_option("path_separator", "newline")
    steps = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert steps[::-1] == [str(number) for number in range(1, SCHEMA.version + 1)]


def test_a_schema_is_made_once(connection: Connection) -> None:
    """Opening again changes nothing, and the number can be read."""
    assert migrate.version(connection) == 0
    for _ in range(2):
        migrate.migrate(connection)
        assert migrate.version(connection) == SCHEMA.version


def test_a_newer_schema_is_refused(connection: Connection) -> None:
    """F-44: a downgrade is refused with both numbers."""
    migrate.migrate(connection)
    connection.exec_driver_sql(f"UPDATE {SCHEMA_VERSION_TABLE} SET version_num = '9'")
    with pytest.raises(Unavailable, match=f"schema 9 .* knows schema {SCHEMA.version}"):
        migrate.migrate(connection)


@pytest.mark.parametrize("noun", all_forms(), ids=lambda noun: f"{noun.kind}-{noun.id}")
def test_a_row_holds_the_noun_and_its_indexes(noun: Noun) -> None:
    """The record loads back to an equal noun one version on; each index has its value, and NULL where it has none."""
    row = dict(zip(rows.COLUMNS[noun.kind], rows.as_put(noun), strict=True))
    assert rows.loaded(type(noun), str(row["record"])) == replace(noun, version=1)  # type: ignore[type-var]  # a Noun is a dataclass
    assert row["version"] == 1
    stored = {
        name: value for name, value in row.items() if name not in ("id", "version", "record") and value is not None
    }
    assert stored == noun.unique() | noun.indexed()
    assert {type(value) for value in stored.values()} <= {str}
    assert rows.as_put(replace(noun, version=6)) == rows.as_kept(replace(noun, version=7))  # type: ignore[type-var]  # as above


def test_no_row_is_made_of_what_is_no_json() -> None:
    """A value that JSON cannot carry is named by its rule."""
    with pytest.raises(InvalidInput, match="plain JSON"):
        rows.as_put(request(1, configuration={"x": object()}))


def test_a_damaged_record_is_not_shown() -> None:
    """What cannot be read is told without its content."""
    for record in ('{"id": "req-1"', '{"id": "hunter2"}', "[]", '{"hunter2": 1}'):
        with pytest.raises(Unavailable, match="damaged ProvisionRequest") as refused:
            rows.loaded(type(request(1)), record)
        assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("wanted", "best"),
    [
        (("account",), ("account",)),
        (("state", "account"), ("account", "state")),
        (("state", "account", "username"), ("username",)),
        (("state", "login"), ("login",)),
    ],
)
def test_the_index_of_the_fewest_rows_is_taken(wanted: tuple[str, ...], best: tuple[str, ...]) -> None:
    """A listing reads by the index that few records share, or by one that covers several filters."""
    assert INDEXES["request"].best(wanted) == best


def test_an_index_that_is_none_is_told() -> None:
    """A filter by a name that is no index is a mistake of the program."""
    with pytest.raises(KeyError, match="no index"):
        INDEXES["request"].best(("colour",))
