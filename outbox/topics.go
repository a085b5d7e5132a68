package outbox

import (
	"context"
	"database/sql"
	"fmt"
)

// Pause stops the delivery of a topic, in all processes, until Resume. Messages
// can still be added; they wait, in order, and hold up nobody else. Drainers
// notice within Options.PollMax, and calls of Publish that run go on. It needs
// no Topics in the Options. Pausing a topic that is paused changes nothing.
// Returns ErrInvalid when topic is no topic. Pause is safe for concurrent use by
// multiple goroutines.
func (o *Outbox) Pause(ctx context.Context, db *sql.DB, topic string) error {
	return o.pause(ctx, db, topic, true)
}

// Resume ends what Pause began: drainers notice within Options.PollMax, and
// deliver what has waited in the order of its keys. Resuming a topic that is not
// paused changes nothing. Returns ErrInvalid when topic is no topic. Resume is
// safe for concurrent use by multiple goroutines.
func (o *Outbox) Resume(ctx context.Context, db *sql.DB, topic string) error {
	return o.pause(ctx, db, topic, false)
}

func (o *Outbox) pause(ctx context.Context, db *sql.DB, topic string, paused bool) error {
	do := "resume"
	value := 0
	if paused {
		do, value = "pause", 1
	}
	if db == nil {
		return fmt.Errorf("outbox: %s: %w: db is nil", do, ErrInvalid)
	}
	if wrong := (&Message{Topic: topic}).validate(0); wrong != "" {
		return fmt.Errorf("outbox: %s: %w: %s", do, ErrInvalid, wrong)
	}
	s := &sqlStore{sql: o.sql, db: db}
	err := s.retryBusy(ctx, func() error {
		_, err := s.exec(ctx, db, o.sql.Pause, topic, value)
		return err
	})
	if err != nil {
		return fmt.Errorf("outbox: %s %q: %w", do, topic, err)
	}
	o.alarms.ring(true)
	return nil
}
