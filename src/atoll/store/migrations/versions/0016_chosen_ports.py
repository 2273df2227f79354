"""VMs know whether their web port was chosen; one that was not follows what listens inside."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Every image of ours begins with port 8000, so another one was chosen by somebody.

    Not in batch mode, which would drop the table on SQLite, and with it what refers to VMs.
    """
    op.add_column(
        "vms",
        sa.Column("is_port_chosen", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.execute("UPDATE vms SET is_port_chosen = (port <> 8000)")
