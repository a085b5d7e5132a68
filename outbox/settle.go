package outbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"time"
)

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
		parked    []parking
		due       []string // keys that got on
		seen      = map[string]bool{}
		fromReady tableWork // outbox_messages
		fromWait  tableWork // outbox_waiting
	)
	for i := range decisions {
		d := &decisions[i]
		work := &fromWait
		if d.place == inReady {
			work = &fromReady
		}
		h := holding{ID: d.ID, Attempt: d.attempts, Error: d.reason}
		switch d.verdict {
		case untouched:
		case acked:
			work.gone = append(work.gone, d.ID)
		case dead:
			work.bury = append(work.bury, h)
			work.gone = append(work.gone, d.ID)
		case delayed:
			h.At = new(micros(d.DeliverAt))
			work.hold = append(work.hold, h)
		case failed:
			if in := d.delay.Microseconds(); d.Key == "" {
				h.In = &in
			} else {
				parked = append(parked, parking{d.Key, in})
				seen[d.Key] = true // not due, whatever of it got on before
			}
			work.hold = append(work.hold, h)
		case held:
			if d.place != inParked { // otherwise it waits already
				work.hold = append(work.hold, h)
			}
		}
		if d.place == inParked && (d.verdict == acked || d.verdict == dead) {
			due = append(due, d.Key)
		}
	}
	for _, h := range fromReady.hold {
		fromReady.gone = append(fromReady.gone, h.ID)
	}
	due = slices.DeleteFunc(due, func(key string) bool {
		again := seen[key]
		seen[key] = true
		return again
	})

	var steps []step
	steps = appendStep(steps, s.sql.Park, parked)
	steps = appendStep(steps, s.sql.HoldReady, fromReady.hold)
	steps = appendStep(steps, s.sql.HoldWaiting, fromWait.hold)
	steps = appendStep(steps, s.sql.BuryReady, fromReady.bury)
	steps = appendStep(steps, s.sql.BuryWaiting, fromWait.bury)
	steps = appendStep(steps, s.sql.DeleteReady, fromReady.gone)
	steps = appendStep(steps, s.sql.DeleteWaiting, fromWait.gone)
	steps = appendStep(steps, s.sql.Due, due)
	return appendStep(steps, s.sql.Unpark, due)
}

// tableWork is what happens to the messages of one table.
type tableWork struct {
	hold, bury []holding
	gone       []int64
}

func appendStep[T any](steps []step, query string, list []T) []step {
	if len(list) == 0 {
		return steps
	}
	return append(steps, step{query, listOf(list)})
}

// listOf returns the text of a list parameter. It is not for other types than
// numbers, strings, and structs of them, which cannot fail.
func listOf[T any](list []T) string {
	b, _ := json.Marshal(list)
	return string(b)
}
