package postgres

import "strings"

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
//
// Texts are compared by their bytes (COLLATE "C"): keys that differ in a byte
// are different keys, and no upgrade of a collation can break an index. Payloads
// are not compressed (STORAGE EXTERNAL): each is written once and read once, and
// compressing costs more than it saves on the way.
var versions = [][]string{{
	schemaTable,
	`CREATE TABLE outbox_messages (
	id          bigint   NOT NULL GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME ` + sequence + ` CACHE 1 NO CYCLE) PRIMARY KEY,
	created_at  bigint   NOT NULL DEFAULT ` + now + `,
	deliver_at  bigint   NOT NULL,
	bucket      smallint NOT NULL,
	topic       text     NOT NULL COLLATE "C",
	message_key text     NOT NULL COLLATE "C",
	type        text     NOT NULL COLLATE "C",
	payload     bytea    NOT NULL,
	header      text     NOT NULL
) WITH (` + queue + `, ` + toastQueue + `)`,
	`ALTER TABLE outbox_messages ALTER COLUMN payload SET STORAGE EXTERNAL`,
	`CREATE TABLE outbox_waiting (` + body + `,
	attempt     integer  NOT NULL,
	due_at      bigint,
	error       text     NOT NULL,
	PRIMARY KEY (id)
) WITH (` + queue + `, ` + toastQueue + `)`,
	`ALTER TABLE outbox_waiting ALTER COLUMN payload SET STORAGE EXTERNAL`,
	`INSERT INTO outbox_messages (id, deliver_at, bucket, topic, message_key, type, payload, header)
OVERRIDING SYSTEM VALUE SELECT -n, 0, 0, '', '', '', ` + filler + `, '' FROM ` + inflated,
	`DELETE FROM outbox_messages`,
	`INSERT INTO outbox_waiting (id, created_at, deliver_at, bucket, topic, message_key, type, payload, header, attempt, error)
SELECT -n, 0, 0, 0, '', '', '', ` + filler + `, '', 0, '' FROM ` + inflated,
	`DELETE FROM outbox_waiting`,
	`CREATE INDEX outbox_waiting_due ON outbox_waiting (due_at, id) WHERE due_at IS NOT NULL`,
	`CREATE INDEX outbox_waiting_key ON outbox_waiting (topic, message_key, id) WHERE due_at IS NULL`,
	`CREATE TABLE outbox_parked (
	due_at      bigint   NOT NULL,
	bucket      smallint NOT NULL,
	topic       text     NOT NULL COLLATE "C",
	message_key text     NOT NULL COLLATE "C",
	PRIMARY KEY (message_key, topic)
) WITH (` + queue + `)`,
	// Of the time alone, so that nobody looks for a key with this index.
	`CREATE INDEX outbox_parked_due ON outbox_parked (due_at)`,
	`INSERT INTO outbox_parked (due_at, bucket, topic, message_key)
SELECT 0, 0, '', repeat('.', 1900) || n FROM ` + inflated,
	`DELETE FROM outbox_parked`,
	noStatistics(`outbox_messages`, `id`, `bucket`, `topic`),
	noStatistics(`outbox_waiting`, `id`, `bucket`, `topic`, `message_key`, `due_at`),
	noStatistics(`outbox_parked`, `bucket`, `topic`, `message_key`, `due_at`),
	`CREATE TABLE outbox_dead (` + body + `,
	attempt     integer  NOT NULL,
	error       text     NOT NULL,
	died_at     bigint   NOT NULL,
	PRIMARY KEY (id)
)`,
	`ALTER TABLE outbox_dead ALTER COLUMN payload SET STORAGE EXTERNAL`,
	`CREATE INDEX outbox_dead_died ON outbox_dead (died_at)`,
	archiveTable(0),
	archiveTable(1),
	archiveTable(2),
	`ALTER TABLE outbox_archive_0 ALTER COLUMN payload SET STORAGE EXTERNAL`,
	`ALTER TABLE outbox_archive_1 ALTER COLUMN payload SET STORAGE EXTERNAL`,
	`ALTER TABLE outbox_archive_2 ALTER COLUMN payload SET STORAGE EXTERNAL`,
	`CREATE TABLE outbox_leases (
	epoch    bigint NOT NULL PRIMARY KEY,
	until_at bigint NOT NULL,
	owner    text   NOT NULL
) WITH (` + small + `)`,
	`CREATE TABLE outbox_buckets (
	bucket smallint NOT NULL PRIMARY KEY,
	epoch  bigint   NOT NULL
) WITH (` + small + `)`,
	`INSERT INTO outbox_buckets (bucket, epoch) SELECT b, 0 FROM generate_series(0, 63) b`,
	`CREATE TABLE outbox_topics (
	topic  text     NOT NULL COLLATE "C" PRIMARY KEY,
	paused smallint NOT NULL
)`,
	`CREATE TABLE outbox_state (
	epoch      bigint   NOT NULL,
	rotated_at bigint   NOT NULL,
	archive    smallint NOT NULL
) WITH (` + small + `)`,
	// Where all tables are published, logical replication refuses to update
	// one that has no key.
	`ALTER TABLE outbox_state REPLICA IDENTITY FULL`,
	`INSERT INTO outbox_state (epoch, rotated_at, archive) VALUES (0, ` + now + `, 0)`,
	`INSERT INTO outbox_schema (version) VALUES (1)`,
}}

const schemaTable = `CREATE TABLE IF NOT EXISTS outbox_schema (version integer NOT NULL PRIMARY KEY)`

// bootstrap makes up for CREATE TABLE IF NOT EXISTS, which fails when two do it
// at once. The one that fails has waited for the other's commit.
const bootstrap = `DO $$ BEGIN
	` + schemaTable + `;
EXCEPTION WHEN unique_violation OR duplicate_table OR duplicate_object THEN NULL;
END $$`

const sequence = `outbox_messages_id_seq`

// body are the columns that a message takes along from table to table.
const body = `
	id          bigint   NOT NULL,
	created_at  bigint   NOT NULL,
	deliver_at  bigint   NOT NULL,
	bucket      smallint NOT NULL,
	topic       text     NOT NULL COLLATE "C",
	message_key text     NOT NULL COLLATE "C",
	type        text     NOT NULL COLLATE "C",
	payload     bytea    NOT NULL,
	header      text     NOT NULL`

// A queue is vacuumed after so many rows, not after a share of a backlog, and at
// full speed: until then a scan passes by what was deleted. An empty end is not
// cut off, which would lock the table, and would tell the planner that reading
// the whole table is cheap (see inflate). Rows are gone long before it would pay
// to freeze them, so inserts alone need no vacuum.
const (
	queue = `autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
	autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_insert_threshold = -1,
	autovacuum_analyze_scale_factor = 0.5, autovacuum_analyze_threshold = 5000, vacuum_truncate = false`
	toastQueue = `toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 5000,
	toast.autovacuum_vacuum_cost_delay = 0, toast.vacuum_truncate = false`
)

// small is for tables of a few rows that are updated again and again: the new
// version of a row finds room beside the old one, so that no index changes (HOT).
const small = `fillfactor = 25, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
	autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false`

// The tables that may grow quickly are given 64 pages, which a DELETE leaves
// empty. A plan that was made while a table has a page or two reads the whole
// table, and a prepared statement keeps its plan when the table has grown to a
// million rows a second later. Above some forty pages the planner prefers the
// keys, also with an empty table.
const (
	filler   = `decode(repeat('00', 1900), 'hex')`
	inflated = `generate_series(1, 256) n`
)

// noStatistics keeps the planner from learning about columns of a queue: what it
// learns is wrong as soon as the queue is empty or full, and its guesses lead to
// the keys.
func noStatistics(table string, columns ...string) string {
	return `ALTER TABLE ` + table + ` ALTER COLUMN ` + strings.Join(columns, ` SET STATISTICS 0, ALTER COLUMN `) + ` SET STATISTICS 0`
}

func archiveTable(n int) string {
	return `CREATE TABLE ` + archive(n) + ` (` + body + `,
	delivered_at bigint  NOT NULL,
	PRIMARY KEY (delivered_at, id)
) WITH (autovacuum_vacuum_insert_threshold = -1)`
}

func archive(n int) string {
	return [...]string{`outbox_archive_0`, `outbox_archive_1`, `outbox_archive_2`}[n]
}
