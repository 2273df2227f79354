"""Events know which VM they are about, and are found by account, VM and name in their order."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """A column that is empty for every event there is: names alone do not tell two VMs apart."""
    op.add_column("events", sa.Column("vm_id", sa.Text(), nullable=True))
    op.drop_index(op.f("ix_events_account"), table_name="events")
    op.drop_index(op.f("ix_events_vm"), table_name="events")
    for columns in (["account", "id"], ["account", "vm_id", "id"], ["account", "vm", "id"]):
        op.create_index(op.f(f"ix_events_{'_'.join(columns)}"), "events", columns)
