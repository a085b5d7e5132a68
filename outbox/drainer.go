package outbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// A store is the database as a drainer sees it. sqlStore is the real one; the
// tests of timing put a model in memory in its place, in a synctest bubble.
type store interface {
	// check returns ErrSchema if the tables are not those that we know.
	check(ctx context.Context) error

	// acquire takes the lease for d if it has ended. Otherwise the epoch is 0
	// and left is how long it still lasts.
	acquire(ctx context.Context, owner string, d time.Duration) (epoch int64, left time.Duration, err error)
	// renew makes the lease last for d from now. Returns errFenced if it is
	// no longer that of epoch.
	renew(ctx context.Context, epoch int64, d time.Duration) error
	// release ends the lease if it is that of epoch.
	release(ctx context.Context, epoch int64) error

	// ready returns the oldest messages, up to limit and until their payloads
	// reach size.
	ready(ctx context.Context, limit, size int) ([]entry, error)
	// waiting does the same for messages that waited and are due now.
	waiting(ctx context.Context, limit, size int) ([]entry, error)

	// settle writes down decisions, in one transaction, and renews the lease
	// for d. Returns errFenced, and has written nothing, if the lease is no
	// longer that of epoch. Doing it again after an error is harmless.
	settle(ctx context.Context, epoch int64, d time.Duration, decisions []decision) error
}

// A drainer is one Run or Drain at work.
type drainer struct {
	*Outbox
	s store
	p Publisher

	// Whether the last batch began with the messages that had waited, whether
	// that look found any, and when it was.
	looked, found bool
	lookedAt      time.Time
}

// own drains under the lease of epoch: until ctx ends or the lease is lost, or,
// if once, until nothing is due. It returns how many messages were delivered,
// and why it ended, nil only if nothing is due.
func (d *drainer) own(ctx context.Context, epoch int64, once bool) (delivered int, err error) {
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		d.keep(ctx, epoch, cancel)
	}()
	// Deferred, so that a Publisher that ends our goroutine (t.FailNow, say)
	// leaves neither a goroutine nor a lease behind.
	defer func() {
		cancel(nil)
		<-kept
		d.release(outer, epoch)
	}()

	poll := d.o.PollMin
	for failures := 0; ; {
		n, handled, err := d.cycle(ctx, epoch)
		delivered += n
		switch {
		case ctx.Err() != nil:
			return delivered, context.Cause(ctx)
		case errors.Is(err, errFenced):
			return delivered, err
		case err != nil && once:
			return delivered, err
		case err != nil:
			failures++
			wait := backoff(rand.Int64N, 100*time.Millisecond, 10*time.Second, failures)
			d.o.Logger.Warn("outbox: database failed", "error", err, "next_try_in", wait)
			sleep(ctx, wait, nil)
			continue
		case handled > 0:
			failures, poll = 0, d.o.PollMin
			continue
		case once:
			return delivered, nil
		}
		failures = 0
		sleep(ctx, jitter(poll), d.wake)
		poll = min(2*poll, d.o.PollMax)
	}
}

// cycle reads a batch, publishes it and writes down the result. handled is how
// many messages there were.
func (d *drainer) cycle(ctx context.Context, epoch int64) (delivered, handled int, err error) {
	entries, err := d.fetch(ctx)
	if err != nil || len(entries) == 0 {
		return 0, 0, err
	}
	decisions := d.deliver(ctx, d.p, entries)
	if err := d.settle(ctx, epoch, decisions); err != nil {
		return 0, len(entries), err
	}
	for i := range decisions {
		if decisions[i].verdict == acked {
			delivered++
		}
	}
	return delivered, len(entries), nil
}

// fetch reads the next batch. Messages that waited and ready ones take turns in
// being first, so that neither keeps the other from being read. Looking for
// messages that waited costs a query that mostly finds nothing, so while there
// are ready ones it is made at most once in PollMin.
func (d *drainer) fetch(ctx context.Context) ([]entry, error) {
	look := !d.looked && (d.found || time.Since(d.lookedAt) >= d.o.PollMin)
	d.looked = look
	order := []func(context.Context, int, int) ([]entry, error){d.s.ready, d.waiting}
	if look {
		slices.Reverse(order)
	}
	var entries []entry
	limit, size := d.o.Batch, d.o.BatchBytes
	for _, read := range order {
		more, err := read(ctx, limit, size)
		if err != nil {
			return nil, fmt.Errorf("outbox: read messages: %w", err)
		}
		entries = append(entries, more...)
		limit, size = limit-len(more), size-payloads(more)
		if limit <= 0 || size <= 0 {
			break
		}
	}
	return entries, nil
}

// waiting reads messages that waited, and notes whether there were any.
func (d *drainer) waiting(ctx context.Context, limit, size int) ([]entry, error) {
	entries, err := d.s.waiting(ctx, limit, size)
	d.found, d.lookedAt = len(entries) > 0, time.Now()
	return entries, err
}

func payloads(entries []entry) (n int) {
	for i := range entries {
		n += len(entries[i].Payload)
	}
	return n
}

// settle writes down decisions, however long the caller has ceased to wait: what
// was published should not be published again. It tries again after errors for
// as long as a lease lasts, then the messages will come again.
func (d *drainer) settle(ctx context.Context, epoch int64, decisions []decision) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.o.Lease)
	defer cancel()
	for n := 1; ; n++ {
		err := d.s.settle(ctx, epoch, d.o.Lease, decisions)
		if err == nil || errors.Is(err, errFenced) {
			return err
		}
		wait := backoff(rand.Int64N, 20*time.Millisecond, time.Second, n)
		d.o.Logger.Warn("outbox: acknowledge failed", "error", err, "next_try_in", wait)
		sleep(ctx, wait, nil)
		if ctx.Err() != nil {
			return fmt.Errorf("outbox: acknowledge: %w", err)
		}
	}
}

// sleep waits for d, for the end of ctx or for wake, whatever comes first.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-wake:
	}
}

// jitter returns a time in [d/2, d], so that processes that started together do
// not poll together.
func jitter(d time.Duration) time.Duration {
	return d - rand.N(d/2+1)
}
