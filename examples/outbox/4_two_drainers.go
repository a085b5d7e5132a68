package main

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
)

// twoDrainers writes the event with the change. Each of two drainers takes the
// next events that the other has not, publishes and deletes them: a job queue.
// Servers do this with SELECT … FOR UPDATE SKIP LOCKED, whose locks end with the
// connection; SQLite has no such locks, so the drainer writes into the row that it
// has it, and its successor gives back what a dead one had.
type twoDrainers struct {
	idle
	*shop
	taken [drainers][]eventRow
}

func (*twoDrainers) name() string { return "two drainers take turns at the rows" }
func (*twoDrainers) lesson() string {
	return "One has version 7 of an order and is slow, the other has version 8 and is not. Nothing is lost, and the broker believes 7."
}

func (w *twoDrainers) open(ctx context.Context, s *shop) error {
	w.shop = s
	_, err := s.db.ExecContext(ctx, `CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL, owner INTEGER)`)
	return err
}

func (w *twoDrainers) commit(ctx context.Context, r request, _ bool) error {
	_, err := w.change(ctx, r, func(tx *sql.Tx, e event) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO events (event) VALUES (?)`, e.String())
		return err
	})
	return err
}

func (w *twoDrainers) claim(ctx context.Context, drainer int, _ bool) (err error) {
	if w.taken[drainer] != nil {
		return nil // still at work
	}
	w.taken[drainer], err = readEvents(ctx, w.db, `UPDATE events SET owner = ? WHERE id IN (
		SELECT id FROM events WHERE owner IS NULL ORDER BY id LIMIT 10) RETURNING id, event`, drainer)
	slices.SortFunc(w.taken[drainer], func(a, b eventRow) int { return cmp.Compare(a.id, b.id) }) // RETURNING has no order
	return err
}

func (w *twoDrainers) publish(ctx context.Context, drainer int, crash bool) (err error) {
	for i, row := range w.taken[drainer] {
		if crash && i == beforeCrash {
			break
		}
		w.broker.take(row.event)
	}
	if crash {
		_, err = w.db.ExecContext(ctx, `UPDATE events SET owner = NULL WHERE owner = ?`, drainer)
	} else {
		_, err = w.db.ExecContext(ctx, `DELETE FROM events WHERE owner = ?`, drainer)
	}
	w.taken[drainer] = nil
	return err
}
