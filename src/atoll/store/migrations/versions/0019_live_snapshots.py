"""Snapshots that have the memory of their VM."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Those of before have a disk alone."""
    op.add_column(
        "snapshots",
        sa.Column("has_memory", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
