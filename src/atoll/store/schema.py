"""The tables. Invariant: this text is what the migrations build (a test compares the two).

Times are seconds since the epoch (UTC) as doubles, sizes are bytes, ids are text: the same on
SQLite and PostgreSQL. Secrets are kept as SHA-256 only. `generation` counts the changes of a row.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("email", Text, nullable=False, unique=True),
    Column("is_admin", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("generation", Integer, nullable=False),
)

vms = Table(
    "vms",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("name", Text, unique=True),  # NULL in the trash, so the name is free again
    Column("former_name", Text),  # the name before `rm`
    Column("comment", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("cpus", Integer, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("disk_bytes", BigInteger, nullable=False),
    Column("phase", Text, nullable=False),  # creating, live, trashed
    Column("wanted", Text, nullable=False),  # running, paused, stopped
    Column("port", Integer, nullable=False),
    Column("host_key", Text, nullable=False),  # public key line of its sshd
    Column("created_at", Double, nullable=False),
    Column("trashed_at", Double),
    Column("trash_until", Double),
    Column("trash_act", Text),  # VMs removed by one command come back together
    Column("generation", Integer, nullable=False),
    CheckConstraint("phase IN ('creating', 'live', 'trashed')", name="phase"),
    CheckConstraint("wanted IN ('running', 'paused', 'stopped')", name="wanted"),
    CheckConstraint("(phase = 'trashed') = (name IS NULL)", name="trashed_has_no_name"),
)

ssh_keys = Table(
    "ssh_keys",
    metadata,
    Column("fingerprint", Text, primary_key=True),  # SHA256:…; one key means one account
    Column("account", ForeignKey("accounts.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("public_key", Text, nullable=False),  # type and base64, no comment
    Column("vm", ForeignKey("vms.id", ondelete="CASCADE")),  # good for this VM only
    Column("created_at", Double, nullable=False),
    Column("tag", Text),  # good for VMs with this tag only
    Column("user", Text),  # logs in there as this user only
    UniqueConstraint("account", "name"),
)

tags = Table(
    "tags",
    metadata,
    Column("vm", ForeignKey("vms.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", Text, primary_key=True),
)

defaults = Table(
    "defaults",
    metadata,
    Column("account", ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),  # new.setup-script
    Column("value", Text, nullable=False),
)

operations = Table(
    "operations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("act", Text, nullable=False),  # the command that asked; several operations share it
    Column("kind", Text, nullable=False),
    Column("vm", Text, nullable=False),  # no foreign key: the journal outlives the VM
    Column("account", Text, nullable=False),
    Column("state", Text, nullable=False),  # intent, undoing, done, failed
    Column("attempts", Integer, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("result", JSON),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    CheckConstraint("state IN ('intent', 'undoing', 'done', 'failed')", name="state"),
    Index(None, "vm"),
    Index(None, "state", "created_at"),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("account", Text, nullable=False),
    Column("vm", Text),  # its name then
    Column("kind", Text, nullable=False),
    Column("door", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("vm_id", Text),  # no foreign key: what happened outlives the VM
    Index(None, "account", "id"),
    Index(None, "account", "vm_id", "id"),
    Index(None, "account", "vm", "id"),
)

history = Table(
    "history",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("account", ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("line", Text, nullable=False),
    Column("at", Double, nullable=False),
)

samples = Table(  # a ring per VM and length of span: see store.samples
    "samples",
    metadata,
    Column("vm", ForeignKey("vms.id", ondelete="CASCADE"), primary_key=True),
    Column("span_s", Integer, primary_key=True),
    Column("slot", Integer, primary_key=True),
    Column("at", Double, nullable=False),  # when the span began
    Column("seconds", Double, nullable=False),  # in which the counters grew by this much
    Column("cpu_seconds", Double, nullable=False),
    Column("network_rx_bytes", BigInteger, nullable=False),
    Column("network_tx_bytes", BigInteger, nullable=False),
    Column("io_read_bytes", BigInteger, nullable=False),
    Column("io_write_bytes", BigInteger, nullable=False),
    Column("memory_used_bytes", BigInteger, nullable=False),
    Column("memory_total_bytes", BigInteger, nullable=False),
    Column("disk_used_bytes", BigInteger, nullable=False),
    Column("disk_size_bytes", BigInteger, nullable=False),
    Column("cpus", Integer, nullable=False),
)

login_codes = Table(
    "login_codes",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("account", ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    Column("expires_at", Double, nullable=False, index=True),
    Column("used_at", Double),
)

sessions = Table(
    "sessions",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("account", ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False, index=True),
    Column("revoked_at", Double),
    Column("user_agent", Text, nullable=False),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("account", ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    Column("label", Text, nullable=False),
    Column("cmds", JSON(none_as_null=True)),  # a list of verbs; NULL: all
    Column("vm", ForeignKey("vms.id", ondelete="CASCADE")),  # good for this VM only
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("last_used_at", Double),
    Column("tag", Text),  # good for VMs with this tag only
    Column("key", ForeignKey("ssh_keys.fingerprint", ondelete="CASCADE")),  # stands for its token
    UniqueConstraint("account", "label"),
)

answers = Table(
    "answers",
    metadata,
    Column("id", Text, primary_key=True),  # of the caller's credential and the key it gave
    Column("account", ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("line", Text, nullable=False),  # hash of the command line
    Column("run", Text, nullable=False),  # the life of control that ran it
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False, index=True),
    Column("status", Integer),  # NULL: no answer yet
    Column("body", LargeBinary),  # sealed, for it may hold a secret
)

grants = Table(  # who may open a VM besides its owner; see domain.sharing
    "grants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("vm", ForeignKey("vms.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),  # person, team, public
    Column("who", Text, nullable=False),  # e-mail address, team id, empty
    Column("level", Text, nullable=False),  # web, root
    Column("port", Integer, nullable=False),  # 0: the VM's own
    Column("path", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("created_by", Text, nullable=False),  # account id; no foreign key: it may have gone
    Column("expires_at", Double, index=True),
    Column("link", Text),  # by which they came; it may be removed and they stay
    CheckConstraint("kind IN ('person', 'team', 'public')", name="kind"),
    CheckConstraint("level IN ('web', 'root')", name="level"),
    UniqueConstraint("vm", "kind", "who", "port", "path"),
    Index(None, "kind", "who"),
)

links = Table(
    "links",
    metadata,
    Column("id", Text, primary_key=True),
    Column("vm", ForeignKey("vms.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("port", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", Double),
    Column("use_count", Integer, nullable=False),
    Column("last_used_at", Double),
)

access_requests = (
    Table(  # by name, whether there is such a VM or not: asking tells nobody which are
        "access_requests",
        metadata,
        Column("vm_name", Text, primary_key=True),
        Column("account", ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
        Column("created_at", Double, nullable=False, index=True),
        Column("message", Text, nullable=False),
        Index(None, "account", "created_at"),
    )
)

visits = Table(  # a ring per VM: see store.visits
    "visits",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("vm", ForeignKey("vms.id", ondelete="CASCADE"), nullable=False),
    Column("at", Double, nullable=False),
    Column("account", Text, nullable=False),  # empty: nobody was signed in
    Column("by", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("ms", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("is_let_in", Boolean, nullable=False),
    Column("count", Integer, nullable=False),
    Index(None, "vm", "id"),
)

visitors = Table(
    "visitors",
    metadata,
    Column("vm", ForeignKey("vms.id", ondelete="CASCADE"), primary_key=True),
    Column("account", Text, primary_key=True),  # empty: all that were not signed in
    Column("first_at", Double, nullable=False),
    Column("last_at", Double, nullable=False),
    Column("requests", BigInteger, nullable=False),
)
