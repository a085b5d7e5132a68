package outbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// sqlStore is a store in a database.
type sqlStore struct {
	sql *dialect.SQL
	db  *sql.DB
}

func (s *sqlStore) check(ctx context.Context) error {
	version, err := schemaVersion(ctx, s.sql, s.db)
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

func (s *sqlStore) ready(ctx context.Context, limit, size int) ([]entry, bool, error) {
	return s.read(ctx, s.sql.Ready, limit, size)
}

func (s *sqlStore) waiting(ctx context.Context, limit, size int) ([]entry, bool, error) {
	return s.read(ctx, s.sql.Waiting, limit, size)
}

func (s *sqlStore) read(ctx context.Context, query string, limit, size int) (entries []entry, more bool, err error) {
	err = s.retryBusy(ctx, func() error {
		entries, more, err = s.readOnce(ctx, query, limit, size)
		return err
	})
	return entries, more, err
}

func (s *sqlStore) readOnce(ctx context.Context, query string, limit, size int) (entries []entry, more bool, err error) {
	rows, err := s.db.QueryContext(ctx, query, limit)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = rows.Close() }()
	entries = make([]entry, 0, limit)
	for rows.Next() {
		var e entry
		if err := scanMessage(rows, &e.Message, &e.place, &e.state); err != nil {
			return nil, false, err
		}
		e.Attempt++
		entries = append(entries, e)
		if size -= len(e.Payload); size <= 0 {
			return entries, true, rows.Close()
		}
	}
	return entries, len(entries) == limit, rows.Err()
}

// scanMessage reads the columns that Ready, Waiting and Dead have in common, and
// then more.
func scanMessage(rows *sql.Rows, m *Message, more ...any) error {
	var header string
	var createdAt, deliverAt int64
	err := rows.Scan(append([]any{
		&m.ID, &m.Topic, &m.Key, &m.Type, &m.Payload, &header, &createdAt, &deliverAt, &m.Attempt, &m.LastError,
	}, more...)...)
	if err != nil {
		return err
	}
	if m.Header, err = decodeHeader(header); err != nil {
		return fmt.Errorf("message %d: %w", m.ID, err)
	}
	m.CreatedAt, m.DeliverAt = fromMicros(createdAt), fromMicros(deliverAt)
	return nil
}

func (s *sqlStore) settle(ctx context.Context, epoch int64, d time.Duration, decisions []decision) error {
	steps := s.steps(decisions)
	return s.retryBusy(ctx, func() error {
		return inTx(ctx, s.db, func(tx *sql.Tx) error {
			if err := s.fence(ctx, tx, epoch, d); err != nil {
				return err
			}
			for _, step := range steps {
				if _, err := tx.ExecContext(ctx, step.query, step.list); err != nil {
					return err
				}
			}
			return nil
		})
	})
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

// A step is one statement with its list.
type step struct{ query, list string }

// The elements of the lists of package dialect.
type (
	holding struct {
		ID      int64  `json:"id"`
		Attempt int    `json:"attempt"`
		In      *int64 `json:"in"`
		At      *int64 `json:"at"`
		Error   string `json:"error"`
	}
	parking struct {
		Key string `json:"key"`
		In  int64  `json:"in"`
	}
)

// steps returns the statements that carry out decisions, in an order that can be
// repeated: copies come before deletions.
func (s *sqlStore) steps(decisions []decision) []step {
	var (
		parked                      []parking
		hold, rehold                []holding // from outbox_messages, and from outbox_waiting
		bury, rebury                []holding
		deleteReady, deleteWaiting  []int64
		due                         []string
		dueSeen, parkedSeen         = map[string]bool{}, map[string]bool{}
		appendHolding, appendBurial *[]holding
	)
	for i := range decisions {
		d := &decisions[i]
		if d.verdict == untouched || d.verdict == held && d.place == inParked {
			continue
		}
		deletes := &deleteWaiting
		appendHolding, appendBurial = &rehold, &rebury
		if d.place == inReady {
			deletes, appendHolding, appendBurial = &deleteReady, &hold, &bury
		}
		h := holding{ID: d.ID, Attempt: d.attempts, Error: d.reason}
		switch d.verdict {
		case delayed:
			h.At = new(micros(d.DeliverAt))
		case failed:
			if in := d.delay.Microseconds(); d.Key == "" {
				h.In = &in
			} else {
				parked = append(parked, parking{d.Key, in})
				parkedSeen[d.Key] = true
			}
		}
		switch d.verdict {
		case held, delayed, failed:
			*appendHolding = append(*appendHolding, h)
		case dead:
			*appendBurial = append(*appendBurial, h)
		}
		if d.place == inReady || d.verdict == acked || d.verdict == dead {
			*deletes = append(*deletes, d.ID)
		}
		if d.place == inParked && !dueSeen[d.Key] {
			dueSeen[d.Key] = true
			due = append(due, d.Key)
		}
	}
	// A key that got on is due again at once, or free; one that failed is not.
	n := 0
	for _, key := range due {
		if !parkedSeen[key] {
			due[n] = key
			n++
		}
	}
	due = due[:n]

	var steps []step
	add := func(query string, n int, list any) {
		if n > 0 {
			b, _ := json.Marshal(list) // of numbers and strings: no error
			steps = append(steps, step{query, string(b)})
		}
	}
	add(s.sql.Park, len(parked), parked)
	add(s.sql.HoldReady, len(hold), hold)
	add(s.sql.HoldWaiting, len(rehold), rehold)
	add(s.sql.BuryReady, len(bury), bury)
	add(s.sql.BuryWaiting, len(rebury), rebury)
	if len(deleteReady) > 0 {
		steps = append(steps, step{s.sql.DeleteReady, idList(deleteReady)})
	}
	if len(deleteWaiting) > 0 {
		steps = append(steps, step{s.sql.DeleteWaiting, idList(deleteWaiting)})
	}
	add(s.sql.Due, len(due), due)
	add(s.sql.Unpark, len(due), due)
	return steps
}

func idList(ids []int64) string {
	b := make([]byte, 0, 2+len(ids)*8)
	b = append(b, '[')
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, id, 10)
	}
	return string(append(b, ']'))
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
