"""Keys and tokens for the VMs with a tag; tokens that stand for one a key signed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Columns that are empty for every key and token there is."""
    op.add_column("ssh_keys", sa.Column("tag", sa.Text(), nullable=True))
    with op.batch_alter_table("api_tokens") as tokens:
        tokens.add_column(sa.Column("tag", sa.Text(), nullable=True))
        tokens.add_column(sa.Column("key", sa.Text(), nullable=True))
        tokens.create_foreign_key(
            op.f("fk_api_tokens_key"), "ssh_keys", ["key"], ["fingerprint"], ondelete="CASCADE"
        )
