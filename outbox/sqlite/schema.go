package sqlite

import "strconv"

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
var versions = [][]string{{
	bootstrap,
	`CREATE TABLE outbox_messages (
	id          INTEGER PRIMARY KEY AUTOINCREMENT,
	bucket      INTEGER NOT NULL,
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
	bucket      INTEGER NOT NULL,
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
	`CREATE INDEX outbox_waiting_key ON outbox_waiting (topic, message_key, id) WHERE due_at IS NULL`,
	`CREATE TABLE outbox_parked (
	topic       TEXT    NOT NULL,
	message_key TEXT    NOT NULL,
	bucket      INTEGER NOT NULL,
	due_at      INTEGER NOT NULL,
	PRIMARY KEY (topic, message_key)
) STRICT, WITHOUT ROWID`,
	`CREATE UNIQUE INDEX outbox_parked_due ON outbox_parked (due_at, topic, message_key)`,
	`CREATE TABLE outbox_dead (
	id          INTEGER PRIMARY KEY,
	bucket      INTEGER NOT NULL,
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
	archiveTable(0),
	archiveTable(1),
	archiveTable(2),
	`CREATE INDEX outbox_archive_0_delivered ON outbox_archive_0 (delivered_at)`,
	`CREATE TABLE outbox_leases (
	epoch    INTEGER PRIMARY KEY,
	owner    TEXT    NOT NULL,
	until_at INTEGER NOT NULL
) STRICT`,
	`CREATE TABLE outbox_buckets (
	bucket INTEGER PRIMARY KEY,
	epoch  INTEGER NOT NULL
) STRICT`,
	`INSERT INTO outbox_buckets (bucket, epoch) VALUES (0, 0)`,
	`CREATE TABLE outbox_topics (
	topic  TEXT    NOT NULL PRIMARY KEY,
	paused INTEGER NOT NULL
) STRICT, WITHOUT ROWID`,
	`CREATE TABLE outbox_state (
	id         INTEGER PRIMARY KEY CHECK (id = 1),
	epoch      INTEGER NOT NULL,
	archive    INTEGER NOT NULL,
	rotated_at INTEGER NOT NULL
) STRICT`,
	`INSERT INTO outbox_state (id, epoch, archive, rotated_at) VALUES (1, 0, 0, ` + now + `)`,
	`INSERT INTO outbox_schema (version) VALUES (1)`,
}}

const bootstrap = `CREATE TABLE IF NOT EXISTS outbox_schema (version INTEGER PRIMARY KEY) STRICT`

// archiveTable is never looked into, but by people. Only archive 0 is purged by
// time, so only that one has an index for it.
func archiveTable(n int) string {
	return `CREATE TABLE outbox_archive_` + strconv.Itoa(n) + ` (
	id           INTEGER PRIMARY KEY,
	bucket       INTEGER NOT NULL,
	topic        TEXT    NOT NULL,
	message_key  TEXT    NOT NULL,
	type         TEXT    NOT NULL,
	payload      BLOB    NOT NULL,
	header       TEXT    NOT NULL,
	deliver_at   INTEGER NOT NULL,
	created_at   INTEGER NOT NULL,
	delivered_at INTEGER NOT NULL
) STRICT`
}
