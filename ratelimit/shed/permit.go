package shed

import (
	"context"
	"errors"
	"time"
)

// Outcome says what became of a request that a gate let in. [Adaptive] learns from
// it; the other gates only note that the request has ended.
type Outcome uint8

const (
	// Success is a request that was worked on to its end. Its latency says something,
	// whether its caller likes the answer or not.
	Success Outcome = iota

	// Drop is a request that overload has cut short: it timed out, or something further
	// down refused it. Its latency says nothing, but that it happened does.
	Drop

	// Ignore is a request that says nothing: its caller went away, or it failed before
	// any work was done.
	Ignore
)

// String returns "success", "drop" or "ignore".
func (o Outcome) String() string {
	switch o {
	case Success:
		return "success"
	case Drop:
		return "drop"
	default:
		return "ignore"
	}
}

// OutcomeOf judges the error of a request, as the Do methods of the gates do. It is
// Ignore for an error that wraps [context.Canceled]: the caller went away. It is Drop
// for one that wraps [context.DeadlineExceeded], [ErrShed], or anything with a method
// Timeout() bool that returns true, as the errors of package net have. Everything else
// is a Success, nil and failures alike: the work was done.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return Success
	}
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.Canceled):
		return Ignore
	case errors.Is(err, ErrShed), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return Drop
	default:
		return Success
	}
}

// Permit is the right to be in progress, and the token that ends it. End every permit
// with Release: until then it counts as in progress.
//
// A Permit is a small value. It may be passed on, but must be ended through one
// variable: copies do not know of each other. Different permits may be used
// concurrently; one permit may not.
type Permit struct {
	gate  releaser // nil when released
	start time.Duration
}

// releaser is what a permit came from: a *Concurrency, an *Adaptive, or the entry of a
// key.
type releaser interface {
	release(start time.Duration, o Outcome)
}

// Release ends the request with its outcome, and lets the next one in that waits.
// Later calls on the same variable do nothing, as does Release on the zero Permit. It
// never blocks for longer than a few other calls of the gate take.
func (p *Permit) Release(o Outcome) {
	gate := p.gate
	if gate == nil {
		return
	}
	p.gate = nil
	gate.release(p.start, o)
}

// run calls f and releases the permit with the outcome of f's error. A panic, or a
// runtime.Goexit, says nothing: what it cut short has no latency.
func (p *Permit) run(ctx context.Context, f func(context.Context) error) error {
	outcome := Ignore
	defer func() { p.Release(outcome) }()
	err := f(ctx)
	outcome = OutcomeOf(err)
	return err
}
