package gather

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"
)

// Hedge makes a call that is late a second time and takes the answer that comes
// first, as Dean and Barroso describe it (The Tail at Scale, CACM 56(2), 2013): of a
// hundred shards, the slowest sets the time of the whole, and what is slow once is
// seldom slow twice. It is only for reads that may be repeated, and whose answer holds
// nothing that must be closed or that lives by its context, as *sql.Rows do: one of two is
// discarded. [Attempt] tells the
// function which of the two it is, so that the second can ask a replica.
//
// Of the two attempts, the context of the one that is still under way when the other
// has answered ends, and what it returns is discarded; the scatter waits for it to
// return. An attempt that fails waits for the other, and the call fails if both do. A
// call that fails before After has passed is not repeated: a hedge is no retry.
//
// The budget is a token bucket. Each call adds Budget to it, a second attempt takes 1,
// and it begins empty and holds at most 10. So of the first n calls at most n times
// Budget are repeated, for every n; and of any n calls in a row at most 10 more than that,
// so that nodes which are slow because they are overloaded are spared. With a
// [Bulkhead], a second attempt takes a slot of the same node as the first, and is not made
// if none is free.
//
// Share one Hedge among all scatters of a kind: one that is new has saved no token. It
// costs a timer and a context for each call. It must not be copied, nor its fields
// changed once it is in use. It is safe for concurrent use by multiple goroutines.
type Hedge struct {
	// After is how long a call may take before it is made again. It must be above 0. The
	// 95th percentile of the calls is the usual choice.
	After time.Duration

	// Budget is the share of the calls that may be repeated, above 0 and up to 1. 0
	// means 0.05.
	Budget float64

	mu     sync.Mutex
	tokens int64 // in billionths, so that twenty times 0.05 are 1
	stats  HedgeStats
}

// HedgeStats counts what a [Hedge] has done so far.
type HedgeStats struct {
	Calls      uint64 // calls made, second attempts not counted
	Hedges     uint64 // second attempts
	Wins       uint64 // of these, whose answer was taken
	OverBudget uint64 // late calls that the budget left alone
	NoRoom     uint64 // late calls whose node had no room in the Bulkhead
}

const (
	defaultBudget = 0.05
	wholeToken    = 1_000_000_000
	mostTokens    = 10 * wholeToken
)

func (h *Hedge) validate() error {
	switch {
	case h == nil:
		return nil
	case h.After <= 0:
		return fmt.Errorf("gather: Hedge.After is %v, expected more than 0", h.After)
	case !(h.Budget >= 0 && h.Budget <= 1): // refuses NaN as well
		return fmt.Errorf("gather: Hedge.Budget is %v, expected 0 to 1", h.Budget)
	}
	return nil
}

// Stats returns a snapshot of the counts.
func (h *Hedge) Stats() HedgeStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stats
}

// called counts a call and what it adds to the budget.
func (h *Hedge) called() {
	budget := h.Budget
	if budget == 0 {
		budget = defaultBudget
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stats.Calls++
	h.tokens = min(mostTokens, h.tokens+int64(math.Round(budget*wholeToken)))
}

// allow decides on a second attempt at a node and takes what it costs.
func (h *Hedge) allow(b *Bulkhead, node string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.tokens < wholeToken:
		h.stats.OverBudget++
		return false
	case b != nil && !b.try(node):
		h.stats.NoRoom++
		return false
	}
	h.tokens -= wholeToken
	h.stats.Hedges++
	return true
}

func (h *Hedge) won() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stats.Wins++
}

type attemptKey struct{}

// Attempt returns which attempt at its call a function is, by the context that it was
// given: 0 for the first, 1 for a second one that [Hedge] makes. Of any other context
// it returns 0.
func Attempt(ctx context.Context) int {
	n, _ := ctx.Value(attemptKey{}).(int)
	return n
}

// race is what the two attempts at one call share.
type race[R any] struct {
	mu        sync.Mutex
	answered  bool
	endSecond context.CancelFunc // nil until the second attempt is made

	// Of the second attempt, to be read once it has returned.
	value R
	won   bool
	err   error
}

// win reports whether the caller's answer is the first.
func (r *race[R]) win() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := !r.answered
	r.answered = true
	return first
}

// over ends the second attempt, also one that is yet to begin.
func (r *race[R]) over() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answered = true
	if r.endSecond != nil {
		r.endSecond()
	}
}

// hedged makes the first attempt at a call on this goroutine, and the second on the
// timer's. It returns when both have.
func (s *scatter[R]) hedged(ctx context.Context, c *call[R]) (R, error) {
	s.o.Hedge.called()
	if Attempt(ctx) != 0 { // of a call around this one
		ctx = context.WithValue(ctx, attemptKey{}, 0)
	}
	first, endFirst := context.WithCancel(ctx)
	defer endFirst()
	r := new(race[R])
	over := make(chan struct{})
	timer := time.AfterFunc(s.o.Hedge.After, func() {
		defer close(over)
		s.second(ctx, c, r, endFirst)
	})
	alone := false
	defer func() { // fn may have panicked
		if !alone && !timer.Stop() {
			r.over()
			<-over
		}
	}()

	value, err := s.fn(first, c)
	if alone = timer.Stop(); alone {
		return value, err
	}
	if err == nil && r.win() {
		return value, nil
	}
	<-over
	switch {
	case r.won:
		return r.value, nil
	case r.err != nil:
		err = fmt.Errorf("%w; second attempt: %w", err, r.err)
	}
	return value, err
}

// second makes the second attempt, if it may.
func (s *scatter[R]) second(ctx context.Context, c *call[R], r *race[R], endFirst context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithValue(ctx, attemptKey{}, 1))
	defer cancel()
	r.mu.Lock()
	r.endSecond = cancel
	late := !r.answered
	r.mu.Unlock()
	if !late || ctx.Err() != nil || !s.o.Hedge.allow(s.o.Bulkhead, c.node) {
		return
	}
	returned := false
	defer func() {
		if !returned {
			s.caught(c, recover())
		}
		if s.o.Bulkhead != nil {
			s.o.Bulkhead.release(c.node, 1)
		}
	}()
	value, err := s.fn(ctx, c)
	returned = true
	if err != nil {
		r.err = err
	} else if r.win() {
		r.value, r.won = value, true
		s.o.Hedge.won()
		endFirst()
	}
}
