package sqlite

// versions are the statements of each schema version. A version that was
// released is never edited: a later one changes the tables.
//
// outbox_messages is read from the front and deleted at the front, so it needs
// no index but its primary key. Whatever cannot be published now moves to
// outbox_waiting, so that a long queue behind one dead destination, or a
// million reminders for next week, are not in the way of the others.
//
// A row of outbox_waiting either has a time of its own (due_at), or waits for
// its key (due_at is null). A key for which messages wait is in outbox_parked
// with the time of its next try; none of its messages is published before.
// outbox_parked_due says that it is unique, which is obvious, so that SQLite
// knows that the messages behind it need no sorting.
//
// outbox_leases has one row, bucket 0: one drainer at a time. A row for each
// bucket of keys would let several drainers share the work.
var versions = [][]string{{
	bootstrap,
	`CREATE TABLE outbox_messages (
	id          INTEGER PRIMARY KEY AUTOINCREMENT,
	topic       TEXT    NOT NULL,
	message_key TEXT    NOT NULL,
	type        TEXT    NOT NULL,
	payload     BLOB    NOT NULL,
	header      TEXT    NOT NULL,
	deliver_at  INTEGER NOT NULL,
	created_at  INTEGER NOT NULL DEFAULT (` + now + `)
) STRICT`,
	`CREATE TABLE outbox_waiting (
	id          INTEGER PRIMARY KEY,
	topic       TEXT    NOT NULL,
	message_key TEXT    NOT NULL,
	type        TEXT    NOT NULL,
	payload     BLOB    NOT NULL,
	header      TEXT    NOT NULL,
	deliver_at  INTEGER NOT NULL,
	created_at  INTEGER NOT NULL,
	attempt     INTEGER NOT NULL,
	due_at      INTEGER,
	error       TEXT    NOT NULL
) STRICT`,
	`CREATE INDEX outbox_waiting_due ON outbox_waiting (due_at) WHERE due_at IS NOT NULL`,
	`CREATE INDEX outbox_waiting_key ON outbox_waiting (message_key, id) WHERE due_at IS NULL`,
	`CREATE TABLE outbox_parked (
	message_key TEXT    NOT NULL PRIMARY KEY,
	due_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID`,
	`CREATE UNIQUE INDEX outbox_parked_due ON outbox_parked (due_at, message_key)`,
	`CREATE TABLE outbox_dead (
	id          INTEGER PRIMARY KEY,
	topic       TEXT    NOT NULL,
	message_key TEXT    NOT NULL,
	type        TEXT    NOT NULL,
	payload     BLOB    NOT NULL,
	header      TEXT    NOT NULL,
	deliver_at  INTEGER NOT NULL,
	created_at  INTEGER NOT NULL,
	attempt     INTEGER NOT NULL,
	error       TEXT    NOT NULL,
	died_at     INTEGER NOT NULL
) STRICT`,
	`CREATE INDEX outbox_dead_died ON outbox_dead (died_at)`,
	`CREATE TABLE outbox_leases (
	bucket   INTEGER PRIMARY KEY,
	owner    TEXT    NOT NULL,
	epoch    INTEGER NOT NULL,
	until_at INTEGER NOT NULL
) STRICT`,
	`INSERT INTO outbox_leases (bucket, owner, epoch, until_at) VALUES (0, '', 0, 0)`,
	`INSERT INTO outbox_schema (version) VALUES (1)`,
}}

const bootstrap = `CREATE TABLE IF NOT EXISTS outbox_schema (version INTEGER PRIMARY KEY) STRICT`
