"""Keys that log in to one VM as one of its users."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """A column that is empty for every key there is."""
    op.add_column("ssh_keys", sa.Column("user", sa.Text(), nullable=True))
