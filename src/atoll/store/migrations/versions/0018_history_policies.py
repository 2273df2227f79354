"""VMs have a policy for the history of their disk, and snapshots may be of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the column, and allow the reason. Nothing refers to snapshots, so SQLite may copy them."""
    op.add_column("vms", sa.Column("history", sa.Text()))
    name = op.f("ck_snapshots_reason")
    with op.batch_alter_table("snapshots") as snapshots:
        snapshots.drop_constraint(name, type_="check")
        snapshots.create_check_constraint(
            name, "reason IN ('taken', 'history', 'rollback', 'undo')"
        )
