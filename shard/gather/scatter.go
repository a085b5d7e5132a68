package gather

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/shard"
)

// Options are the knobs of [Scatter]. The zero value asks for everything: every
// shard must answer.
type Options struct {
	// Concurrency is the most calls in flight at once. 0 means 32.
	Concurrency int

	// ShardTimeout bounds the context of each call, inside the caller's own deadline.
	// 0 means no bound of its own. The error of a call that it ended says so and wraps
	// what the call returned.
	ShardTimeout time.Duration

	// MinFraction is the least share of the shards that must answer for the call
	// to succeed, above 0 and up to 1. 0 means 1: all of them. However small it is,
	// at least one must.
	MinFraction float64
}

const defaultConcurrency = 32

func (o Options) validate() error {
	switch {
	case o.Concurrency < 0:
		return fmt.Errorf("gather: Options.Concurrency is %d, expected 0 or more", o.Concurrency)
	case o.ShardTimeout < 0:
		return fmt.Errorf("gather: Options.ShardTimeout is %v, expected 0 or more", o.ShardTimeout)
	case !(o.MinFraction >= 0 && o.MinFraction <= 1): // refuses NaN as well
		return fmt.Errorf("gather: Options.MinFraction is %v, expected 0 to 1", o.MinFraction)
	}
	return nil
}

// Result is the answer of one shard.
type Result[R any] struct {
	Shard *shard.Shard
	Value R
}

// Gathered is what [Scatter] brings together.
type Gathered[R any] struct {
	// Results are the answers, in the order in which the shards were given.
	Results []Result[R]

	// Failed are the calls that failed, in the same order.
	Failed []ShardError

	// Missing are the parts of the ring without an answer, adjoining ones joined:
	// the shards that failed and, when the call ended early, those that were ended
	// or never asked.
	Missing []shard.Range
}

// ShardError is the failure of one shard. Unwrap gives its cause.
type ShardError struct {
	Shard *shard.Shard
	Err   error
}

func (e ShardError) Error() string { return fmt.Sprintf("shard %s: %v", e.Shard.Name, e.Err) }

// Unwrap returns Err.
func (e ShardError) Unwrap() error { return e.Err }

// PartialError is returned by [Scatter] when too few shards answered.
// [errors.Is] and [errors.As] see the causes of all that failed.
type PartialError struct {
	// Failed are the calls that failed of themselves. The calls that ended because
	// another failed are not among them.
	Failed []ShardError

	// Missing are the parts of the ring without an answer.
	Missing []shard.Range

	// Asked is the number of shards that the call was for, Answered of those that
	// answered.
	Asked, Answered int
}

// Error names the first three failures and counts the others.
func (e *PartialError) Error() string {
	text := fmt.Sprintf("gather: %d of %d shards answered", e.Answered, e.Asked)
	separator := ": "
	for i, f := range e.Failed {
		if i == 3 {
			return fmt.Sprintf("%s; and %d more", text, len(e.Failed)-i)
		}
		text += separator + f.Error()
		separator = "; "
	}
	return text
}

// Unwrap returns the [ShardError] values of Failed.
func (e *PartialError) Unwrap() []error {
	errs := make([]error, len(e.Failed))
	for i, f := range e.Failed {
		errs[i] = f
	}
	return errs
}

// PanicError is what [Scatter] panics with, on the caller's goroutine, when a
// call panicked on its own.
type PanicError struct {
	Shard *shard.Shard
	Value any    // what the call panicked with
	Stack []byte // where
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("gather: shard %s: panic: %v\n\n%s", e.Shard.Name, e.Value, e.Stack)
}

// Unwrap returns Value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Scatter calls fn once for each shard, several at a time, and returns the
// answers. The shards are those of one map, [shard.Map.All] or
// [shard.Map.Overlapping]; none at all is an empty answer and no error.
//
// Scatter returns when every call that it started has returned, so fn must obey
// its context; nothing is left running. As soon as too many have failed for
// Options.MinFraction to be reached, the context of the others ends and no
// further one starts. An answer that fn gives after that, or after its timeout, still
// counts. A value that comes with an error does not.
//
// It returns a [*PartialError], together with what was gathered, when too few
// shards answered; the error holds the causes and never the cancellations that
// followed from them. It returns a plain error, before any call, if shards or fn is
// nil or a field of o is out of its range.
//
// When ctx ends, the calls in flight fail with what fn returns, and those not yet
// made with the error of ctx and its [context.Cause]. If enough shards have answered
// by then for Options.MinFraction, that is the answer, without an error.
//
// If fn panics, Scatter ends the other calls and panics with a [*PanicError]; if
// it calls [runtime.Goexit], so does Scatter. It uses one goroutine fewer than
// the calls that may be in flight, since the caller's makes calls too; fn is called
// by several at once. It is safe for concurrent use.
func Scatter[R any](ctx context.Context, shards iter.Seq[*shard.Shard], fn func(context.Context, *shard.Shard) (R, error), o Options) (Gathered[R], error) {
	if shards == nil || fn == nil {
		return Gathered[R]{}, errors.New("gather: shards or fn is nil, expected a sequence and a function")
	}
	if err := o.validate(); err != nil {
		return Gathered[R]{}, err
	}
	list := slices.Collect(shards)
	s := &scatter[R]{fn: fn, timeout: o.ShardTimeout, calls: make([]call[R], len(list)), spare: spare(len(list), o.MinFraction)}
	for i := range list {
		s.calls[i].shard = list[i]
	}
	concurrency := o.Concurrency
	if concurrency == 0 {
		concurrency = defaultConcurrency
	}

	var cancel context.CancelFunc
	s.ctx, cancel = context.WithCancel(ctx)
	s.cancel = cancel
	defer cancel()

	var workers sync.WaitGroup
	defer func() { // also after a Goexit in the work that this goroutine does
		workers.Wait()
		if s.panic != nil {
			panic(s.panic)
		}
	}()
	for range min(concurrency, len(list)) - 1 {
		workers.Go(s.work)
	}
	s.work()
	workers.Wait()
	if s.goexit {
		runtime.Goexit()
	}
	return s.gathered()
}

// spare is how many of n shards may fail.
func spare(n int, fraction float64) int {
	if fraction == 0 {
		return 0
	}
	// The fraction is often a quotient: 2.0/3 of 3 shards are 2 and not 3.
	need := int(math.Ceil(float64(n)*fraction - 1e-9))
	return n - min(n, max(1, need))
}

type scatter[R any] struct {
	// Immutable once the workers run.
	ctx     context.Context
	cancel  context.CancelFunc
	fn      func(context.Context, *shard.Shard) (R, error)
	timeout time.Duration
	spare   int

	mu      sync.Mutex
	calls   []call[R] // each entry belongs to the worker that makes the call
	next    int
	failed  int
	stopped bool
	panic   *PanicError
	goexit  bool
}

type call[R any] struct {
	shard *shard.Shard
	value R
	err   error
	state state
}

type state uint8

const (
	unanswered state = iota // not asked, or ended because the scatter was over
	answered
	failed
)

// work makes calls until none is left.
func (s *scatter[R]) work() {
	for {
		c := s.take()
		if c == nil {
			return
		}
		s.do(c)
	}
}

func (s *scatter[R]) take() *call[R] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == len(s.calls) {
		return nil
	}
	s.next++
	return &s.calls[s.next-1]
}

// do makes one call and notes its outcome. It contains a panic, and notes a
// Goexit on its way through, so that Scatter can hand them to its caller.
func (s *scatter[R]) do(c *call[R]) {
	returned := false
	defer func() {
		if returned {
			return
		}
		value := recover()
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case value == nil: // a panic(nil) arrives as a *runtime.PanicNilError
			s.goexit = true
		case s.panic == nil:
			s.panic = &PanicError{Shard: c.shard, Value: value, Stack: debug.Stack()}
		}
		s.stop()
	}()
	value, err := s.invoke(c.shard)
	returned = true

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.fail(c, err)
		return
	}
	c.value, c.state = value, answered
}

func (s *scatter[R]) invoke(of *shard.Shard) (R, error) {
	if err := s.ctx.Err(); err != nil {
		if cause := context.Cause(s.ctx); cause != err {
			err = fmt.Errorf("%w: %w", err, cause)
		}
		var none R
		return none, err
	}
	if s.timeout == 0 {
		return s.fn(s.ctx, of)
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.timeout)
	defer cancel()
	value, err := s.fn(ctx, of)
	if err != nil && ctx.Err() != nil && s.ctx.Err() == nil {
		err = fmt.Errorf("no answer within %v: %w", s.timeout, err)
	}
	return value, err
}

// fail counts a failure, which stops the scatter if it was one too many. The
// caller holds mu.
func (s *scatter[R]) fail(c *call[R], err error) {
	if s.stopped {
		return // the end of a call that the scatter ended
	}
	c.state, c.err = failed, err
	s.failed++
	if s.failed > s.spare {
		s.stop()
	}
}

// stop ends the scatter. The caller holds mu.
func (s *scatter[R]) stop() {
	s.stopped = true
	s.cancel()
}

// gathered collects the outcome after all workers have ended.
func (s *scatter[R]) gathered() (Gathered[R], error) {
	var g Gathered[R]
	for i := range s.calls {
		c := &s.calls[i]
		switch c.state {
		case answered:
			g.Results = append(g.Results, Result[R]{c.shard, c.value})
			continue
		case failed:
			g.Failed = append(g.Failed, ShardError{c.shard, c.err})
		}
		g.Missing = appendRange(g.Missing, c.shard.Range)
	}
	if s.stopped {
		return g, &PartialError{Failed: g.Failed, Missing: g.Missing, Asked: len(s.calls), Answered: len(g.Results)}
	}
	return g, nil
}

// appendRange appends r, joined to the last range if they adjoin.
func appendRange(ranges []shard.Range, r shard.Range) []shard.Range {
	if n := len(ranges); n > 0 && ranges[n-1].End == r.Start && r.Start != 0 {
		ranges[n-1].End = r.End
		return ranges
	}
	return append(ranges, r)
}
