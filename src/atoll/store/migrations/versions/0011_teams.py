"""Teams, who is in them and who is invited."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
_ROLES = "role IN ('owner', 'admin', 'member')"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "teams",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_teams")),
        sa.UniqueConstraint("name", name=op.f("uq_teams_name")),
    )
    op.create_table(
        "team_members",
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.CheckConstraint(_ROLES, name=op.f("ck_team_members_role")),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_team_members_account")),
        sa.ForeignKeyConstraint(
            ["team"], ["teams.id"], name=op.f("fk_team_members_team"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team", "account", name=op.f("pk_team_members")),
    )
    op.create_index(op.f("ix_team_members_account"), "team_members", ["account"])
    op.create_table(
        "team_invitations",
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("invited_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.CheckConstraint(_ROLES, name=op.f("ck_team_invitations_role")),
        sa.ForeignKeyConstraint(
            ["invited_by"],
            ["accounts.id"],
            name=op.f("fk_team_invitations_invited_by"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["team"], ["teams.id"], name=op.f("fk_team_invitations_team"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team", "email", name=op.f("pk_team_invitations")),
    )
    op.create_index(op.f("ix_team_invitations_email"), "team_invitations", ["email"])
