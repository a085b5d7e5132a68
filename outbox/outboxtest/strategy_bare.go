package outboxtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// create is the statement for a table of messages with further columns.
func (f flavor) create(table, columns string) string {
	return fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s (id %s, message_key varchar(255) NOT NULL, payload %s NOT NULL%s)`,
		table, f.id, f.bytes, columns)
}

// claim takes the first rows that nobody else has, and keeps them locked until
// they are gone.
func claim(f flavor, table string) loop {
	return claimBy(f, table, "", "id")
}

// createdAt is claim in another order. now() is the start of the transaction.
func createdAt(f flavor, table string) loop {
	l := claimBy(f, table, `, created_at timestamptz NOT NULL DEFAULT now()`, "created_at, id")
	l.schema = append(l.schema, `CREATE INDEX IF NOT EXISTS `+table+`_order ON `+table+` (created_at, id)`)
	return l
}

func claimBy(f flavor, table, columns, order string) loop {
	return loop{
		table:  table,
		schema: []string{f.create(table, columns)},
		once: func(ctx context.Context, l *loop, db *sql.DB, publish func([]outbox.Message) error) (n int, err error) {
			err = l.with(ctx, db, func(tx *sql.Tx) error {
				msgs, _, err := read(ctx, tx, false, fmt.Sprintf(`SELECT id, message_key, payload FROM %s ORDER BY %s LIMIT %d%s`, table, order, l.batch, l.skip))
				if err != nil || len(msgs) == 0 {
					return err
				}
				if err := publish(msgs); err != nil {
					return err
				}
				n = len(msgs)
				return l.execIn(ctx, tx, `DELETE FROM `+table, msgs, "")
			})
			return n, err
		},
	}
}

// leaseTime is how long a drainer that died keeps its rows, in microseconds.
const leaseTime = 60_000_000

// lease writes into the rows that they are taken, so that no transaction need be
// open while publishing. owner is the fence: who comes too late deletes nothing.
func lease(f flavor, table string) loop {
	owner := rand.Text()
	return loop{
		table:  table,
		schema: []string{f.create(table, `, until_at bigint NOT NULL DEFAULT 0, owner varchar(26) NOT NULL DEFAULT ''`)},
		once: func(ctx context.Context, l *loop, db *sql.DB, publish func([]outbox.Message) error) (int, error) {
			var msgs []outbox.Message
			err := l.with(ctx, db, func(tx *sql.Tx) (err error) {
				msgs, _, err = read(ctx, tx, false, fmt.Sprintf(`SELECT id, message_key, payload FROM %s WHERE until_at < %s ORDER BY id LIMIT %d%s`, table, l.now, l.batch, l.skip))
				if err != nil || len(msgs) == 0 {
					return err
				}
				return l.execIn(ctx, tx, fmt.Sprintf(`UPDATE %s SET owner = '%s', until_at = %s + %d`, table, owner, l.now, leaseTime), msgs, "")
			})
			if err != nil || len(msgs) == 0 {
				return 0, err
			}
			if err := publish(msgs); err != nil {
				return 0, err
			}
			return len(msgs), l.execIn(ctx, db, `DELETE FROM `+table, msgs, ` AND owner = '`+owner+`'`)
		},
	}
}

// cursor keeps the messages and remembers how far it came. The lock on the row
// that remembers makes several drainers take turns.
func cursor(f flavor, table string) loop {
	state := table + "_state"
	return loop{
		table: table,
		schema: []string{
			f.create(table, ""),
			`CREATE TABLE IF NOT EXISTS ` + state + ` (last bigint NOT NULL)`,
			oneRow(state, "last", "0"),
		},
		once: func(ctx context.Context, l *loop, db *sql.DB, publish func([]outbox.Message) error) (n int, err error) {
			err = l.with(ctx, db, func(tx *sql.Tx) error {
				var last int64
				if err := tx.QueryRowContext(ctx, `SELECT last FROM `+state+l.lock).Scan(&last); err != nil {
					return err
				}
				msgs, _, err := read(ctx, tx, false, fmt.Sprintf(`SELECT id, message_key, payload FROM %s WHERE id > %d ORDER BY id LIMIT %d`, table, last, l.batch))
				if err != nil || len(msgs) == 0 {
					return err
				}
				if err := publish(msgs); err != nil {
					return err
				}
				n = len(msgs)
				_, err = tx.ExecContext(ctx, fmt.Sprintf(`UPDATE %s SET last = %d`, state, msgs[n-1].ID))
				return err
			})
			return n, err
		},
	}
}

// oneRow inserts the only row of a table, once.
func oneRow(table, columns, values string) string {
	return fmt.Sprintf(`INSERT INTO %[1]s (%[2]s) SELECT %[3]s FROM (SELECT 1 AS one) o WHERE NOT EXISTS (SELECT 1 FROM %[1]s)`, table, columns, values)
}
