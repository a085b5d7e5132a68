package main

import (
	"context"
	"database/sql"
)

// cursor writes the event with the change, and has a drainer that remembers how
// far it came, and reads on from there.
//
// IDs come from the shop when a request arrives, as Snowflake, ULID and UUIDv7 do,
// and grow with time. So do those of PostgreSQL and MySQL, which are given at the
// INSERT and seen at the COMMIT: the same thing happens with them. Only SQLite
// gives its own in the order of commits, because it has one writer at a time.
type cursor struct {
	idle
	*shop
	newest int64
	ids    map[int]int64 // by request
}

func (*cursor) name() string { return "read on from the last ID" }
func (*cursor) lesson() string {
	return "IDs are given before they are committed. When 41 is read before 40 commits, the cursor is past 40 for ever."
}

func (w *cursor) open(ctx context.Context, s *shop) error {
	w.shop, w.ids = s, map[int]int64{}
	_, err := s.db.ExecContext(ctx, `
		CREATE TABLE events (id INTEGER PRIMARY KEY, event TEXT NOT NULL);
		CREATE TABLE cursor (last INTEGER NOT NULL);
		INSERT INTO cursor VALUES (0)`)
	return err
}

func (w *cursor) begin(r request) {
	w.newest++
	w.ids[r.number] = w.newest
}

func (w *cursor) commit(ctx context.Context, r request, _ bool) error {
	_, err := w.change(ctx, r, func(tx *sql.Tx, e event) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO events VALUES (?, ?)`, w.ids[r.number], e.String())
		return err
	})
	return err
}

// publish is of one drainer, whichever process it is in.
func (w *cursor) publish(ctx context.Context, _ int, crash bool) error {
	rows, err := readEvents(ctx, w.db, `SELECT id, event FROM events WHERE id > (SELECT last FROM cursor) ORDER BY id`)
	if err != nil || len(rows) == 0 {
		return err
	}
	if crash {
		rows = rows[:min(beforeCrash, len(rows))]
	}
	for _, row := range rows {
		w.broker.take(row.event)
	}
	if crash {
		return nil // and the cursor stays where it was
	}
	_, err = w.db.ExecContext(ctx, `UPDATE cursor SET last = ?`, rows[len(rows)-1].id)
	return err
}

// An eventRow is an event in a table.
type eventRow struct {
	id int64
	event
}

func readEvents(ctx context.Context, db *sql.DB, query string, args ...any) (out []eventRow, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var row eventRow
		var text string
		if err := rows.Scan(&row.id, &text); err != nil {
			return nil, err
		}
		if row.event, err = parseEvent(text); err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, rows.Err()
}
