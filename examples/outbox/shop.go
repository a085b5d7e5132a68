package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	_ "github.com/ncruces/go-sqlite3/driver"
)

// A way is a way to get events out. The shop calls begin, commit and send for each
// request, and drainers 0 and 1 call claim and publish. A way does something in
// some of them; idle does nothing in any.
type way interface {
	name() string
	lesson() string

	// open makes the tables that the way needs beside those of the shop.
	open(ctx context.Context, s *shop) error
	begin(r request)
	commit(ctx context.Context, r request, crash bool) error
	send(r request)
	// claim is told if the drainer is doomed to die when it publishes.
	claim(ctx context.Context, drainer int, doomed bool) error
	// publish dies after a few events if crash.
	publish(ctx context.Context, drainer int, crash bool) error
	// restart is after a crash of the shop: its memory is gone.
	restart()
	close() error
}

type idle struct{}

func (idle) begin(request)                            {}
func (idle) send(request)                             {}
func (idle) claim(context.Context, int, bool) error   { return nil }
func (idle) publish(context.Context, int, bool) error { return nil }
func (idle) restart()                                 {}
func (idle) close() error                             { return nil }

// beforeCrash is how many events a drainer that dies has given to the broker.
const beforeCrash = 3

// A shop is the database with the orders, and the broker.
type shop struct {
	db     *sql.DB
	path   string
	broker broker
}

// openDB opens the database, as each process does. Nothing is written through to
// the disk, since no power fails here: a process that dies loses nothing by that.
func openDB(path string) (*sql.DB, error) {
	return sql.Open("sqlite3", "file:"+path+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(off)&_txlock=immediate")
}

// Changes is the truth: what committed.
const shopSchema = `
CREATE TABLE orders (id INTEGER PRIMARY KEY, version INTEGER NOT NULL);
CREATE TABLE changes (request INTEGER PRIMARY KEY, order_id INTEGER NOT NULL, version INTEGER NOT NULL)`

// play plays the script with a way, on a new database, until every event that the
// way still knows of is delivered.
func play(ctx context.Context, sc script, w way, path string) (v verdict, err error) {
	db, err := openDB(path)
	if err != nil {
		return v, err
	}
	s := &shop{db: db, path: path}
	defer func() { err = errors.Join(err, w.close(), db.Close()) }()
	if _, err := db.ExecContext(ctx, shopSchema); err != nil {
		return v, err
	}
	for order := range orders {
		if _, err := db.ExecContext(ctx, `INSERT INTO orders VALUES (?, 0)`, order); err != nil {
			return v, err
		}
	}
	if err := w.open(ctx, s); err != nil {
		return v, err
	}
	for _, m := range sc.moments {
		if err := step(ctx, w, m); err != nil {
			return v, err
		}
	}
	if err := finish(ctx, s, w); err != nil {
		return v, err
	}
	committed, err := s.committed(ctx)
	return s.broker.judge(committed), err
}

func step(ctx context.Context, w way, m moment) (err error) {
	switch m.what {
	case begins:
		w.begin(m.request)
	case commits:
		err = w.commit(ctx, m.request, m.crash)
		if m.crash {
			w.restart()
		}
	case sends:
		w.send(m.request)
	case claims:
		err = w.claim(ctx, m.drainer, m.crash)
	case publishes:
		err = w.publish(ctx, m.drainer, m.crash)
	}
	return err
}

// finish lets the drainers deliver what is left, when the shop has closed.
func finish(ctx context.Context, s *shop, w way) error {
	for before := -1; before != len(s.broker.got); {
		before = len(s.broker.got)
		for d := range drainers {
			if err := errors.Join(w.publish(ctx, d, false), w.claim(ctx, d, false), w.publish(ctx, d, false)); err != nil {
				return err
			}
		}
	}
	return nil
}

// change changes the order of a request and has tell do, in the same transaction,
// whatever a way does there. It commits, unless the request rolls back.
func (s *shop) change(ctx context.Context, r request, tell func(*sql.Tx, event) error) (event, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return event{}, err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	e := event{Request: r.number, Order: r.order}
	err = tx.QueryRowContext(ctx, `UPDATE orders SET version = version + 1 WHERE id = ? RETURNING version`, r.order).Scan(&e.Version)
	if err != nil {
		return e, err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO changes VALUES (?, ?, ?)`, e.Request, e.Order, e.Version); err != nil {
		return e, err
	}
	if tell != nil {
		if err := tell(tx, e); err != nil {
			return e, err
		}
	}
	if r.rollsBack {
		return e, tx.Rollback() // the card was refused
	}
	return e, tx.Commit()
}

// committed returns which requests committed.
func (s *shop) committed(ctx context.Context) (map[int]bool, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT request FROM changes`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	committed := map[int]bool{}
	for rows.Next() {
		var number int
		if err := rows.Scan(&number); err != nil {
			return nil, err
		}
		committed[number] = true
	}
	return committed, rows.Err()
}

// An event says that an order has a new version. No two requests are the same, so
// the number of the request is the ID of the event.
type event struct{ Request, Order, Version int }

func (e event) String() string { return fmt.Sprint(e.Request, " ", e.Order, " ", e.Version) }

func parseEvent(text string) (e event, err error) {
	if _, err = fmt.Sscan(text, &e.Request, &e.Order, &e.Version); err != nil {
		err = fmt.Errorf("%q is no event: %w", text, err)
	}
	return e, err
}
