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
    false,
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
    Column("is_port_chosen", Boolean, nullable=False, server_default=false()),  # by `share port`
    Column("host_key", Text, nullable=False),  # public key line of its sshd
    Column("created_at", Double, nullable=False),
    Column("trashed_at", Double),
    Column("trash_until", Double),
    Column("trash_act", Text),  # VMs removed by one command come back together
    Column("history", Text),  # policy of its snapshots; NULL: the default
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
    Column("source", Text),  # the address it was last seen at; NULL: not known
    Column("how", Text),  # it signed in: link, mail, passkey, …
    Column("last_seen_at", Double),
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

# By name, whether there is such a VM or not: asking tells nobody which there are.
access_requests = Table(
    "access_requests",
    metadata,
    Column("vm_name", Text, primary_key=True),
    Column("account", ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("created_at", Double, nullable=False, index=True),
    Column("message", Text, nullable=False),
    Index(None, "account", "created_at"),
)

_SERIAL = BigInteger().with_variant(Integer, "sqlite")  # there an Integer is the row's own number

audit = Table(  # append-only: triggers of its migration refuse anything but the next link
    "audit",
    metadata,
    Column("seq", _SERIAL, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False, index=True),
    Column("account", Text),  # no foreign keys: records outlive whom and what they name
    Column("who", Text, nullable=False),
    Column("credential", Text, nullable=False),
    Column("door", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("act", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("vm", Text),
    Column("vm_id", Text),
    Column("owner", Text),
    Column("result", Text, nullable=False),
    Column("detail", Text, nullable=False),  # text: what was hashed, to the byte
    Column("prev", Text, nullable=False, unique=True),  # so that a chain cannot fork
    Column("hash", Text, nullable=False),
    Index(None, "account", "act", "seq"),
    Index(None, "account", "vm", "seq"),
    Index(None, "owner", "act", "seq"),
    Index(None, "owner", "who", "seq"),
    Index(None, "owner", "vm_id", "seq"),
    Index(None, "owner", "vm", "seq"),
)

teams = Table(
    "teams",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
)

team_members = Table(
    "team_members",
    metadata,
    Column("team", ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True),
    # No cascade: an account that goes must first leave, or its teams may be left without an owner.
    Column("account", ForeignKey("accounts.id"), primary_key=True, index=True),
    Column("role", Text, nullable=False),
    Column("since", Double, nullable=False),
    CheckConstraint("role IN ('owner', 'admin', 'member')", name="role"),
)

team_invitations = Table(
    "team_invitations",
    metadata,
    Column("team", ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True),
    Column("email", Text, primary_key=True, index=True),  # lower case; of an account or not
    Column("role", Text, nullable=False),
    Column("invited_by", ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    CheckConstraint("role IN ('owner', 'admin', 'member')", name="role"),
)

invitations = Table(
    "invitations",
    metadata,
    Column("email", Text, primary_key=True),
    Column("invited_by", ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    Column("message", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
)

mailed_codes = Table(  # a row is a mail on its way; using it deletes it
    "mailed_codes",
    metadata,
    Column("hash", Text, primary_key=True),  # of the link's secret
    Column("short_hash", Text, nullable=False),  # of the browser's secret and the code to type
    Column("browser", Text, nullable=False, unique=True),  # hash of the secret in its cookie
    Column("email", Text, nullable=False),
    Column("expires_at", Double, nullable=False, index=True),
)

passkeys = Table(
    "passkeys",
    metadata,
    Column("id", Text, primary_key=True),  # the credential's, in base64url
    Column("account", ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("public_key", LargeBinary, nullable=False),  # COSE
    Column("sign_count", BigInteger, nullable=False),  # 32 bits without a sign
    Column("created_at", Double, nullable=False),
    Column("last_used_at", Double),
    UniqueConstraint("account", "name"),
)

domains = Table(  # names of their own for VMs
    "domains",
    metadata,
    Column("domain", Text, primary_key=True),  # lower case, A-labels
    Column("vm", ForeignKey("vms.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("problem", Text, nullable=False),  # what DNS said wrong at the last check; "": nothing
    Column("expected", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("checked_at", Double, nullable=False),
    Column("failures", Integer, nullable=False),  # checks that failed since the last good one
    Column("next_check_at", Double, nullable=False, index=True),
    Column("proven_at", Double),  # when DNS first led here; NULL: not served yet
)

consents = Table(  # what apps in VMs may be told about who signs in there
    "consents",
    metadata,
    Column("account", ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("vm", ForeignKey("vms.id", ondelete="CASCADE"), primary_key=True),
    Column("owner", Text, nullable=False),  # of the VM then: another one is to be named anew
    Column("scope", Text, nullable=False),  # words of OpenID Connect, by a blank
    Column("created_at", Double, nullable=False),
)

identities = Table(  # of people at other providers
    "identities",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("account", ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    Column("email", Text, nullable=False),  # when it was seen first; says nothing about today
    Column("created_at", Double, nullable=False),
    UniqueConstraint("account", "issuer"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("id", Text, primary_key=True),  # what the engine keeps it under
    Column("vm", ForeignKey("vms.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("is_clean", Boolean, nullable=False),  # file systems were held still
    Column("has_memory", Boolean, nullable=False, server_default=false()),  # beside the disk
    Column("created_at", Double, nullable=False),
    CheckConstraint("reason IN ('taken', 'history', 'rollback', 'undo')", name="reason"),
    UniqueConstraint("vm", "name"),
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
