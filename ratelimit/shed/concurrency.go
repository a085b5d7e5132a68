package shed

import (
	"context"
	"fmt"
	"time"
)

// Concurrency lets a fixed number of requests be in progress at a time.
//
// With a Reserve it is Stripe's fleet usage load shedder ("Scaling your API with rate
// limiters", 2017): a share of the limit is for Critical requests alone. With a Queue,
// requests wait for their turn for a bounded time, higher classes first. See [Queue].
//
// It guarantees that at most the limit is in progress, and at most the limit without
// the reserve when a request below Critical starts. A request is never refused for
// want of room while one of a lower class waits, and never starts while one of a
// higher class waits.
//
// Every request that may wait has a goroutine of its own, which waits on a timer. There
// are no other goroutines and timers, so there is nothing to close.
//
// Make one with [NewConcurrency] and do not copy it. Acquire and Release take an
// uncontended lock each, read no clock while nobody waits, and allocate nothing; nor do
// refusals. Where there is a Queue, a request that cannot start at once takes the lock twice.
// A request that waits allocates about 400 bytes.
//
// A Concurrency is safe for concurrent use by multiple goroutines.
type Concurrency struct{ door door }

// ConcurrencyOptions configure NewConcurrency. Only Limit must be set.
type ConcurrencyOptions struct {
	// Limit is how many requests may be in progress. It is 1 or more.
	Limit int

	// Reserve is the share of the limit that only Critical requests may use, 0 or more
	// and below 1. With 0.2 other requests are refused once 80 % of the limit is in use.
	// The reserve is rounded down to whole requests, so at least one is for everybody.
	// Zero means none.
	Reserve float64

	// Queue is where requests wait that cannot start at once. Zero means nowhere.
	Queue Queue
}

// NewConcurrency returns a gate. Returns an error that names the field that is out of
// range.
func NewConcurrency(o ConcurrencyOptions) (*Concurrency, error) {
	if o.Limit < 1 {
		return nil, fmt.Errorf("shed: ConcurrencyOptions.Limit is %d, expected 1 or more", o.Limit)
	}
	if err := checkReserve("ConcurrencyOptions", o.Reserve); err != nil {
		return nil, err
	}
	queue, err := o.Queue.check("ConcurrencyOptions")
	if err != nil {
		return nil, err
	}
	c := new(Concurrency)
	c.door.init(o.Limit, o.Reserve, queue)
	return c, nil
}

// Acquire lets a request in, at once or after a wait in the queue. It must be ended
// with [Permit.Release]. Returns an [*Error] when the request is refused, and
// ctx.Err() when ctx ended before the request could start: its place then goes to the
// next one.
func (c *Concurrency) Acquire(ctx context.Context, class Class) (Permit, error) {
	if err := c.door.enter(ctx, class.index()); err != nil {
		return Permit{}, err
	}
	return Permit{gate: c}, nil
}

// TryAcquire is Acquire for a request that does not wait.
func (c *Concurrency) TryAcquire(class Class) (Permit, error) {
	if err := c.door.tryEnter(class.index()); err != nil {
		return Permit{}, err
	}
	return Permit{gate: c}, nil
}

// Do acquires a permit, calls f once with ctx, and releases the permit, also when f
// panics or calls [runtime.Goexit]. Returns what Acquire or f returns.
func (c *Concurrency) Do(ctx context.Context, class Class, f func(context.Context) error) error {
	p, err := c.Acquire(ctx, class)
	if err != nil {
		return err
	}
	return p.run(ctx, f)
}

// SetLimit changes the limit, for those who wait as well. When it falls below what is
// in progress, nothing is cut short: no request starts until enough have ended.
// Returns an error when the limit is below 1, and then changes nothing.
func (c *Concurrency) SetLimit(limit int) error {
	if limit < 1 {
		return fmt.Errorf("shed: the limit is %d, expected 1 or more", limit)
	}
	d := &c.door
	d.mu.Lock()
	wake(d.engine.SetLimit(d.now(), limit))
	d.mu.Unlock()
	return nil
}

// Stats returns a snapshot, of one moment.
func (c *Concurrency) Stats() ConcurrencyStats {
	c.door.mu.Lock()
	defer c.door.mu.Unlock()
	return c.door.stats()
}

func (c *Concurrency) release(time.Duration, Outcome) { c.door.leave() }

// ConcurrencyStats says how a [Concurrency] is doing, and where an [Adaptive] refuses.
type ConcurrencyStats struct {
	// Limit is the present limit.
	Limit int

	// InFlight is how many requests are in progress. It is above Limit after that has
	// been lowered.
	InFlight int

	// Waiting is how many requests are in the queue.
	Waiting Counts

	// Admitted counts the requests that started, at once or after a wait.
	Admitted Counts

	// Full, Reserved, Expired and Outranked count the requests that were refused, by
	// [Reason].
	Full, Reserved, Expired, Outranked Counts

	// Cancelled counts the requests whose context ended while they waited.
	Cancelled Counts
}

// Refused returns the sum of what was refused, by class.
func (s ConcurrencyStats) Refused() Counts {
	var sum Counts
	for i := range sum {
		sum[i] = s.Full[i] + s.Reserved[i] + s.Expired[i] + s.Outranked[i]
	}
	return sum
}

// stats runs under mu.
func (d *door) stats() ConcurrencyStats {
	s := ConcurrencyStats{Limit: d.engine.Limit(), InFlight: d.engine.InFlight()}
	for i := range s.Waiting {
		counts := d.engine.Counts(i)
		s.Waiting[i] = uint64(d.engine.WaitingOf(i))
		s.Admitted[i] = counts.Admitted
		s.Cancelled[i] = counts.Cancelled
		s.Full[i] = counts.Refused[Full]
		s.Reserved[i] = counts.Refused[Reserved]
		s.Expired[i] = counts.Refused[Expired]
		s.Outranked[i] = counts.Refused[Outranked]
	}
	return s
}
