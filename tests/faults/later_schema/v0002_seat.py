"""A schema that a later program might have: every device has a seat, and a table is gone. Dies where it is told to."""

import os
import signal

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    op.add_column("device", sa.Column("seat", sa.Text))
    _reach("column")
    op.execute("UPDATE device SET seat = upper(client_id)")
    _reach("rows")
    op.create_index("device_by_seat", "device", ["seat", "id"])
    op.drop_table("effect")
    _reach("end")


def _reach(point: str) -> None:
    if os.environ.get("DIE_AT") == point:
        os.kill(os.getpid(), signal.SIGKILL)
