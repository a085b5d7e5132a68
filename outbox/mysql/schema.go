package mysql

import (
	"fmt"
	"strings"
)

// buckets is between how many drainers the keys can be shared.
const buckets = 64

// versions are the statements of each schema version. A version that was
// released is never edited: a later one changes the tables.
//
// CREATE TABLE commits, whatever transaction is open. So every statement can be
// repeated, by the next try after a failure or by another process at the same
// time, and the row in outbox_schema is the last.
//
// Topic and key are VARBINARY, since every text type that MySQL and MariaDB have
// in common takes "a" and "a " for the same in a key. They hold UTF-8.
//
// outbox_messages is read and deleted at the front, of all buckets or of each.
// Whatever cannot be published now moves to outbox_waiting, so that a long queue
// behind one dead destination, or a million reminders for next week, are not in
// the way of the others.
//
// A row of outbox_waiting either has a time of its own (due_at), or waits for
// its key (due_at is null). A key for which messages wait is in outbox_parked
// with the time of its next try; none of its messages is published before.
var versions = [][]string{{
	requirement,
	bootstrap,
	`CREATE TABLE IF NOT EXISTS outbox_messages (
	id          BIGINT NOT NULL AUTO_INCREMENT,` + columns + `,
	PRIMARY KEY (id),
	KEY bucket (bucket, id)
)` + options,
	`CREATE TABLE IF NOT EXISTS outbox_waiting (
	id          BIGINT NOT NULL,` + columns + `,
	attempt     INT    NOT NULL,
	due_at      BIGINT,
	error       TEXT   NOT NULL,
	PRIMARY KEY (id),
	KEY due (due_at, id, bucket),
	KEY bucket (bucket, due_at, id),
	KEY waits (topic, message_key, due_at, id)
)` + options,
	`CREATE TABLE IF NOT EXISTS outbox_parked (
	topic       VARBINARY(255) NOT NULL,
	message_key VARBINARY(255) NOT NULL,
	bucket      SMALLINT NOT NULL,
	due_at      BIGINT   NOT NULL,
	PRIMARY KEY (topic, message_key),
	KEY due (due_at, topic, message_key, bucket),
	KEY bucket (bucket, due_at, topic, message_key)
)` + options,
	`CREATE TABLE IF NOT EXISTS outbox_dead (
	id          BIGINT NOT NULL,` + columns + `,
	attempt     INT    NOT NULL,
	error       TEXT   NOT NULL,
	died_at     BIGINT NOT NULL,
	PRIMARY KEY (id),
	KEY died (died_at)
)` + options,
	archiveTable(0, `,
	KEY delivered (delivered_at)`), // only archive 0 is purged by time
	archiveTable(1, ``),
	archiveTable(2, ``),
	`CREATE TABLE IF NOT EXISTS outbox_leases (
	epoch    BIGINT       NOT NULL,
	owner    VARCHAR(512) NOT NULL,
	until_at BIGINT       NOT NULL,
	PRIMARY KEY (epoch)
)` + options,
	`CREATE TABLE IF NOT EXISTS outbox_buckets (
	bucket SMALLINT NOT NULL,
	epoch  BIGINT   NOT NULL,
	PRIMARY KEY (bucket)
)` + options,
	`INSERT IGNORE INTO outbox_buckets (bucket, epoch) VALUES ` + allBuckets(),
	`CREATE TABLE IF NOT EXISTS outbox_topics (
	topic  VARBINARY(255) NOT NULL,
	paused TINYINT NOT NULL,
	PRIMARY KEY (topic)
)` + options,
	`CREATE TABLE IF NOT EXISTS outbox_state (
	id         TINYINT NOT NULL,
	epoch      BIGINT  NOT NULL,
	archive    TINYINT NOT NULL,
	rotated_at BIGINT  NOT NULL,
	PRIMARY KEY (id)
)` + options,
	`INSERT IGNORE INTO outbox_state (id, epoch, archive, rotated_at) VALUES (1, 0, 0, ` + now + `)`,
	`INSERT IGNORE INTO outbox_schema (version) VALUES (1)`,
}}

const bootstrap = `CREATE TABLE IF NOT EXISTS outbox_schema (
	version INT NOT NULL,
	PRIMARY KEY (version)
)` + options

// requirement fails on a server that is too old, and the message of its error
// quotes the comment.
const requirement = `DO (SELECT COUNT(*) FROM JSON_TABLE( /* the outbox needs MySQL 8.0.14 or MariaDB 10.6 */ '[]', '$[*]' COLUMNS (id BIGINT PATH '$')) j)`

// columns are those of a message but its id.
const columns = `
	bucket      SMALLINT       NOT NULL,
	topic       VARBINARY(255) NOT NULL,
	message_key VARBINARY(255) NOT NULL,
	type        VARCHAR(255)   NOT NULL,
	payload     LONGBLOB       NOT NULL,
	header      LONGTEXT       NOT NULL,
	deliver_at  BIGINT         NOT NULL,
	created_at  BIGINT         NOT NULL`

// options do not depend on what the server or the database has as its default.
const options = ` ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ROW_FORMAT=DYNAMIC`

func archiveTable(n int, more string) string {
	return fmt.Sprintf(`CREATE TABLE IF NOT EXISTS outbox_archive_%d (
	id           BIGINT NOT NULL,%s,
	delivered_at BIGINT NOT NULL,
	PRIMARY KEY (id)%s
)%s`, n, columns, more, options)
}

func allBuckets() string {
	rows := make([]string, buckets)
	for i := range rows {
		rows[i] = fmt.Sprintf(`(%d, 0)`, i)
	}
	return strings.Join(rows, ", ")
}
