package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Dead is read in pages of this many messages, or fewer if they are large.
const (
	deadPage  = 100
	deadBytes = 1 << 20
)

// Dead yields the dead messages in order of their IDs: those that failed
// Options.MaxAttempts times or with a Permanent error. Attempt is how many
// attempts were made, LastError what the last one said. An error ends the
// sequence.
//
// It is not a snapshot: messages are read by the hundred, and no statement is
// open while the caller looks at one, so the caller may Replay or Purge on the
// way. It may be used more than once.
func (o *Outbox) Dead(ctx context.Context, db *sql.DB) iter.Seq2[Message, error] {
	return o.DeadAfter(ctx, db, 0)
}

// DeadAfter yields the dead messages with greater IDs than id, as Dead does. It is
// for pages: what is before costs nothing.
func (o *Outbox) DeadAfter(ctx context.Context, db *sql.DB, id int64) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		if db == nil {
			yield(Message{}, fmt.Errorf("outbox: read dead messages: %w: db is nil", ErrInvalid))
			return
		}
		s := &sqlStore{sql: o.sql, db: db}
		for last, more := id, true; more; {
			var page []Message
			var err error
			if page, more, err = s.dead(ctx, last); err != nil {
				yield(Message{}, fmt.Errorf("outbox: read dead messages: %w", err))
				return
			}
			for _, m := range page {
				if !yield(m, nil) {
					return
				}
				last = m.ID
			}
		}
	}
}

// dead reads a page of dead messages. more says that there may be others.
func (s *sqlStore) dead(ctx context.Context, after int64) (page []Message, more bool, err error) {
	err = s.retryBusy(ctx, func() error {
		page, more = page[:0], false
		rows, err := s.db.QueryContext(ctx, s.sql.Dead, after, deadPage)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		var m Message
		r := newReader(&m, &m.Attempt, &m.LastError)
		for size := 0; size < deadBytes && rows.Next(); size += len(m.Payload) {
			if err := r.read(rows); err != nil {
				return err
			}
			page = append(page, m)
			more = size+len(m.Payload) >= deadBytes
		}
		more = more || len(page) == deadPage
		return errors.Join(rows.Err(), rows.Close())
	})
	return page, more, err
}

// Replay makes dead messages due again, as if they had never been tried, and
// wakes the drainers of this process. They keep their IDs, and among each
// other their order, but their key has gone on without them. Unknown IDs are
// ignored. It returns how many were found, and does all or nothing. Replay is
// safe for concurrent use by multiple goroutines.
func (o *Outbox) Replay(ctx context.Context, db *sql.DB, ids ...int64) (int64, error) {
	if db == nil {
		return 0, fmt.Errorf("outbox: replay: %w: db is nil", ErrInvalid)
	}
	if len(ids) == 0 {
		return 0, nil
	}
	s := &sqlStore{sql: o.sql, db: db}
	list := listOf(ids)
	var n int64
	err := s.retryBusy(ctx, func() error {
		return s.inTx(ctx, func(tx *sql.Tx) (err error) {
			if n, err = s.exec(ctx, tx, o.sql.Replay, list); err != nil {
				return err
			}
			_, err = s.exec(ctx, tx, o.sql.Forget, list)
			return err
		})
	})
	if err != nil {
		return 0, fmt.Errorf("outbox: replay: %w", err)
	}
	o.alarms.ring(true)
	return n, nil
}

// Purge deletes the messages that died before a time, by the clock of the
// database, and returns how many. It touches no living message. Purge is safe
// for concurrent use by multiple goroutines.
func (o *Outbox) Purge(ctx context.Context, db *sql.DB, before time.Time) (int64, error) {
	if db == nil {
		return 0, fmt.Errorf("outbox: purge: %w: db is nil", ErrInvalid)
	}
	s := &sqlStore{sql: o.sql, db: db}
	var n int64
	err := s.retryBusy(ctx, func() (err error) {
		n, err = s.exec(ctx, db, o.sql.Purge, before.UnixMicro())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("outbox: purge: %w", err)
	}
	return n, nil
}
