package outbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

func (s *sqlStore) settle(ctx context.Context, epoch int64, d time.Duration, decisions []decision, archive int) error {
	steps := s.steps(epoch, decisions, archive)
	return s.retryBusy(ctx, func() error {
		return s.inTx(ctx, func(tx *sql.Tx) error {
			if err := s.fence(ctx, tx, epoch, d); err != nil {
				return err
			}
			for _, st := range steps {
				if _, err := tx.ExecContext(ctx, st.Text, st.Args...); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// The elements of the lists of package dialect.
type (
	holding struct {
		ID      int64  `json:"id"`
		Attempt int    `json:"attempt"`
		In      *int64 `json:"in"`
		At      *int64 `json:"at"`
		Error   string `json:"error"`
	}
	keyed struct {
		Topic string `json:"topic"`
		Key   string `json:"key"`
	}
	parking struct {
		keyed
		Bucket int   `json:"bucket"`
		In     int64 `json:"in"`
	}
)

// A plan collects what decisions mean for each table.
type plan struct {
	parked              []parking
	seen                map[keyed]bool // keys that are parked, or got on
	due                 []keyed        // keys that got on
	fromReady, fromWait tableWork
}

// tableWork is what happens to the messages of one table.
type tableWork struct {
	delivered, gone []int64
	hold, bury      []holding
}

// steps returns the statements that carry out decisions, in an order that can be
// repeated: copies come before deletions.
func (s *sqlStore) steps(epoch int64, decisions []decision, archive int) []dialect.Statement {
	p := plan{seen: map[keyed]bool{}}
	for i := range decisions {
		p.add(&decisions[i])
	}
	for _, h := range p.fromReady.hold {
		p.fromReady.gone = append(p.fromReady.gone, h.ID)
	}
	p.due = slices.DeleteFunc(p.due, func(k keyed) bool {
		again := p.seen[k]
		p.seen[k] = true
		return again
	})

	var steps []dialect.Statement
	if len(p.fromReady.delivered) > 0 {
		steps = append(steps, s.sql.Ack(dialect.Ack{Epoch: epoch, IDs: p.fromReady.delivered, Archive: archive})...)
	}
	steps = appendStep(steps, s.sql.Park, p.parked)
	steps = appendStep(steps, s.sql.HoldReady, p.fromReady.hold)
	steps = appendStep(steps, s.sql.HoldWaiting, p.fromWait.hold)
	steps = appendStep(steps, s.sql.BuryReady, p.fromReady.bury)
	steps = appendStep(steps, s.sql.BuryWaiting, p.fromWait.bury)
	if archive >= 0 && len(p.fromWait.delivered) > 0 {
		steps = appendStep(steps, s.sql.ArchiveWaiting(archive), p.fromWait.delivered)
	}
	steps = appendStep(steps, s.sql.DeleteReady, p.fromReady.gone)
	steps = appendStep(steps, s.sql.DeleteWaiting, append(p.fromWait.delivered, p.fromWait.gone...))
	steps = appendStep(steps, s.sql.Due, p.due)
	// A late acknowledgement of the drainer before may have deleted what was to
	// be held, so also a key that is parked here may have nothing that waits.
	unpark := p.due
	for _, k := range p.parked {
		unpark = append(unpark, k.keyed)
	}
	return appendStep(steps, s.sql.Unpark, unpark)
}

func (p *plan) add(d *decision) {
	work := &p.fromWait
	if d.place == inReady {
		work = &p.fromReady
	}
	h := holding{ID: d.ID, Attempt: d.attempts, Error: d.reason}
	switch d.verdict {
	case untouched:
	case acked:
		work.delivered = append(work.delivered, d.ID)
	case dead:
		work.bury = append(work.bury, h)
		work.gone = append(work.gone, d.ID)
	case delayed:
		h.At = new(micros(d.DeliverAt))
		work.hold = append(work.hold, h)
	case failed, paused:
		in := d.delay.Microseconds()
		if d.verdict == paused {
			in = dialect.Never
		}
		if d.Key == "" {
			h.In = &in
		} else if k := d.keyed(); !p.seen[k] {
			p.parked = append(p.parked, parking{k, d.bucket, in})
			p.seen[k] = true // not due, whatever of it got on before
		}
		if d.Key == "" || d.verdict == failed || d.place != inParked {
			work.hold = append(work.hold, h)
		}
	case held:
		if d.place != inParked { // otherwise it waits already
			work.hold = append(work.hold, h)
		}
	}
	if d.place == inParked && (d.verdict == acked || d.verdict == dead) {
		p.due = append(p.due, d.keyed())
	}
}

func (e *entry) keyed() keyed { return keyed{e.Topic, e.Key} }

func appendStep[T any](steps []dialect.Statement, query string, list []T) []dialect.Statement {
	if len(list) == 0 {
		return steps
	}
	return append(steps, dialect.Statement{Text: query, Args: []any{listOf(list)}})
}

// listOf returns the text of a list parameter. It is not for other types than
// numbers, strings, and structs of them, which cannot fail.
func listOf[T any](list []T) string {
	if list == nil {
		return "[]"
	}
	b, _ := json.Marshal(list)
	return string(b)
}
