"""A schema that a later program might have: every device has a seat, and an index is gone. Dies where it is told to."""

import sqlalchemy as sa
from alembic import op

from tests.contracts.later_program import LATER, reach

revision = str(LATER.version)
down_revision = str(LATER.version - 1)


def upgrade() -> None:
    op.add_column("device", sa.Column("seat", sa.Text))
    reach("column")
    op.execute("UPDATE device SET seat = upper(client_id)")
    reach("rows")
    op.create_index("device_by_seat", "device", ["seat", "id"])
    op.drop_index("device_by_state", "device")
    reach("end")
