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
// is tried for at most Options.Lease and a second; messages that were read and not accepted
// stay as they were. Nothing of Run is left behind when it returns.
//
// Any number of processes may call Run on the same database. They share the keys
// between them: each takes a lease and its share of the buckets of keys (64 on
// servers; 1 on SQLite, where one drains and the others stand by). When one
// comes or ends, the others notice within Options.PollMax; when one dies or
// hangs, within Options.Lease after its last sign of life. Every acknowledgement
// is fenced, so that one that comes back from the dead cannot undo the work of
// its successor.
//
// The guarantee: each message whose transaction committed is accepted by p at
// least once, or is dead; no message is published whose transaction rolled back;
// and the first deliveries of the messages of one topic and key are in the order
// of their IDs. Dead messages are skipped, and those with DeliverAt and replayed ones come
// when they come. Attempts and times of next tries are in the database and
// survive a restart.
//
// Run returns an error only at the start: ErrSchema when Migrate was not called,
// ErrInvalid when db or p is nil, or the database's error when it cannot be
// asked. After that, errors of the database are logged and retried for ever.
//
// An idle Run makes two queries a poll, and four more and a small write now and
// then. A busy one publishes a batch with no transaction open, and acknowledges
// it while it reads the next: in one statement on PostgreSQL.
func (o *Outbox) Run(ctx context.Context, db *sql.DB, p Publisher) error {
	if err := o.startable(db, p); err != nil {
		return fmt.Errorf("outbox: run: %w", err)
	}
	return o.run(ctx, &sqlStore{sql: o.sql, db: db}, p)
}

func (o *Outbox) run(ctx context.Context, s store, p Publisher) error {
	if err := s.check(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("outbox: run: %w", err)
	}
	for failures := 0; ctx.Err() == nil; {
		began := time.Now()
		c, err := o.join(ctx, s, false)
		if err == nil {
			_, err = o.serve(ctx, s, p, c, false)
			o.o.Logger.Info("outbox: no longer draining", "owner", o.owner, "epoch", c.epoch, "reason", err)
			if time.Since(began) >= o.o.Lease {
				failures = 0
				continue
			}
		}
		if ctx.Err() != nil {
			break
		}
		// No lease, or one that was lost at once.
		failures++
		wait := backoff(rand.Int64N, 100*time.Millisecond, 10*time.Second, failures)
		o.o.Logger.Warn("outbox: take a lease failed", "error", err, "next_try_in", wait)
		sleep(ctx, wait)
	}
	return nil
}

// join takes a lease. One of which the answer of the database was lost would have
// its share of the buckets, and is given back.
func (o *Outbox) join(ctx context.Context, s store, alone bool) (claim, error) {
	c, err := s.join(ctx, o.owner, o.o.Lease, alone)
	if err != nil && c.epoch != 0 {
		o.leave(ctx, s, c.epoch)
	}
	return c, err
}

// serve drains under a lease: until ctx ends or the lease is lost, or, if once,
// until nothing is due. It returns how many messages were delivered, and why it
// ended, nil only if nothing is due.
func (o *Outbox) serve(ctx context.Context, s store, p Publisher, c claim, once bool) (delivered int, err error) {
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	// The lease is kept until all is written down, which may be a while after
	// the end of ctx.
	keeping, release := context.WithCancel(context.WithoutCancel(outer))
	epoch, kept := c.epoch, make(chan struct{})
	go func() {
		defer close(kept)
		o.keep(keeping, s, epoch, cancel)
	}()
	// Deferred, so that a Publisher that ends our goroutine (t.FailNow, say)
	// leaves neither a goroutine nor a lease behind.
	defer func() {
		cancel(nil)
		release()
		<-kept
		o.leave(outer, s, epoch)
		o.leased(epoch, 0, c.of)
	}()
	ord, err := s.order(ctx)
	for failures := 0; ; {
		o.leased(c.epoch, len(c.buckets), c.of)
		if err == nil && len(c.buckets) > 0 {
			var n int
			n, err = o.session(ctx, s, p, c, ord, once)
			delivered += n
			failures = 0
		} else if err == nil {
			err = o.standBy(ctx, s, epoch)
		}
		switch {
		case ctx.Err() != nil:
			return delivered, context.Cause(ctx)
		case once, errors.Is(err, errFenced):
			return delivered, err
		case err != nil && !errors.Is(err, errRebalance):
			failures++
			wait := backoff(rand.Int64N, 100*time.Millisecond, 10*time.Second, failures)
			o.o.Logger.Warn("outbox: database failed", "error", err, "next_try_in", wait)
			sleep(ctx, wait)
		}
		if c, err = o.rebalance(ctx, s, c); err == nil {
			ord, err = s.order(ctx)
		}
	}
}

// standBy waits until there may be buckets for us.
func (o *Outbox) standBy(ctx context.Context, s store, epoch int64) error {
	for {
		sleep(ctx, jitter(o.o.PollMax))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		v, err := s.look(ctx, epoch)
		if err != nil {
			return err
		}
		if v.unbalanced {
			return errRebalance
		}
	}
}

// rebalance returns the new claim, or the old one with an error.
func (o *Outbox) rebalance(ctx context.Context, s store, c claim) (claim, error) {
	next, err := s.rebalance(ctx, c.epoch, o.o.Lease)
	if err != nil {
		return c, err
	}
	return next, nil
}

// leased tells who drains what.
func (o *Outbox) leased(epoch int64, buckets, of int) {
	o.o.Logger.Info("outbox: draining", "owner", o.owner, "epoch", epoch, "buckets", buckets, "of", of)
	if o.o.Trace.Leased != nil {
		o.o.Trace.Leased(epoch, buckets, of)
	}
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
	return o.drain(ctx, &sqlStore{sql: o.sql, db: db}, p)
}

func (o *Outbox) drain(ctx context.Context, s store, p Publisher) (int, error) {
	if err := s.check(ctx); err != nil {
		return 0, fmt.Errorf("outbox: drain: %w", err)
	}
	c, err := o.join(ctx, s, true)
	if errors.Is(err, errOthers) {
		return 0, fmt.Errorf("outbox: drain: %w: %w", ErrLeased, err)
	}
	if err != nil {
		return 0, fmt.Errorf("outbox: drain: take a lease: %w", err)
	}
	n, err := o.serve(ctx, s, p, c, true)
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
	if f, ok := p.(PublisherFunc); p == nil || ok && f == nil {
		return fmt.Errorf("%w: Publisher is nil", ErrInvalid)
	}
	return nil
}
