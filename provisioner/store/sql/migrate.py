"""Bring a database to this program's schema, in one transaction of the connection that it is given.

The number of a schema is that of its last migration, and the same in every store.
"""

import io
import logging
from collections.abc import Sequence
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect, text

from provisioner.store.schema import SCHEMA, Schema
from provisioner.store.sql.tables import SCHEMA_VERSION_TABLE

_HERE = Path(__file__).parent / "migrations"
STEPS = (_HERE / "versions",)
_log = logging.getLogger(__name__)


def migrate(connection: Connection, schema: Schema = SCHEMA, steps: Sequence[Path] = STEPS) -> None:
    """Do nothing when the schema is today's. steps: folders of migrations.

    A crash leaves the schema as it was, as long as the connection's transaction is one. Raises Unavailable, with
    nothing changed, for a newer schema."""
    found = version(connection)
    schema.check(found)
    if found == schema.version:
        return
    # Steps are the program's own business; an administrator wants the line below.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", _literal(_HERE))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(map(_literal, steps)))
    config.attributes["connection"] = connection
    command.upgrade(config, str(schema.version))
    _log.info("the store's schema went from %d to %d", found, schema.version)


def version(connection: Connection) -> int:
    """Number of the schema that the database has; 0 for an empty one."""
    if not inspect(connection).has_table(SCHEMA_VERSION_TABLE):
        return 0
    return int(connection.execute(text(f"SELECT version_num FROM {SCHEMA_VERSION_TABLE}")).scalar_one())


def _literal(path: Path) -> str:
    """alembic expands what a percent sign begins."""
    return str(path).replace("%", "%%")
