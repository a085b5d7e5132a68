package outboxtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox"
)

const (
	defaultBatch = 100
	defaultPoll  = time.Millisecond
	maxInsert    = 100 // messages a statement
)

// A loop is a strategy at its barest.
type loop struct {
	flavor
	batch int
	poll  time.Duration

	table  string
	schema []string
	// insert, if set, is a function of the database that inserts key and
	// payload. Otherwise it is an INSERT into table.
	insert string
	// once publishes one batch and returns how many messages it had. The
	// context of the publisher may end; the other must not.
	once func(ctx context.Context, l *loop, db *sql.DB, publish func([]outbox.Message) error) (int, error)
}

// Migrate creates the tables that do not exist yet.
func (l *loop) Migrate(ctx context.Context, db *sql.DB) error {
	for _, statement := range l.schema {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%w\n%s", err, statement)
		}
	}
	return nil
}

// Add inserts key and payload of the messages.
func (l *loop) Add(ctx context.Context, tx outbox.Tx, msgs ...outbox.Message) error {
	for len(msgs) > 0 {
		n := min(len(msgs), maxInsert)
		values, args := make([]string, n), make([]any, 0, 2*n)
		for i, m := range msgs[:n] {
			values[i] = l.row(2 * i)
			args = append(args, m.Key, append([]byte{}, m.Payload...))
		}
		query := `INSERT INTO ` + l.table + ` (message_key, payload) VALUES ` + strings.Join(values, ", ")
		if l.insert != "" {
			query = `SELECT ` + l.insert + `(k, p) FROM (VALUES ` + strings.Join(values, ", ") + `) v(k, p)`
		}
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return err
		}
		msgs = msgs[n:]
	}
	return nil
}

// Drain takes batches until there is none.
func (l *loop) Drain(ctx context.Context, db *sql.DB, p outbox.Publisher) (total int, err error) {
	publish := func(msgs []outbox.Message) error { return errors.Join(p.Publish(ctx, msgs)...) }
	for {
		if ctx.Err() != nil {
			return total, context.Cause(ctx)
		}
		n, err := l.once(context.WithoutCancel(ctx), l, db, publish)
		if err != nil && l.busy(err) {
			continue // a deadlock, or a lock that SQLite does not wait for
		}
		total += n
		if err != nil || n == 0 {
			return total, err
		}
	}
}

// Run drains until ctx ends.
func (l *loop) Run(ctx context.Context, db *sql.DB, p outbox.Publisher) error {
	tick := time.NewTicker(l.poll)
	defer tick.Stop()
	for {
		_, err := l.Drain(ctx, db, p)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// A flavor is what the loops need to know about a database.
type flavor struct {
	name  string
	id    string           // the type of an id that grows by itself
	bytes string           // the type of a payload
	lock  string           // what makes a SELECT wait for locks, and take them
	skip  string           // the same, but rather leaves out what is locked
	now   string           // microseconds since 1970
	row   func(int) string // the parameters of a key and a payload, counted from 0
	in    func(ids []int64) (string, []any)
	tx    *sql.TxOptions
	hold  string // begins a transaction that keeps its snapshot
	busy  func(error) bool
}

func flavorOf(d Database) flavor {
	statements := d.Dialect.SQL()
	f := flavor{name: statements.Name, busy: statements.Busy}
	question := func(int) string { return `(?, ?)` }
	switch f.name {
	case "postgres":
		f.id, f.bytes = `bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY`, `bytea`
		f.lock, f.skip = ` FOR UPDATE`, ` FOR UPDATE SKIP LOCKED`
		f.now = `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint`
		f.row = func(i int) string { return fmt.Sprintf(`($%d::text, $%d::bytea)`, i+1, i+2) }
		f.in = func(ids []int64) (string, []any) {
			text := list(ids)
			return ` = ANY($1::bigint[])`, []any{"{" + text[1:len(text)-1] + "}"}
		}
		f.tx = &sql.TxOptions{Isolation: sql.LevelReadCommitted}
		f.hold = `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`
	case "mysql":
		f.id, f.bytes = `bigint PRIMARY KEY AUTO_INCREMENT`, `longblob`
		f.lock, f.skip = ` FOR UPDATE`, ` FOR UPDATE SKIP LOCKED`
		f.now = `CAST(unix_timestamp(now(6)) * 1000000 AS SIGNED)`
		f.row = question
		f.in = func(ids []int64) (string, []any) { // no parameters, no preparation
			text := list(ids)
			return ` IN (` + text[1:len(text)-1] + `)`, nil
		}
		f.tx = &sql.TxOptions{Isolation: sql.LevelReadCommitted} // fewer locks, fewer deadlocks
		f.hold = `START TRANSACTION WITH CONSISTENT SNAPSHOT`
	default:
		f.id, f.bytes = `INTEGER PRIMARY KEY AUTOINCREMENT`, `BLOB`
		f.now = `CAST(unixepoch('subsec') * 1000000 AS INTEGER)`
		f.row = question
		f.in = func(ids []int64) (string, []any) { return ` IN (SELECT value FROM json_each(?))`, []any{list(ids)} }
		f.hold = `BEGIN DEFERRED`
	}
	return f
}

// list is the JSON of ids.
func list(ids []int64) string {
	b := []byte{'['}
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, id, 10)
	}
	return string(append(b, ']'))
}

// with runs f in a transaction.
func (f flavor) with(ctx context.Context, db *sql.DB, do func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, f.tx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// querier is *sql.DB or *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// read selects id, key and payload, and perhaps one text more, of which it
// returns the last.
func read(ctx context.Context, q querier, more bool, query string, args ...any) (msgs []outbox.Message, last string, err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		msgs = append(msgs, outbox.Message{})
		m := &msgs[len(msgs)-1]
		dest := []any{&m.ID, &m.Key, &m.Payload, &last}
		if !more {
			dest = dest[:3]
		}
		if err := rows.Scan(dest...); err != nil {
			return nil, "", err
		}
	}
	return msgs, last, rows.Err()
}

func idsOf(msgs []outbox.Message) []int64 {
	ids := make([]int64, len(msgs))
	for i := range msgs {
		ids[i] = msgs[i].ID
	}
	return ids
}

// execIn runs a statement that ends in a condition on ids.
func (f flavor) execIn(ctx context.Context, q querier, before string, msgs []outbox.Message, after string) error {
	in, args := f.in(idsOf(msgs))
	_, err := q.ExecContext(ctx, before+` WHERE id`+in+after, args...)
	return err
}
