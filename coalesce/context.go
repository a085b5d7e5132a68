package coalesce

import (
	"context"
	"sync/atomic"
	"time"
)

// A work is the context on which shared work runs: it has the first caller's
// values and no caller's deadline or cancellation. It is part of what it
// belongs to, a call or a batch, and so costs no allocation of its own; that is
// therefore never reused, since the work may keep its context for ever.
type work struct {
	parent   context.Context // of the starter: its values
	deadline *time.Time      // set before the work begins, if there is a Timeout
	ended    atomic.Uint32   // how it ended; 0 while it has not
	std      atomic.Pointer[standard]
}

// How a context ended, apart from Timeout, which is a deadline.
const (
	landed    uint32 = iota + 1 // cause context.Canceled
	abandoned                   // cause ErrAbandoned
	closed                      // cause ErrClosed
)

// A standard is the context of the standard library that does the work of ours
// from the moment that somebody asks for more than values. Much work never
// does, and it is four allocations.
type standard struct {
	context.Context
	cancel context.CancelCauseFunc
}

// bound sets the end of the Timeout. It must be called before the work begins.
func (w *work) bound(timeout time.Duration) {
	if timeout > 0 {
		deadline := time.Now().Add(timeout)
		w.deadline = &deadline
	}
}

// Deadline returns the end of the Timeout, and no caller's deadline: a client
// that sends its deadline along would make one caller's haste that of all.
func (w *work) Deadline() (time.Time, bool) {
	if w.deadline == nil {
		return time.Time{}, false
	}
	return *w.deadline, true
}

func (w *work) Done() <-chan struct{} { return w.standard().Done() }

func (w *work) Err() error { return w.standard().Err() }

// Value returns the starter's values, and w for the key w: by this a caller is
// recognised whose context descends from the flight that it would join.
func (w *work) Value(key any) any {
	if s := w.std.Load(); s != nil {
		return s.Value(key) // and context.Cause finds its cause here
	}
	return (*values)(w).Value(key)
}

// AfterFunc is what the context package asks for before it starts a goroutine
// for a child of a context that it does not know.
func (w *work) AfterFunc(f func()) (stop func() bool) {
	return context.AfterFunc(w.standard(), f)
}

// String keeps fmt from printing the fields, which it would read without the
// lock. Loggers and mocks do print contexts.
func (w *work) String() string { return "coalesce.work" }

// standard returns the context that does the work, and makes it at first.
// There is no lock: whichever of standard and end comes second sees the other.
func (w *work) standard() *standard {
	if s := w.std.Load(); s != nil {
		return s
	}
	s := new(standard)
	s.Context, s.cancel = context.WithCancelCause((*values)(w))
	if w.deadline != nil && w.ended.Load() == 0 {
		timed, stop := context.WithDeadline(s.Context, *w.deadline)
		cancel := s.cancel
		s.Context, s.cancel = timed, func(cause error) { cancel(cause); stop() }
	}
	if !w.std.CompareAndSwap(nil, s) {
		s.end(landed) // somebody was faster: stop the timer
		return w.std.Load()
	}
	if how := w.ended.Load(); how != 0 {
		s.end(how)
	}
	return s
}

// end ends the context. The first end counts.
func (w *work) end(how uint32) {
	if !w.ended.CompareAndSwap(0, how) {
		return
	}
	if s := w.std.Load(); s != nil {
		s.end(how)
	}
}

func (s *standard) end(how uint32) {
	switch how {
	case abandoned:
		s.cancel(ErrAbandoned)
	case closed:
		s.cancel(ErrClosed)
	default:
		s.cancel(nil)
	}
}

// values is a work seen as the root of its standard context: it never ends and
// has the starter's values. As a view of the work it costs nothing.
type values work

func (v *values) Deadline() (time.Time, bool) { return time.Time{}, false }
func (v *values) Done() <-chan struct{}       { return nil }
func (v *values) Err() error                  { return nil }

func (v *values) Value(key any) any {
	if w, ok := key.(*work); ok && w == (*work)(v) {
		return w
	}
	return v.parent.Value(key)
}
