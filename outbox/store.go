package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// sqlStore is a store in a database.
type sqlStore struct {
	sql *dialect.SQL
	db  *sql.DB
}

func (s *sqlStore) check(ctx context.Context) error {
	var version int
	err := s.retryBusy(ctx, func() (err error) {
		version, err = schemaVersion(ctx, s.sql, s.db)
		return err
	})
	if err != nil {
		return err
	}
	if want := len(s.sql.Versions); version != want {
		return fmt.Errorf("%w: the database has version %d, want %d: call Migrate of this version of the package", ErrSchema, version, want)
	}
	return nil
}

func (s *sqlStore) acquire(ctx context.Context, owner string, d time.Duration) (epoch int64, left time.Duration, err error) {
	err = s.retryBusy(ctx, func() error {
		var us int64
		if err := s.db.QueryRowContext(ctx, s.sql.Lease).Scan(&epoch, &us); err != nil {
			return err
		}
		left = time.Duration(us) * time.Microsecond
		if left > 0 {
			epoch = 0
			return nil
		}
		n, err := s.exec(ctx, s.db, s.sql.Acquire, owner, d.Microseconds(), epoch)
		if err != nil {
			return err
		}
		if n == 0 { // somebody was faster
			epoch, left = 0, d
			return nil
		}
		epoch++
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	return epoch, left, nil
}

func (s *sqlStore) renew(ctx context.Context, epoch int64, d time.Duration) error {
	return s.retryBusy(ctx, func() error { return s.fence(ctx, s.db, epoch, d) })
}

func (s *sqlStore) release(ctx context.Context, epoch int64) error {
	return s.retryBusy(ctx, func() error {
		_, err := s.exec(ctx, s.db, s.sql.Release, epoch)
		return err
	})
}

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func (s *sqlStore) exec(ctx context.Context, e execer, query string, args ...any) (int64, error) {
	res, err := e.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (s *sqlStore) fence(ctx context.Context, e execer, epoch int64, d time.Duration) error {
	n, err := s.exec(ctx, e, s.sql.Renew, d.Microseconds(), epoch)
	if err == nil && n == 0 {
		err = errFenced
	}
	return err
}

func (s *sqlStore) ready(ctx context.Context, limit, size int) ([]entry, error) {
	return s.read(ctx, s.sql.Ready, limit, size, func(e *entry) []any { return []any{&e.state} })
}

func (s *sqlStore) waiting(ctx context.Context, limit, size int) ([]entry, error) {
	return s.read(ctx, s.sql.Waiting, limit, size, func(e *entry) []any {
		return []any{&e.Attempt, &e.LastError, &e.place, &e.state}
	})
}

func (s *sqlStore) read(ctx context.Context, query string, limit, size int, more func(*entry) []any) (entries []entry, err error) {
	err = s.retryBusy(ctx, func() error {
		rows, err := s.db.QueryContext(ctx, query, limit)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		entries = make([]entry, 0, limit)
		var e entry
		r := newReader(&e.Message, more(&e)...)
		for left := size; left > 0 && rows.Next(); left -= len(e.Payload) {
			if err := r.read(rows); err != nil {
				return err
			}
			entries = append(entries, e)
			entries[len(entries)-1].Attempt++
		}
		return errors.Join(rows.Err(), rows.Close())
	})
	return entries, err
}

// A reader scans the columns that Ready, Waiting and Dead have in common, and
// then more, into one message again and again.
type reader struct {
	m                    *Message
	header               string
	createdAt, deliverAt int64
	dest                 []any
}

func newReader(m *Message, more ...any) *reader {
	r := &reader{m: m}
	r.dest = append([]any{&m.ID, &m.Topic, &m.Key, &m.Type, &m.Payload, &r.header, &r.createdAt, &r.deliverAt}, more...)
	return r
}

func (r *reader) read(rows *sql.Rows) (err error) {
	if err := rows.Scan(r.dest...); err != nil {
		return err
	}
	if r.m.Header, err = decodeHeader(r.header); err != nil {
		return fmt.Errorf("message %d: %w", r.m.ID, err)
	}
	r.m.CreatedAt, r.m.DeliverAt = fromMicros(r.createdAt), fromMicros(r.deliverAt)
	return nil
}

// inTx commits what f does, or rolls it back if f fails.
func inTx(ctx context.Context, db *sql.DB, f func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// busyBound is how long a call goes on trying while others hold a lock.
const busyBound = 10 * time.Second

// retryBusy calls f again while it fails because somebody else holds a lock. The
// wait is short and random: databases that make their callers poll for a lock
// are not fair, and a caller that waits longer each time would starve.
func (s *sqlStore) retryBusy(ctx context.Context, f func() error) error {
	start := time.Now()
	for {
		err := f()
		if err == nil || !s.sql.Busy(err) || time.Since(start) >= busyBound || ctx.Err() != nil {
			return err
		}
		sleep(ctx, time.Millisecond+rand.N(10*time.Millisecond), nil)
	}
}
