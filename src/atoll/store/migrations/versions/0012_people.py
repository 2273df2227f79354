"""Invitations, mailed sign-in links, passkeys; what a session says of its browser."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make the tables; the new columns are empty for every session there is."""
    op.create_table(
        "invitations",
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("invited_by", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["invited_by"],
            ["accounts.id"],
            name=op.f("fk_invitations_invited_by"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("email", name=op.f("pk_invitations")),
    )
    op.create_table(
        "mailed_codes",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("short_hash", sa.Text(), nullable=False),
        sa.Column("browser", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_mailed_codes")),
        sa.UniqueConstraint("browser", name=op.f("uq_mailed_codes_browser")),
    )
    op.create_index(op.f("ix_mailed_codes_expires_at"), "mailed_codes", ["expires_at"])
    op.create_table(
        "passkeys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sign_count", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("last_used_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["account"], ["accounts.id"], name=op.f("fk_passkeys_account"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_passkeys")),
        sa.UniqueConstraint("account", "name", name=op.f("uq_passkeys_account_name")),
    )
    op.add_column("sessions", sa.Column("source", sa.Text(), nullable=True))
    op.add_column("sessions", sa.Column("how", sa.Text(), nullable=True))
    op.add_column("sessions", sa.Column("last_seen_at", sa.Double(), nullable=True))
