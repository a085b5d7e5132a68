package coalesce

import (
	"context"
	"time"
)

// How a call's context ended, apart from Timeout, which is a deadline.
const (
	landed    uint32 = iota + 1 // cause context.Canceled
	abandoned                   // cause ErrAbandoned
)

// A standard is the context of the standard library that does the work of a
// call's context from the moment that somebody asks for more than values. Much
// work never does, and it is four allocations.
type standard struct {
	context.Context
	cancel context.CancelCauseFunc
}

// Deadline returns the end of the Timeout, and no caller's deadline: a client
// that sends its deadline along would make one caller's haste that of all.
func (c *call[K, V]) Deadline() (time.Time, bool) {
	timeout := c.shard.group.Timeout
	if timeout <= 0 {
		return time.Time{}, false
	}
	return c.shard.table.epoch.Add(c.start).Add(timeout), true // in two steps: the sum may overflow
}

func (c *call[K, V]) Done() <-chan struct{} { return c.standard().Done() }

func (c *call[K, V]) Err() error { return c.standard().Err() }

// Value returns the starter's values, and c for the key c: by this a caller is
// recognised whose context descends from the flight that it would join.
func (c *call[K, V]) Value(key any) any {
	if s := c.std.Load(); s != nil {
		return s.Value(key) // and context.Cause finds its cause here
	}
	return (*values[K, V])(c).Value(key)
}

// AfterFunc is what the context package asks for before it starts a goroutine
// for a child of a context that it does not know.
func (c *call[K, V]) AfterFunc(f func()) (stop func() bool) {
	return context.AfterFunc(c.standard(), f)
}

// String keeps fmt from printing the fields, which it would read without the
// lock. Loggers and mocks do print contexts.
func (c *call[K, V]) String() string { return "coalesce.work" }

// standard returns the context that does the work, and makes it at first.
// There is no lock: whichever of standard and end comes second sees the other.
func (c *call[K, V]) standard() *standard {
	if s := c.std.Load(); s != nil {
		return s
	}
	s := new(standard)
	s.Context, s.cancel = context.WithCancelCause((*values[K, V])(c))
	if deadline, ok := c.Deadline(); ok {
		timed, stop := context.WithDeadline(s.Context, deadline)
		cancel := s.cancel
		s.Context, s.cancel = timed, func(cause error) { cancel(cause); stop() }
	}
	if !c.std.CompareAndSwap(nil, s) {
		s.end(landed) // somebody was faster: stop the timer
		return c.std.Load()
	}
	if how := c.ended.Load(); how != 0 {
		s.end(how)
	}
	return s
}

// end ends the context. The first end counts.
func (c *call[K, V]) end(how uint32) {
	if !c.ended.CompareAndSwap(0, how) {
		return
	}
	if s := c.std.Load(); s != nil {
		s.end(how)
	}
}

func (s *standard) end(how uint32) {
	if how == abandoned {
		s.cancel(ErrAbandoned)
	} else {
		s.cancel(nil)
	}
}

// values is a call seen as the root of its standard context: it never ends and
// has the starter's values. As a view of the call it costs nothing.
type values[K comparable, V any] call[K, V]

func (v *values[K, V]) Deadline() (time.Time, bool) { return time.Time{}, false }
func (v *values[K, V]) Done() <-chan struct{}       { return nil }
func (v *values[K, V]) Err() error                  { return nil }

func (v *values[K, V]) Value(key any) any {
	if c, ok := key.(*call[K, V]); ok && c == (*call[K, V])(v) {
		return c
	}
	return v.parent.Value(key)
}
