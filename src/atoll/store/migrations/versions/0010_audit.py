"""The audit: a chain of records, of which the database itself takes no more than the next link."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_ZEROS = "0" * 64
_TEXT = ("who", "credential", "door", "source", "act", "what")
_INDEXES = (
    ["at_us"],
    ["account", "act", "seq"],
    ["account", "vm", "seq"],
    ["owner", "act", "seq"],
    ["owner", "who", "seq"],
    ["owner", "vm_id", "seq"],
    ["owner", "vm", "seq"],
)
_IS_NEXT = f"""NEW.seq = coalesce((SELECT max(seq) FROM audit), 0) + 1
    AND NEW.prev = coalesce((SELECT hash FROM audit ORDER BY seq DESC LIMIT 1), '{_ZEROS}')"""  # noqa: S608
_NOT_NEXT = "a record of the audit follows the last one"
_KEPT = "the audit is append-only"


def upgrade() -> None:
    """Make the table and what guards it."""
    op.create_table(
        "audit",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("account", sa.Text(), nullable=True),
        *(sa.Column(name, sa.Text(), nullable=False) for name in _TEXT),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("vm", "vm_id", "owner")),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("result", "detail")),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("prev", "hash")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit")),
        sa.UniqueConstraint("prev", name=op.f("uq_audit_prev")),
    )
    for columns in _INDEXES:
        op.create_index(op.f(f"ix_audit_{'_'.join(columns)}"), "audit", columns)
    if op.get_bind().dialect.name == "sqlite":
        _guard_sqlite()
    else:
        _guard_postgres()


def _guard_sqlite() -> None:
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_no_{change.lower()} BEFORE {change} ON audit"
            f" BEGIN SELECT RAISE(ABORT, '{_KEPT}'); END"
        )
    # It comes before REPLACE takes the old row away, for which there is no DELETE trigger.
    op.execute(
        f"CREATE TRIGGER audit_next BEFORE INSERT ON audit WHEN NOT ({_IS_NEXT})"
        f" BEGIN SELECT RAISE(ABORT, '{_NOT_NEXT}'); END"
    )


def _guard_postgres() -> None:
    op.execute(
        "CREATE FUNCTION audit_kept() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION '{_KEPT}'; END $$"
    )
    op.execute(
        "CREATE FUNCTION audit_next() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN IF NOT ({_IS_NEXT}) THEN RAISE EXCEPTION '{_NOT_NEXT}'; END IF;"
        " RETURN NEW; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit"
        " FOR EACH STATEMENT EXECUTE FUNCTION audit_kept()"
    )
    op.execute(
        "CREATE TRIGGER audit_next BEFORE INSERT ON audit"
        " FOR EACH ROW EXECUTE FUNCTION audit_next()"
    )
