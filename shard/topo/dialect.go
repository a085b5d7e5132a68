package topo

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
)

// A Dialect is the kind of database behind a *sql.DB.
type Dialect int

const (
	// PostgreSQL is PostgreSQL 12 or later.
	PostgreSQL Dialect = iota + 1

	// MySQL is MySQL 5.7 or later, and MariaDB 10.2 or later.
	MySQL

	// SQLite is SQLite 3.37 or later. Open it with a busy timeout, without which
	// concurrent publishers fail, and with a write-ahead log, so that a poll waits for no
	// writer: "file:app.db?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)".
	SQLite
)

// The table has one row for each keyspace. The digest is text: no database has an unsigned
// 64-bit number that all drivers bring through. Keyspaces are compared byte for byte.
var schemas = map[Dialect]string{
	PostgreSQL: `CREATE TABLE IF NOT EXISTS {table} (
	keyspace text COLLATE "C" PRIMARY KEY,
	epoch    bigint NOT NULL,
	digest   text   NOT NULL,
	document text   NOT NULL
)`,
	MySQL: `CREATE TABLE IF NOT EXISTS {table} (
	keyspace VARBINARY(255) NOT NULL PRIMARY KEY,
	epoch    BIGINT         NOT NULL,
	digest   VARCHAR(16)    CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	document LONGTEXT       CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL
) ENGINE = InnoDB`,
	SQLite: `CREATE TABLE IF NOT EXISTS {table} (
	keyspace TEXT    NOT NULL PRIMARY KEY,
	epoch    INTEGER NOT NULL,
	digest   TEXT    NOT NULL,
	document TEXT    NOT NULL
) STRICT`,
}

// statements are those of one table. Each write is one statement, a transaction of its own
// at every level of isolation, that does nothing if the row is not as it was read.
type statements struct {
	schema string

	// read gives epoch, digest and document. The document is empty if epoch and digest are
	// the two parameters, so that a poll with nothing new reads no long value.
	read string

	insert, update string
	notifies       bool // whether both take the channel and the keyspace as the last parameters
}

func statementsOf(d Dialect, table string) statements {
	q := statements{
		schema: schemas[d],
		read:   `SELECT epoch, digest, CASE WHEN epoch = ? AND digest = ? THEN '' ELSE document END FROM {table} WHERE keyspace = ?`,
		insert: `INSERT INTO {table} (epoch, digest, document, keyspace) VALUES (?, ?, ?, ?)`,
		update: `UPDATE {table} SET epoch = ?, digest = ?, document = ? WHERE keyspace = ? AND epoch = ? AND digest = ?`,
	}
	if d == PostgreSQL {
		// The server sends the notification when the statement commits, and only then.
		q.notifies = true
		q.insert = `WITH done AS (` + q.insert + ` RETURNING 1) SELECT pg_notify(?, ?) FROM done`
		q.update = `WITH done AS (` + q.update + ` RETURNING 1) SELECT pg_notify(?, ?) FROM done`
	}
	for _, text := range []*string{&q.schema, &q.read, &q.insert, &q.update} {
		*text = strings.ReplaceAll(*text, "{table}", table)
		if d == PostgreSQL {
			*text = numbered(*text)
		}
	}
	return q
}

// numbered turns each ? into $1, $2 and so on.
func numbered(query string) string {
	parts := strings.Split(query, "?")
	var b strings.Builder
	for i, part := range parts {
		if i > 0 {
			b.WriteString("$" + strconv.Itoa(i))
		}
		b.WriteString(part)
	}
	return b.String()
}

// migrate creates the table. PostgreSQL takes a lock, since of two CREATE TABLE IF NOT
// EXISTS at once one fails there.
func migrate(ctx context.Context, db *sql.DB, d Dialect, schema, table string) error {
	if d != PostgreSQL {
		_, err := db.ExecContext(ctx, schema)
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, "evenkeel migrate "+table); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, schema); err != nil {
		return err
	}
	return tx.Commit()
}
