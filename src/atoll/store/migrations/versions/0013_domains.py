"""Names of their own for VMs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "domains",
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("vm", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("expected", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("checked_at", sa.Double(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_check_at", sa.Double(), nullable=False),
        sa.Column("proven_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["vm"], ["vms.id"], name=op.f("fk_domains_vm"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("domain", name=op.f("pk_domains")),
    )
    op.create_index(op.f("ix_domains_vm"), "domains", ["vm"])
    op.create_index(op.f("ix_domains_next_check_at"), "domains", ["next_check_at"])
