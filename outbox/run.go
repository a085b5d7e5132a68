package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Run delivers messages to p until ctx ends. Then it returns nil, after the
// Publisher has returned and what it had accepted has been acknowledged, which
// is tried for at most Options.Lease; messages that were read and not accepted
// stay as they were. Nothing of Run is left behind when it returns.
//
// Any number of processes may call Run on the same database. One of them drains
// and the others stand by; when it ends, the next takes over within
// Options.PollMax, and when it dies or hangs, within Options.Lease after its
// last sign of life. Every acknowledgement is fenced, so that one that comes
// back from the dead cannot undo the work of its successor.
//
// The guarantee: each message whose transaction committed is accepted by p at
// least once, or is dead; no message is published whose transaction rolled back;
// and the first deliveries of the messages of one key are in the order of their
// IDs. Dead messages are skipped, and those with DeliverAt and replayed ones come
// when they come. Attempts and times of next tries are in the database and
// survive a restart.
//
// Run returns an error only at the start: ErrSchema when Migrate was not called,
// ErrInvalid when db or p is nil, or the database's error when it cannot be
// asked. After that, errors of the database are logged and retried for ever.
//
// An idle Run makes two queries a poll. A busy one reads a batch in one or two
// queries, publishes it with no transaction open, and acknowledges it in one
// transaction.
func (o *Outbox) Run(ctx context.Context, db *sql.DB, p Publisher) error {
	if err := o.startable(db, p); err != nil {
		return fmt.Errorf("outbox: run: %w", err)
	}
	return o.run(ctx, &sqlStore{o.sql, db}, p)
}

func (o *Outbox) run(ctx context.Context, s store, p Publisher) error {
	if err := s.check(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("outbox: run: %w", err)
	}
	d := &drainer{Outbox: o, s: s, p: p}
	for failures := 0; ctx.Err() == nil; {
		epoch, left, err := s.acquire(ctx, o.owner, o.o.Lease)
		switch {
		case ctx.Err() != nil && epoch == 0:
		case err != nil:
			failures++
			wait := backoff(rand.Int64N, 100*time.Millisecond, 10*time.Second, failures)
			o.o.Logger.Warn("outbox: acquire lease failed", "error", err, "next_try_in", wait)
			sleep(ctx, wait, nil)
		case epoch == 0:
			// Standing by does not listen to wake, which is for the owner.
			failures = 0
			sleep(ctx, min(left+time.Millisecond, jitter(o.o.PollMax)), nil)
		default:
			failures = 0
			o.o.Logger.Info("outbox: draining", "owner", o.owner, "epoch", epoch)
			_, err := d.own(ctx, epoch, false)
			o.o.Logger.Info("outbox: no longer draining", "owner", o.owner, "epoch", epoch, "reason", err)
		}
	}
	return nil
}

// Drain delivers messages to p until none is due, and returns how many were
// accepted. It is for tests and for jobs that run now and then; a service calls
// Run. Messages that failed are no error of Drain: they wait for their next try,
// and Stats counts them.
//
// Returns ErrLeased when another drainer is at work, at once and without having
// published anything, or when one took over. A process that died in the middle of
// a Drain or Run counts as at work until its lease has ended. Returns ctx's cause
// when ctx ends first; what was accepted by then is acknowledged. Returns
// ErrSchema and ErrInvalid as Run does. The guarantee is that of Run.
func (o *Outbox) Drain(ctx context.Context, db *sql.DB, p Publisher) (int, error) {
	if err := o.startable(db, p); err != nil {
		return 0, fmt.Errorf("outbox: drain: %w", err)
	}
	return o.drain(ctx, &sqlStore{o.sql, db}, p)
}

func (o *Outbox) drain(ctx context.Context, s store, p Publisher) (int, error) {
	if err := s.check(ctx); err != nil {
		return 0, fmt.Errorf("outbox: drain: %w", err)
	}
	epoch, left, err := s.acquire(ctx, o.owner, o.o.Lease)
	if err != nil {
		return 0, fmt.Errorf("outbox: drain: acquire lease: %w", err)
	}
	if epoch == 0 {
		return 0, fmt.Errorf("outbox: drain: %w for another %v, unless it renews it", ErrLeased, left)
	}
	n, err := (&drainer{Outbox: o, s: s, p: p}).own(ctx, epoch, true)
	if errors.Is(err, errFenced) {
		err = fmt.Errorf("%w: it took over", ErrLeased)
	}
	if err != nil {
		return n, fmt.Errorf("outbox: drain: %w", err)
	}
	return n, nil
}

func (o *Outbox) startable(db *sql.DB, p Publisher) error {
	if db == nil {
		return fmt.Errorf("%w: db is nil", ErrInvalid)
	}
	if p == nil {
		return fmt.Errorf("%w: Publisher is nil", ErrInvalid)
	}
	return nil
}
