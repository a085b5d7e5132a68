package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

func (s *sqlStore) advance(ctx context.Context, ack dialect.Ack, f dialect.Fetch, size int) (entries []entry, cut bool, err error) {
	if len(ack.IDs) > 0 && s.sql.AckFetch != nil && f.Limit > 0 {
		err = s.retryBusy(ctx, func() error {
			entries, cut, err = s.ready(ctx, s.sql.AckFetch(ack, f), f.Limit, size)
			return err
		})
	} else {
		if err := s.ack(ctx, ack); err != nil || f.Limit == 0 {
			return nil, false, err
		}
		err = s.retryBusy(ctx, func() error {
			entries, cut, err = s.ready(ctx, s.sql.Fetch(f), f.Limit, size)
			return err
		})
	}
	if err == nil && len(entries) == 0 {
		// A lease that is gone reads nothing, and neither does an empty
		// table. Leases do not come back, so one that is there now was there.
		err = s.held(ctx, f.Epoch)
	}
	return entries, cut, err
}

// ack deletes messages that were delivered.
func (s *sqlStore) ack(ctx context.Context, ack dialect.Ack) error {
	if len(ack.IDs) == 0 {
		return nil
	}
	statements := s.sql.Ack(ack)
	var n int64
	run := func(q querier) (err error) {
		for _, st := range statements {
			if n, err = s.exec(ctx, q, st.Text, st.Args...); err != nil {
				return err
			}
		}
		return nil
	}
	err := s.retryBusy(ctx, func() error {
		if len(statements) == 1 {
			return run(s.db)
		}
		return s.inTx(ctx, func(tx *sql.Tx) error { return run(tx) })
	})
	if err == nil && n < int64(len(ack.IDs)) {
		err = s.held(ctx, ack.Epoch) // done before, or refused
	}
	return err
}

func (s *sqlStore) held(ctx context.Context, epoch int64) error {
	return s.retryBusy(ctx, func() error {
		var one int
		err := s.db.QueryRowContext(ctx, s.sql.Held, epoch).Scan(&one)
		if errors.Is(err, sql.ErrNoRows) {
			return errFenced
		}
		return err
	})
}

func (s *sqlStore) ready(ctx context.Context, st dialect.Statement, limit, size int) ([]entry, bool, error) {
	return s.read(ctx, st, limit, size, func(e *entry) []any { return []any{&e.bucket, &e.state} })
}

func (s *sqlStore) waiting(ctx context.Context, f dialect.Fetch, size int) (entries []entry, cut bool, err error) {
	err = s.retryBusy(ctx, func() error {
		entries, cut, err = s.read(ctx, s.sql.Waiting(f), f.Limit, size, func(e *entry) []any {
			return []any{&e.bucket, &e.state, &e.Attempt, &e.LastError, &e.place}
		})
		return err
	})
	return entries, cut, err
}

// read reads until the payloads reach size. cut says that there may be more.
func (s *sqlStore) read(ctx context.Context, st dialect.Statement, limit, size int, more func(*entry) []any) (entries []entry, cut bool, err error) {
	rows, err := s.db.QueryContext(ctx, st.Text, st.Args...)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = rows.Close() }()
	var e entry
	r := newReader(&e.Message, more(&e)...)
	for rows.Next() {
		if err := r.read(rows); err != nil {
			return nil, false, err
		}
		if entries == nil {
			entries = make([]entry, 0, min(limit, 1000))
		}
		entries = append(entries, e)
		entries[len(entries)-1].Attempt++
		if size -= len(e.Payload); size <= 0 {
			cut = true
			break
		}
	}
	return entries, cut || len(entries) >= limit, errors.Join(rows.Err(), rows.Close())
}

// A reader scans the columns that Fetch, Waiting and Dead have in common, and
// then more, into one message again and again.
type reader struct {
	m                    *Message
	payload              sql.RawBytes
	header               string
	createdAt, deliverAt int64
	dest                 []any
	// arena is where small payloads of this read lie one behind the other:
	// they come and go together, and one allocation serves many.
	arena []byte
}

const (
	// arenaSize is how much is allocated at once for payloads, and maxInArena
	// the largest that shares it: whoever keeps one payload keeps its arena.
	arenaSize  = 32 << 10
	maxInArena = 4 << 10
)

func newReader(m *Message, more ...any) *reader {
	r := &reader{m: m}
	r.dest = append([]any{&m.ID, &m.Topic, &m.Key, &m.Type, &r.payload, &r.header, &r.createdAt, &r.deliverAt}, more...)
	return r
}

func (r *reader) read(rows *sql.Rows) (err error) {
	if err := rows.Scan(r.dest...); err != nil {
		return err
	}
	if r.m.Header, err = decodeHeader(r.header); err != nil {
		return fmt.Errorf("message %d: %w", r.m.ID, err)
	}
	r.m.Payload = r.keep(r.payload)
	r.m.CreatedAt, r.m.DeliverAt = fromMicros(r.createdAt), fromMicros(r.deliverAt)
	return nil
}

// keep copies what belongs to the driver. Appending to a copy does not touch the
// next one.
func (r *reader) keep(payload []byte) []byte {
	if len(payload) > maxInArena {
		return append([]byte{}, payload...)
	}
	if len(r.arena)+len(payload) > cap(r.arena) {
		r.arena = make([]byte, 0, arenaSize)
	}
	start := len(r.arena)
	r.arena = append(r.arena, payload...)
	return r.arena[start:len(r.arena):len(r.arena)]
}
