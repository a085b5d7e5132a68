package gather

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/evenkeel-go/evenkeel/shard"
)

// scatter makes calls, several at a time, until all are made or the outcome is
// known. Answers and failures count as many shards as the call is for.
type scatter[R any] struct {
	// Immutable once the workers run.
	ctx     context.Context
	cancel  context.CancelFunc
	fn      func(context.Context, *call[R]) (R, error)
	o       Options
	asked   int
	need    int
	waiting *lanes[R] // of the calls not yet made; nil without a bulkhead

	mu       sync.Mutex
	calls    []call[R] // each entry belongs to the worker that makes the call
	next     int       // without a bulkhead, the first call not yet made
	answered int
	failed   int
	stopped  bool
	panic    *PanicError
	goexit   bool
}

type call[R any] struct {
	node   string
	shards []*shard.Shard
	value  R
	err    error
	state  state
	slot   bool // of the bulkhead, held while the call is made
}

type state uint8

const (
	unanswered state = iota // not asked, or ended because the scatter was over
	answered
	failed
)

func newScatter[R any](ctx context.Context, calls []call[R], o Options) (*scatter[R], error) {
	s := &scatter[R]{ctx: ctx, o: o, calls: calls}
	for i := range calls {
		s.asked += len(calls[i].shards)
	}
	var err error
	if s.need, err = o.need(s.asked); err != nil {
		return nil, err
	}
	if o.Bulkhead != nil {
		s.waiting = newLanes(o.Bulkhead, calls)
	}
	return s, nil
}

// run makes the calls and returns when all of them have. It panics or exits if one of
// them did.
func (s *scatter[R]) run() {
	s.ctx, s.cancel = context.WithCancel(s.ctx)
	defer s.cancel()

	var workers sync.WaitGroup
	defer func() { // also after a Goexit in the work that this goroutine does
		workers.Wait()
		if s.waiting != nil {
			s.waiting.leave()
		}
		if s.panic != nil {
			panic(s.panic)
		}
	}()
	for range s.o.concurrency(len(s.calls)) - 1 {
		workers.Go(s.work)
	}
	s.work()
	workers.Wait()
	if s.goexit {
		runtime.Goexit()
	}
}

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
	if s.waiting != nil {
		return s.waiting.take(s.ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == len(s.calls) {
		return nil
	}
	s.next++
	return &s.calls[s.next-1]
}

// do makes one call and notes its outcome. It contains a panic, and notes a
// Goexit on its way through, so that run can hand them to its caller.
func (s *scatter[R]) do(c *call[R]) {
	returned := false
	defer func() {
		if !returned {
			s.caught(c, recover())
		}
		if c.slot {
			s.o.Bulkhead.release(c.node, 1)
		}
	}()
	value, err := s.invoke(c)
	returned = true

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.fail(c, err)
		return
	}
	c.value, c.state = value, answered
	s.answered += len(c.shards)
	if s.o.Quorum > 0 && s.answered >= s.need {
		s.stop()
	}
}

// caught notes what ended a call that did not return: the recovered value, or nil
// for a Goexit.
func (s *scatter[R]) caught(c *call[R], value any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case value == nil: // a panic(nil) arrives as a *runtime.PanicNilError
		s.goexit = true
	case s.panic == nil:
		s.panic = &PanicError{Shard: c.shards[0], Value: value, Stack: debug.Stack()}
	}
	s.stop()
}

func (s *scatter[R]) invoke(c *call[R]) (value R, err error) {
	if err := ended(s.ctx); err != nil {
		return value, err
	}
	ctx := s.ctx
	if s.o.ShardTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.o.ShardTimeout)
		defer cancel()
	}
	if s.o.Hedge != nil {
		value, err = s.hedged(ctx, c)
	} else {
		value, err = s.fn(ctx, c)
	}
	if err != nil && ctx.Err() != nil && s.ctx.Err() == nil {
		err = fmt.Errorf("no answer within %v: %w", s.o.ShardTimeout, err)
	}
	return value, err
}

// ended returns the error of a context and its cause, if it has ended.
func ended(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != context.Canceled && cause != context.DeadlineExceeded {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

// fail counts a failure, which stops the scatter if it was one too many. The
// caller holds mu.
func (s *scatter[R]) fail(c *call[R], err error) {
	if s.stopped {
		return // the end of a call that the scatter ended
	}
	c.state, c.err = failed, err
	s.failed += len(c.shards)
	if s.asked-s.failed < s.need {
		s.stop()
	}
}

// stop ends the scatter. The caller holds mu.
func (s *scatter[R]) stop() {
	s.stopped = true
	s.cancel()
}

// outcome tells, after run, what is missing and whether that is too much.
func (s *scatter[R]) outcome(failures []ShardError) ([]shard.Range, error) {
	var missing []shard.Range
	for i := range s.calls {
		if c := &s.calls[i]; c.state != answered {
			for _, of := range c.shards {
				missing = append(missing, of.Range)
			}
		}
	}
	missing = joined(missing)
	if s.answered < s.need {
		return missing, &PartialError{Failed: failures, Missing: missing, Asked: s.asked, Answered: s.answered}
	}
	return missing, nil
}
