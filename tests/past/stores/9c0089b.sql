BEGIN TRANSACTION;
CREATE TABLE access_requests (
	vm_name TEXT NOT NULL, 
	account TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	message TEXT NOT NULL, 
	CONSTRAINT pk_access_requests PRIMARY KEY (vm_name, account), 
	CONSTRAINT fk_access_requests_account FOREIGN KEY(account) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE TABLE accounts (
	id TEXT NOT NULL, 
	email TEXT NOT NULL, 
	is_admin BOOLEAN NOT NULL, 
	created_at DOUBLE NOT NULL, 
	generation INTEGER NOT NULL, 
	CONSTRAINT pk_accounts PRIMARY KEY (id), 
	CONSTRAINT uq_accounts_email UNIQUE (email)
);
INSERT INTO "accounts" VALUES('acct-ann','ann@example.com',1,1.76371560012345600125e+09,0);
INSERT INTO "accounts" VALUES('acct-bob','bob@example.com',0,1.76371560012345600125e+09,0);
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0017');
CREATE TABLE answers (
	id TEXT NOT NULL, 
	account TEXT NOT NULL, 
	line TEXT NOT NULL, 
	run TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	status INTEGER, 
	body BLOB, 
	CONSTRAINT pk_answers PRIMARY KEY (id), 
	CONSTRAINT fk_answers_account FOREIGN KEY(account) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE TABLE "api_tokens" (
	hash TEXT NOT NULL, 
	account TEXT NOT NULL, 
	label TEXT NOT NULL, 
	cmds JSON, 
	vm TEXT, 
	created_at DOUBLE NOT NULL, 
	expires_at DOUBLE, 
	last_used_at DOUBLE, 
	tag TEXT, 
	"key" TEXT, 
	CONSTRAINT pk_api_tokens PRIMARY KEY (hash), 
	CONSTRAINT fk_api_tokens_account FOREIGN KEY(account) REFERENCES accounts (id) ON DELETE CASCADE, 
	CONSTRAINT fk_api_tokens_vm FOREIGN KEY(vm) REFERENCES vms (id) ON DELETE CASCADE, 
	CONSTRAINT uq_api_tokens_account_label UNIQUE (account, label), 
	CONSTRAINT fk_api_tokens_key FOREIGN KEY("key") REFERENCES ssh_keys (fingerprint) ON DELETE CASCADE
);
INSERT INTO "api_tokens" VALUES('1111111111111111111111111111111111111111111111111111111111111111','acct-ann','all',NULL,NULL,1.76371560012345600125e+09,NULL,NULL,NULL,NULL);
INSERT INTO "api_tokens" VALUES('2222222222222222222222222222222222222222222222222222222222222222','acct-ann','ci','["ls", "share show"]','vm-000000000001',1.76371560112345600128e+09,1.07637156001234550472e+10,1.76371560212345600132e+09,NULL,NULL);
CREATE TABLE audit (
	seq INTEGER NOT NULL, 
	at_us BIGINT NOT NULL, 
	account TEXT, 
	who TEXT NOT NULL, 
	credential TEXT NOT NULL, 
	door TEXT NOT NULL, 
	source TEXT NOT NULL, 
	act TEXT NOT NULL, 
	what TEXT NOT NULL, 
	vm TEXT, 
	vm_id TEXT, 
	owner TEXT, 
	result TEXT NOT NULL, 
	detail TEXT NOT NULL, 
	prev TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	CONSTRAINT pk_audit PRIMARY KEY (seq), 
	CONSTRAINT uq_audit_prev UNIQUE (prev)
);
CREATE TABLE consents (
	account TEXT NOT NULL, 
	vm TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	scope TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_consents PRIMARY KEY (account, vm), 
	CONSTRAINT fk_consents_account FOREIGN KEY(account) REFERENCES accounts (id) ON DELETE CASCADE, 
	CONSTRAINT fk_consents_vm FOREIGN KEY(vm) REFERENCES vms (id) ON DELETE CASCADE
);
CREATE TABLE defaults (
	account TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_defaults PRIMARY KEY (account, "key"), 
	CONSTRAINT fk_defaults_account FOREIGN KEY(account) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE TABLE domains (
	domain TEXT NOT NULL, 
	vm TEXT NOT NULL, 
	problem TEXT NOT NULL, 
	expected TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	checked_at DOUBLE NOT NULL, 
	failures INTEGER NOT NULL, 
	next_check_at DOUBLE NOT NULL, 
	proven_at DOUBLE, 
	CONSTRAINT pk_domains PRIMARY KEY (domain), 
	CONSTRAINT fk_domains_vm FOREIGN KEY(vm) REFERENCES vms (id) ON DELETE CASCADE
);
CREATE TABLE events (
	id INTEGER NOT NULL, 
	at DOUBLE NOT NULL, 
	account TEXT NOT NULL, 
	vm TEXT, 
	kind TEXT NOT NULL, 
	door TEXT NOT NULL, 
	detail JSON NOT NULL, vm_id TEXT, 
	CONSTRAINT pk_events PRIMARY KEY (id)
);
INSERT INTO "events" VALUES(1,1.76371560012345600125e+09,'acct-ann','vm-000000000001','new','ssh','{"name": "web", "n": [1, null]}',NULL);
CREATE TABLE grants (
	id TEXT NOT NULL, 
	vm TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	who TEXT NOT NULL, 
	level TEXT NOT NULL, 
	port INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	created_by TEXT NOT NULL, 
	expires_at DOUBLE, 
	link TEXT, 
	CONSTRAINT pk_grants PRIMARY KEY (id), 
	CONSTRAINT ck_grants_kind CHECK (kind IN ('person', 'team', 'public')), 
	CONSTRAINT ck_grants_level CHECK (level IN ('web', 'root')), 
	CONSTRAINT fk_grants_vm FOREIGN KEY(vm) REFERENCES vms (id) ON DELETE CASCADE, 
	CONSTRAINT uq_grants_vm_kind_who_port_path UNIQUE (vm, kind, who, port, path)
);
INSERT INTO "grants" VALUES('grant-000000000001','vm-000000000001','public','','web',0,'/',1.76371560012345600125e+09,'acct-ann',NULL,NULL);
INSERT INTO "grants" VALUES('grant-000000000002','vm-000000000001','person','bob@example.com','root',0,'/',1.76371560012345600125e+09,'acct-ann',2.76371560012345600138e+09,NULL);
CREATE TABLE history (
	id INTEGER NOT NULL, 
	account TEXT NOT NULL, 
	line TEXT NOT NULL, 
	at DOUBLE NOT NULL, 
	CONSTRAINT pk_history PRIMARY KEY (id), 
	CONSTRAINT fk_history_account FOREIGN KEY(account) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE TABLE identities (
	issuer TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	account TEXT NOT NULL, 
	email TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_identities PRIMARY KEY (issuer, subject), 
	CONSTRAINT fk_identities_account FOREIGN KEY(account) REFERENCES accounts (id) ON DELETE CASCADE, 
	CONSTRAINT uq_identities_account_issuer UNIQUE (account, issuer)
);
CREATE TABLE invitations (
	email TEXT NOT NULL, 
	invited_by TEXT NOT NULL, 
	message TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	CONSTRAINT pk_invitations PRIMARY KEY (email), 
	CONSTRAINT fk_invitations_invited_by FOREIGN KEY(invited_by) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE TABLE links (
	id TEXT NOT NULL, 
	vm TEXT NOT NULL, 
	port INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	created_by TEXT NOT NULL, 
	expires_at DOUBLE, 
	use_count INTEGER NOT NULL, 
	last_used_at DOUBLE, 
	CONSTRAINT pk_links PRIMARY KEY (id), 
	CONSTRAINT fk_links_vm FOREIGN KEY(vm) REFERENCES vms (id) ON DELETE CASCADE
);
CREATE TABLE login_codes (
	hash TEXT NOT NULL, 
	account TEXT NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	used_at DOUBLE, 
	CONSTRAINT pk_login_codes PRIMARY KEY (hash), 
	CONSTRAINT fk_login_codes_account FOREIGN KEY(account) REFERENCES accounts (id) ON DELETE CASCADE
);
INSERT INTO "login_codes" VALUES('4444444444444444444444444444444444444444444444444444444444444444','acct-ann',1.07637156001234550472e+10,NULL);
CREATE TABLE mailed_codes (
	hash TEXT NOT NULL, 
	short_hash TEXT NOT NULL, 
	browser TEXT NOT NULL, 
	email TEXT NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	CONSTRAINT pk_mailed_codes PRIMARY KEY (hash), 
	CONSTRAINT uq_mailed_codes_browser UNIQUE (browser)
);
CREATE TABLE operations (
	id TEXT NOT NULL, 
	act TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	vm TEXT NOT NULL, 
	account TEXT NOT NULL, 
	state TEXT NOT NULL, 
	attempts INTEGER NOT NULL, 
	payload JSON NOT NULL, 
	result JSON, 
	created_at DOUBLE NOT NULL, 
	finished_at DOUBLE, 
	CONSTRAINT pk_operations PRIMARY KEY (id), 
	CONSTRAINT ck_operations_state CHECK (state IN ('intent', 'undoing', 'done', 'failed'))
);
INSERT INTO "operations" VALUES('op-000000000001','act-1','create','vm-000000000004','acct-ann','intent',0,'{}','null',1.76371560012345600125e+09,NULL);
INSERT INTO "operations" VALUES('op-000000000002','act-1','clone','vm-000000000005','acct-ann','intent',0,'{"source": "vm-000000000001"}','null',1.76371560112345600128e+09,NULL);
INSERT INTO "operations" VALUES('op-000000000003','act-1','pause','vm-000000000002','acct-ann','done',0,'{}','{"cold_booted": false, "timings_ms": {"disk": 1.5}}',1.76371560012345600125e+09,1.76371560112345600128e+09);
INSERT INTO "operations" VALUES('op-000000000004','act-1','restart','vm-000000000001','acct-ann','failed',0,'{}','{"error": {"code": "unavailable", "message": "it did not boot"}}',1.76371560012345600125e+09,1.76371560112345600128e+09);
CREATE TABLE passkeys (
	id TEXT NOT NULL, 
	account TEXT NOT NULL, 
	name TEXT NOT NULL, 
	public_key BLOB NOT NULL, 
	sign_count BIGINT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	last_used_at DOUBLE, 
	CONSTRAINT pk_passkeys PRIMARY KEY (id), 
	CONSTRAINT fk_passkeys_account FOREIGN KEY(account) REFERENCES accounts (id) ON DELETE CASCADE, 
	CONSTRAINT uq_passkeys_account_name UNIQUE (account, name)
);
CREATE TABLE samples (
	vm TEXT NOT NULL, 
	span_s INTEGER NOT NULL, 
	slot INTEGER NOT NULL, 
	at DOUBLE NOT NULL, 
	seconds DOUBLE NOT NULL, 
	cpu_seconds DOUBLE NOT NULL, 
	network_rx_bytes BIGINT NOT NULL, 
	network_tx_bytes BIGINT NOT NULL, 
	io_read_bytes BIGINT NOT NULL, 
	io_write_bytes BIGINT NOT NULL, 
	memory_used_bytes BIGINT NOT NULL, 
	memory_total_bytes BIGINT NOT NULL, 
	disk_used_bytes BIGINT NOT NULL, 
	disk_size_bytes BIGINT NOT NULL, 
	cpus INTEGER NOT NULL, 
	CONSTRAINT pk_samples PRIMARY KEY (vm, span_s, slot), 
	CONSTRAINT fk_samples_vm FOREIGN KEY(vm) REFERENCES vms (id) ON DELETE CASCADE
);
CREATE TABLE sessions (
	hash TEXT NOT NULL, 
	account TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	revoked_at DOUBLE, 
	user_agent TEXT NOT NULL, source TEXT, how TEXT, last_seen_at DOUBLE, 
	CONSTRAINT pk_sessions PRIMARY KEY (hash), 
	CONSTRAINT fk_sessions_account FOREIGN KEY(account) REFERENCES accounts (id) ON DELETE CASCADE
);
INSERT INTO "sessions" VALUES('3333333333333333333333333333333333333333333333333333333333333333','acct-bob',1.76371560012345600125e+09,1.07637156001234550472e+10,NULL,'curl/8',NULL,NULL,1.76371560012345600125e+09);
CREATE TABLE snapshots (
	id TEXT NOT NULL, 
	vm TEXT NOT NULL, 
	name TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	is_clean BOOLEAN NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_snapshots PRIMARY KEY (id), 
	CONSTRAINT ck_snapshots_reason CHECK (reason IN ('taken', 'rollback', 'undo')), 
	CONSTRAINT fk_snapshots_vm FOREIGN KEY(vm) REFERENCES vms (id) ON DELETE CASCADE, 
	CONSTRAINT uq_snapshots_vm_name UNIQUE (vm, name)
);
INSERT INTO "snapshots" VALUES('snap-000000000000','vm-000000000001','taken-0','taken',1,1.76371560012345600125e+09);
INSERT INTO "snapshots" VALUES('snap-000000000001','vm-000000000001','rollback-1','rollback',0,1.76371560112345600128e+09);
INSERT INTO "snapshots" VALUES('snap-000000000002','vm-000000000001','undo-2','undo',0,1.76371560212345600132e+09);
CREATE TABLE ssh_keys (
	fingerprint TEXT NOT NULL, 
	account TEXT NOT NULL, 
	name TEXT NOT NULL, 
	public_key TEXT NOT NULL, 
	vm TEXT, 
	created_at DOUBLE NOT NULL, tag TEXT, user TEXT, 
	CONSTRAINT pk_ssh_keys PRIMARY KEY (fingerprint), 
	CONSTRAINT fk_ssh_keys_account FOREIGN KEY(account) REFERENCES accounts (id), 
	CONSTRAINT fk_ssh_keys_vm FOREIGN KEY(vm) REFERENCES vms (id) ON DELETE CASCADE, 
	CONSTRAINT uq_ssh_keys_account_name UNIQUE (account, name)
);
INSERT INTO "ssh_keys" VALUES('SHA256:ann','acct-ann','laptop','ssh-ed25519 AAAAann',NULL,1.76371560012345600125e+09,NULL,NULL);
INSERT INTO "ssh_keys" VALUES('SHA256:ci','acct-ann','ci','ssh-ed25519 AAAAci','vm-000000000001',1.76371560112345600128e+09,NULL,NULL);
CREATE TABLE tags (
	vm TEXT NOT NULL, 
	tag TEXT NOT NULL, 
	CONSTRAINT pk_tags PRIMARY KEY (vm, tag), 
	CONSTRAINT fk_tags_vm FOREIGN KEY(vm) REFERENCES vms (id) ON DELETE CASCADE
);
INSERT INTO "tags" VALUES('vm-000000000001','prod');
INSERT INTO "tags" VALUES('vm-000000000001','shop');
CREATE TABLE team_invitations (
	team TEXT NOT NULL, 
	email TEXT NOT NULL, 
	role TEXT NOT NULL, 
	invited_by TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	CONSTRAINT pk_team_invitations PRIMARY KEY (team, email), 
	CONSTRAINT ck_team_invitations_role CHECK (role IN ('owner', 'admin', 'member')), 
	CONSTRAINT fk_team_invitations_invited_by FOREIGN KEY(invited_by) REFERENCES accounts (id) ON DELETE CASCADE, 
	CONSTRAINT fk_team_invitations_team FOREIGN KEY(team) REFERENCES teams (id) ON DELETE CASCADE
);
CREATE TABLE team_members (
	team TEXT NOT NULL, 
	account TEXT NOT NULL, 
	role TEXT NOT NULL, 
	since DOUBLE NOT NULL, 
	CONSTRAINT pk_team_members PRIMARY KEY (team, account), 
	CONSTRAINT ck_team_members_role CHECK (role IN ('owner', 'admin', 'member')), 
	CONSTRAINT fk_team_members_account FOREIGN KEY(account) REFERENCES accounts (id), 
	CONSTRAINT fk_team_members_team FOREIGN KEY(team) REFERENCES teams (id) ON DELETE CASCADE
);
CREATE TABLE teams (
	id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_teams PRIMARY KEY (id), 
	CONSTRAINT uq_teams_name UNIQUE (name)
);
CREATE TABLE visitors (
	vm TEXT NOT NULL, 
	account TEXT NOT NULL, 
	first_at DOUBLE NOT NULL, 
	last_at DOUBLE NOT NULL, 
	requests BIGINT NOT NULL, 
	CONSTRAINT pk_visitors PRIMARY KEY (vm, account), 
	CONSTRAINT fk_visitors_vm FOREIGN KEY(vm) REFERENCES vms (id) ON DELETE CASCADE
);
CREATE TABLE visits (
	id INTEGER NOT NULL, 
	vm TEXT NOT NULL, 
	at DOUBLE NOT NULL, 
	account TEXT NOT NULL, 
	"by" TEXT NOT NULL, 
	method TEXT NOT NULL, 
	port INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	status INTEGER NOT NULL, 
	bytes BIGINT NOT NULL, 
	ms BIGINT NOT NULL, 
	source TEXT NOT NULL, 
	is_let_in BOOLEAN NOT NULL, 
	count INTEGER NOT NULL, 
	CONSTRAINT pk_visits PRIMARY KEY (id), 
	CONSTRAINT fk_visits_vm FOREIGN KEY(vm) REFERENCES vms (id) ON DELETE CASCADE
);
CREATE TABLE vms (
	id TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	name TEXT, 
	former_name TEXT, 
	comment TEXT NOT NULL, 
	image TEXT NOT NULL, 
	cpus INTEGER NOT NULL, 
	memory_bytes BIGINT NOT NULL, 
	disk_bytes BIGINT NOT NULL, 
	phase TEXT NOT NULL, 
	wanted TEXT NOT NULL, 
	port INTEGER NOT NULL, 
	host_key TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	trashed_at DOUBLE, 
	trash_until DOUBLE, 
	trash_act TEXT, 
	generation INTEGER NOT NULL, is_port_chosen BOOLEAN DEFAULT 0 NOT NULL, 
	CONSTRAINT pk_vms PRIMARY KEY (id), 
	CONSTRAINT ck_vms_trashed_has_no_name CHECK ((phase = 'trashed') = (name IS NULL)), 
	CONSTRAINT ck_vms_phase CHECK (phase IN ('creating', 'live', 'trashed')), 
	CONSTRAINT ck_vms_wanted CHECK (wanted IN ('running', 'paused', 'stopped')), 
	CONSTRAINT fk_vms_owner FOREIGN KEY(owner) REFERENCES accounts (id), 
	CONSTRAINT uq_vms_name UNIQUE (name)
);
INSERT INTO "vms" VALUES('vm-000000000001','acct-ann','web',NULL,'ünïcode 🐢','debian',2,1099511627776,26843545600,'live','running',3000,'ssh-ed25519 AAAAweb',1.76371560012345600125e+09,NULL,NULL,NULL,0,0);
INSERT INTO "vms" VALUES('vm-000000000002','acct-ann','dev',NULL,'ünïcode 🐢','debian',2,1099511627776,26843545600,'live','paused',3000,'ssh-ed25519 AAAAweb',1.76371560012345600125e+09,NULL,NULL,NULL,0,0);
INSERT INTO "vms" VALUES('vm-000000000003','acct-ann',NULL,'old','ünïcode 🐢','debian',2,1099511627776,26843545600,'trashed','paused',3000,'ssh-ed25519 AAAAweb',1.76371560012345600125e+09,1.76371560012345600125e+09,1.76380200012345600131e+09,'act-2',0,0);
INSERT INTO "vms" VALUES('vm-000000000004','acct-ann','half',NULL,'ünïcode 🐢','debian',2,1099511627776,26843545600,'creating','running',3000,'ssh-ed25519 AAAAweb',1.76371560012345600125e+09,NULL,NULL,NULL,0,0);
INSERT INTO "vms" VALUES('vm-000000000005','acct-ann','copy',NULL,'ünïcode 🐢','debian',2,1099511627776,26843545600,'creating','running',3000,'ssh-ed25519 AAAAweb',1.76371560012345600125e+09,NULL,NULL,NULL,0,0);
CREATE INDEX ix_operations_state_created_at ON operations (state, created_at);
CREATE INDEX ix_operations_vm ON operations (vm);
CREATE INDEX ix_login_codes_expires_at ON login_codes (expires_at);
CREATE INDEX ix_sessions_account ON sessions (account);
CREATE INDEX ix_sessions_expires_at ON sessions (expires_at);
CREATE INDEX ix_vms_owner ON vms (owner);
CREATE INDEX ix_answers_account ON answers (account);
CREATE INDEX ix_answers_expires_at ON answers (expires_at);
CREATE INDEX ix_history_account ON history (account);
CREATE INDEX ix_events_account_id ON events (account, id);
CREATE INDEX ix_events_account_vm_id_id ON events (account, vm_id, id);
CREATE INDEX ix_events_account_vm_id ON events (account, vm, id);
CREATE INDEX ix_grants_expires_at ON grants (expires_at);
CREATE INDEX ix_grants_kind_who ON grants (kind, who);
CREATE INDEX ix_links_vm ON links (vm);
CREATE INDEX ix_access_requests_created_at ON access_requests (created_at);
CREATE INDEX ix_access_requests_account_created_at ON access_requests (account, created_at);
CREATE INDEX ix_audit_at_us ON audit (at_us);
CREATE INDEX ix_audit_account_act_seq ON audit (account, act, seq);
CREATE INDEX ix_audit_account_vm_seq ON audit (account, vm, seq);
CREATE INDEX ix_audit_owner_act_seq ON audit (owner, act, seq);
CREATE INDEX ix_audit_owner_who_seq ON audit (owner, who, seq);
CREATE INDEX ix_audit_owner_vm_id_seq ON audit (owner, vm_id, seq);
CREATE INDEX ix_audit_owner_vm_seq ON audit (owner, vm, seq);
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_next BEFORE INSERT ON audit WHEN NOT (NEW.seq = coalesce((SELECT max(seq) FROM audit), 0) + 1
    AND NEW.prev = coalesce((SELECT hash FROM audit ORDER BY seq DESC LIMIT 1), '0000000000000000000000000000000000000000000000000000000000000000')) BEGIN SELECT RAISE(ABORT, 'a record of the audit follows the last one'); END;
CREATE INDEX ix_team_members_account ON team_members (account);
CREATE INDEX ix_team_invitations_email ON team_invitations (email);
CREATE INDEX ix_mailed_codes_expires_at ON mailed_codes (expires_at);
CREATE INDEX ix_domains_vm ON domains (vm);
CREATE INDEX ix_domains_next_check_at ON domains (next_check_at);
CREATE INDEX ix_visits_vm_id ON visits (vm, id);
COMMIT;
