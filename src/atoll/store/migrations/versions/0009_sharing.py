"""Who may open a VM becomes rows of its own: grants, links, requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """`is_public` was the one grant there was; it becomes one to everybody."""
    _grants()
    _links()
    _requests()
    op.execute(
        "INSERT INTO grants (id, vm, kind, who, level, port, path, created_at, created_by)"
        " SELECT 'grant-' || substr(id, 4), id, 'public', '', 'web', 0, '/', created_at, owner"
        " FROM vms WHERE is_public"
    )
    op.drop_column("vms", "is_public")


def _grants() -> None:
    op.create_table(
        "grants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("vm", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("link", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('person', 'team', 'public')", name=op.f("ck_grants_kind")),
        sa.CheckConstraint("level IN ('web', 'root')", name=op.f("ck_grants_level")),
        sa.ForeignKeyConstraint(["vm"], ["vms.id"], name=op.f("fk_grants_vm"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
        sa.UniqueConstraint(
            "vm", "kind", "who", "port", "path", name=op.f("uq_grants_vm_kind_who_port_path")
        ),
    )
    op.create_index(op.f("ix_grants_expires_at"), "grants", ["expires_at"])
    op.create_index(op.f("ix_grants_kind_who"), "grants", ["kind", "who"])


def _links() -> None:
    op.create_table(
        "links",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("vm", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("use_count", sa.Integer(), nullable=False),
        sa.Column("last_used_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["vm"], ["vms.id"], name=op.f("fk_links_vm"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_links")),
    )
    op.create_index(op.f("ix_links_vm"), "links", ["vm"])


def _requests() -> None:
    op.create_table(
        "access_requests",
        sa.Column("vm_name", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account"],
            ["accounts.id"],
            name=op.f("fk_access_requests_account"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("vm_name", "account", name=op.f("pk_access_requests")),
    )
    op.create_index(op.f("ix_access_requests_created_at"), "access_requests", ["created_at"])
    op.create_index(
        op.f("ix_access_requests_account_created_at"), "access_requests", ["account", "created_at"]
    )
