package outboxtest

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// xminCursor remembers the transaction and the id that it came to. It does not
// lose what commits late, since it waits for whatever is in progress; and that
// is more than one thinks.
func xminCursor(f flavor, table string) loop {
	state := table + "_state"
	return loop{
		table: table,
		schema: []string{
			f.create(table, `, xid xid8 NOT NULL DEFAULT pg_current_xact_id()`),
			`CREATE INDEX IF NOT EXISTS ` + table + `_order ON ` + table + ` (xid, id)`,
			`CREATE TABLE IF NOT EXISTS ` + state + ` (xid xid8 NOT NULL, id bigint NOT NULL)`,
			oneRow(state, "xid, id", `'0', 0`),
		},
		once: func(ctx context.Context, l *loop, db *sql.DB, publish func([]outbox.Message) error) (n int, err error) {
			err = l.with(ctx, db, func(tx *sql.Tx) error {
				var xid string
				var id int64
				if err := tx.QueryRowContext(ctx, `SELECT xid::text, id FROM `+state+l.lock).Scan(&xid, &id); err != nil {
					return err
				}
				// m.xid and not xid, which would be the text.
				msgs, last, err := read(ctx, tx, true, fmt.Sprintf(`SELECT id, message_key, payload, xid::text FROM %s m
WHERE (m.xid, m.id) > ('%s', %d) AND m.xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY m.xid, m.id LIMIT %d`, table, xid, id, l.batch))
				if err != nil || len(msgs) == 0 {
					return err
				}
				if err := publish(msgs); err != nil {
					return err
				}
				n = len(msgs)
				_, err = tx.ExecContext(ctx, fmt.Sprintf(`UPDATE %s SET xid = '%s', id = %d`, state, last, msgs[n-1].ID))
				return err
			})
			return n, err
		},
	}
}

// rotateAfter is how many messages a table gets before the next one's turn.
const rotateAfter = 5000

// rotation remembers a snapshot. What a later one sees and it did not is the
// next batch, in order of id: a transaction that waited for a lock on the key
// had its id, and became visible, after the one that it waited for.
//
// No row is ever deleted. Which table a message is in does not matter for
// reading: that the oldest is emptied only when all of it was read is checked
// while nobody can write to it.
func rotation(f flavor, table string) loop {
	state := table + "_state"
	l := loop{
		table:  table,
		insert: table + "_add",
		schema: []string{
			`CREATE SEQUENCE IF NOT EXISTS ` + table + `_id`,
			`CREATE TABLE IF NOT EXISTS ` + state + ` (current int NOT NULL, seen pg_snapshot NOT NULL)`,
			oneRow(state, "current, seen", "0, '1:1:'"),
			fmt.Sprintf(`CREATE OR REPLACE FUNCTION %[1]s_add(key text, payload bytea) RETURNS void LANGUAGE plpgsql AS $add$ BEGIN
	EXECUTE format('INSERT INTO %[1]s_%%s (message_key, payload) VALUES ($1, $2)', (SELECT current FROM %[2]s)) USING key, payload;
END $add$`, table, state),
		},
	}
	var arms []string
	for i := range 3 {
		name := fmt.Sprintf("%s_%d", table, i)
		l.schema = append(l.schema,
			fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s (id bigint NOT NULL DEFAULT nextval('%s_id'), message_key text NOT NULL,
	payload bytea NOT NULL, xid xid8 NOT NULL DEFAULT pg_current_xact_id())`, name, table),
			`CREATE INDEX IF NOT EXISTS `+name+`_xid ON `+name+` (xid)`)
		// Transactions that had not begun, and those that had and were in
		// progress: each walks the index.
		for _, which := range []string{
			`xid >= pg_snapshot_xmax($1::pg_snapshot) AND xid < pg_snapshot_xmax($2::pg_snapshot)`,
			`xid = ANY(ARRAY(SELECT pg_snapshot_xip($1::pg_snapshot)))`,
		} {
			arms = append(arms, `SELECT id, message_key, payload FROM `+name+` WHERE `+which+` AND pg_visible_in_snapshot(xid, $2::pg_snapshot)`)
		}
	}
	fetch := strings.Join(arms, "\nUNION ALL ") + "\nORDER BY id"
	turn := 0 // messages since the last rotation
	l.once = func(ctx context.Context, l *loop, db *sql.DB, publish func([]outbox.Message) error) (n int, err error) {
		err = l.with(ctx, db, func(tx *sql.Tx) error {
			var seen, now string
			if err := tx.QueryRowContext(ctx, `SELECT seen::text FROM `+state+l.lock).Scan(&seen); err != nil {
				return err
			}
			if err := tx.QueryRowContext(ctx, `SELECT pg_current_snapshot()::text`).Scan(&now); err != nil {
				return err
			}
			msgs, _, err := read(ctx, tx, false, fetch, seen, now)
			if err != nil || len(msgs) == 0 {
				return err
			}
			n = len(msgs)
			for batch := range slices.Chunk(msgs, l.batch) {
				if err := publish(batch); err != nil {
					return err
				}
			}
			_, err = tx.ExecContext(ctx, `UPDATE `+state+` SET seen = $1::pg_snapshot`, now)
			return err
		})
		if turn += n; err != nil || turn < rotateAfter {
			return n, err
		}
		rotated, err := rotate(ctx, l, db, table, state)
		if rotated {
			turn = 0
		}
		return n, err
	}
	return l
}

// rotate empties the oldest table and gives it to the writers, unless one of
// them is writing to it or something in it was not read.
func rotate(ctx context.Context, l *loop, db *sql.DB, table, state string) (rotated bool, err error) {
	err = l.with(ctx, db, func(tx *sql.Tx) error {
		var current, left int
		var seen string
		if err := tx.QueryRowContext(ctx, `SELECT current, seen::text FROM `+state+l.lock).Scan(&current, &seen); err != nil {
			return err
		}
		next := (current + 1) % 3
		oldest := fmt.Sprintf("%s_%d", table, next)
		if _, err := tx.ExecContext(ctx, `SAVEPOINT here`); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `LOCK TABLE `+oldest+` IN ACCESS EXCLUSIVE MODE NOWAIT`); err != nil {
			if !l.busy(err) {
				return err
			}
			_, err = tx.ExecContext(ctx, `ROLLBACK TO SAVEPOINT here`)
			return err // next time
		}
		err := tx.QueryRowContext(ctx, `SELECT count(*) FROM `+oldest+` WHERE xid >= pg_snapshot_xmin($1::pg_snapshot)
AND NOT pg_visible_in_snapshot(xid, $1::pg_snapshot)`, seen).Scan(&left)
		if err != nil || left > 0 {
			return err
		}
		if _, err := tx.ExecContext(ctx, `TRUNCATE `+oldest); err != nil {
			return err
		}
		rotated = true
		_, err = tx.ExecContext(ctx, fmt.Sprintf(`UPDATE %s SET current = %d`, state, next))
		return err
	})
	return rotated && err == nil, err
}
