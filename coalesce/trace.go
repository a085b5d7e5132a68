package coalesce

import (
	"context"
	"time"
)

// A Trace is a set of hooks that tell what happens to the flights of a [Group].
// Any of them may be nil.
//
// They are for metrics, logs and spans: Start and Join have the caller's own
// context, so that a span of the caller can be linked with that of the work.
// They are called on the goroutines of the callers and of the work, with no
// lock held, and concurrently: a flight's Start comes before its Done, and
// nothing else has an order. They may use the Group. A hook must not block,
// since its caller waits for it, and must not panic.
type Trace[K comparable] struct {
	// Start is called when a flight begins, before its work is called. The
	// context is that of the caller whose values the work gets.
	Start func(ctx context.Context, key K)

	// Join is called when a caller has joined a flight. Waiters is the number
	// of its callers, this one included.
	Join func(ctx context.Context, key K, waiters int)

	// Leave is called when a caller's context ended before the flight did.
	// Waiters is the number of callers that remain: at 0 it is abandoned.
	Leave func(ctx context.Context, key K, waiters int)

	// Done is called when a flight has ended and its result is on its way to
	// the callers. The context is the one that Start got.
	Done func(ctx context.Context, key K, l Landing)
}

// A Landing is how a flight ended.
type Landing struct {
	// Waiters is the number of callers that received the result. It is 0 if all
	// had left, or if the callers wait for another execution because the
	// starter's own context ended this one.
	Waiters int

	// Duration is the time since the work was called.
	Duration time.Duration

	// Err is the error of the work, a *PanicError or ErrGoexit. Together with
	// Waiters 0 a panic has reached nobody.
	Err error
}

// started tells that the work is about to be called, and returns the function
// that tells how it ended.
func (t *Trace[K]) started(ctx context.Context, key K) (done func(callers int, err error)) {
	if t.Start != nil {
		t.Start(ctx, key)
	}
	start := time.Now()
	return func(callers int, err error) {
		if t.Done != nil {
			t.Done(ctx, key, Landing{Waiters: callers, Duration: time.Since(start), Err: err})
		}
	}
}

func (t *Trace[K]) left(ctx context.Context, key K, remain int) {
	if t != nil && t.Leave != nil {
		t.Leave(ctx, key, remain)
	}
}
