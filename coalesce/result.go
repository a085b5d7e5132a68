package coalesce

import (
	"context"
	"sync"
	"sync/atomic"
)

// A Result is what [Group.DoResult] returns and [Group.DoChan] delivers.
type Result[V any] struct {
	Val V

	// Err is the error of the work; or a *PanicError or ErrGoexit, when the work
	// did not return; or the error of the caller's own context, when that ended
	// first; or ErrTooManyWaiters or ErrReentrant, when the caller was refused.
	Err error

	// Shared reports whether more than one caller received this result.
	Shared bool

	// Waiters is the number of callers that received this result, this one
	// included. It is 0 when the caller left early or was refused.
	Waiters int
}

// An outcome is how a flight ended, on its way to one caller.
type outcome[V any] struct {
	val      V
	err      error
	original *original // not nil when callers must not hold the same val
	callers  int32
	panicked bool // err is a *PanicError which Do throws again
}

func (o *outcome[V]) result() Result[V] {
	return Result[V]{Val: o.val, Err: o.err, Shared: o.callers > 1, Waiters: int(o.callers)}
}

// run sets the outcome to what fn comes to. If fn calls runtime.Goexit, run does
// not return, since nothing can stop that, and leaves ErrGoexit behind.
func (o *outcome[V]) run(ctx context.Context, fn func(context.Context) (V, error)) {
	o.err = ErrGoexit
	if p := o.attempt(ctx, fn); p != nil {
		o.err, o.panicked = p, true
	}
}

// attempt calls fn and returns its panic.
//
// A flag tells a panic from a return, and the fact that attempt returns tells a
// panic from Goexit. The recovered value could tell neither: panic(nil)
// recovers as nil under GODEBUG=panicnil=1, as Goexit does.
func (o *outcome[V]) attempt(ctx context.Context, fn func(context.Context) (V, error)) (p *PanicError) {
	returned := false
	defer func() {
		if !returned {
			p = newPanicError(recover())
		}
	}()
	o.val, o.err = fn(ctx)
	returned = true
	return nil
}

// An original guards the value that several callers clone. Each caller clones
// on its own goroutine, so that a thousand of them do not wait for a thousand
// clones made one after the other; the last to come keeps the value itself,
// once nobody reads it any more.
type original struct {
	callers atomic.Int64   // that have not come yet
	cloning sync.WaitGroup // all callers but the last
}

func newOriginal(callers int32) *original {
	s := new(original)
	s.callers.Store(int64(callers))
	s.cloning.Add(int(callers) - 1)
	return s
}

// unshare replaces the value by a copy that belongs to this caller alone.
func (o *outcome[V]) unshare(clone func(V) V) {
	s := o.original
	if s == nil {
		return
	}
	if s.callers.Add(-1) == 0 {
		s.cloning.Wait()
		return
	}
	defer s.cloning.Done()
	var zero V
	shared := o.val
	o.val = zero
	o.run(context.Background(), func(context.Context) (V, error) { return clone(shared), nil })
}
