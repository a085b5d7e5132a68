package coalesce

import (
	"context"
	"errors"
	"time"
)

// A call is one flight: an execution of the work and the callers that wait for
// it.
type call[K comparable, V any] struct {
	work // its context, with the starter as the parent

	// Immutable.
	shard *shard[K, V]
	hash  uint64
	key   K

	// Guarded by shard.mu.
	start     time.Duration    // since the table's epoch; 0 if nobody has asked yet
	next      *call[K, V]      // in the same bucket
	gate      *gate[V]         // where callers wait; nil while there is only one that runs inline
	successor *successor[K, V] // of a closed call: begins when this one has landed
	waiters   int32            // the callers, one that runs inline included
	listed    bool             // in the table
	closed    bool             // nobody may join: listed so that no other begins (Exclusive)
	pending   bool             // a successor that has not begun
	landed    bool             // the outcome is known and on its way to the callers
}

// A gate is where the callers of a flight wait. There is one for all of them,
// and not a channel for each: what a caller touches is then in the cache, which
// makes a join a third cheaper.
type gate[V any] struct {
	done    chan struct{} // closed when the rest is there to be read
	outcome outcome[V]
	again   bool // those who have not yet done so shall start the work again

	seconds int32 // callers that have done so; guarded by shard.mu
}

// A detached call has a starter that can leave, and therefore a goroutine and a
// gate of its own, in one allocation.
type detached[K comparable, V any] struct {
	call[K, V]
	own gate[V]
}

// A successor is a call that has not begun, and the function with which it will.
type successor[K comparable, V any] struct {
	call *call[K, V]
	fn   func(context.Context) (V, error)
}

// stamp sets the start, once. Inline flights that nobody joins do without: the
// clock would be a quarter of their cost. The shard must be locked.
func (c *call[K, V]) stamp() {
	if c.start == 0 {
		c.start = time.Since(c.shard.table.epoch)
	}
}

// add makes the caller wait for c. The shard must be locked.
func (c *call[K, V]) add(again bool) {
	c.stamp()
	if c.gate == nil {
		c.gate = &gate[V]{done: make(chan struct{})}
	}
	c.waiters++
	if again {
		c.gate.seconds++
	}
}

// depart runs the work of a detached call on a goroutine of its own.
func (c *call[K, V]) depart(fn func(context.Context) (V, error)) {
	go c.fly(fn, &c.gate.outcome)
}

// fly runs the work and lands, however the work ends.
func (c *call[K, V]) fly(fn func(context.Context) (V, error), o *outcome[V]) {
	g := c.shard.group
	orphaned := false
	var done func(callers int, err error)
	o.err = ErrGoexit // unless it comes further than the hook
	defer func() {
		c.land(o, orphaned)
		if done != nil {
			done(int(o.callers), o.err)
		}
	}()
	c.bound(g.Timeout)
	if g.Trace != nil {
		done = g.Trace.started(c.parent, c.key)
	}
	o.run(&c.work, func(ctx context.Context) (V, error) {
		v, err := fn(ctx)
		orphaned = err != nil && c.orphaned(err) // here, because foreign errors can panic
		return v, err
	})
}

// orphaned tells whether err is the end of the starter's own context, which
// must not become the end of those who still live. It runs foreign code (Err,
// Is, Unwrap) and therefore holds no lock.
func (c *call[K, V]) orphaned(err error) bool {
	if c.parent.Done() == nil {
		return false // cannot die, and may run inline
	}
	dead := c.parent.Err()
	if dead == nil || !errors.Is(err, dead) && !errors.Is(err, context.Cause(c.parent)) {
		return false
	}
	return c.work.Err() == nil // which ends by Timeout, or because all have left
}

// land ends the flight. In one critical section it takes the call out of the
// table and decides who gets the outcome: whoever joins later starts anew.
func (c *call[K, V]) land(o *outcome[V], orphaned bool) {
	s := c.shard
	g := s.group

	s.mu.Lock()
	c.landed = true
	s.landed++
	if c.waiters == 0 && g.Abandon == KeepRunning {
		s.abandoned++
	}
	if o.panicked {
		s.panics++
		if c.waiters == 0 {
			p, _ := o.err.(*PanicError)
			s.table.lostPanic.Store(p)
		}
	}
	if c.listed {
		s.remove(c)
	}
	o.callers = c.waiters
	if orphaned && c.gate.seconds < c.waiters {
		c.gate.again = true
		o.callers = c.gate.seconds
	}
	next := c.begin()
	s.mu.Unlock()

	if o.callers > 1 && g.Clone != nil && o.err == nil {
		o.original = newOriginal(o.callers)
	}
	c.end(landed)
	if c.gate != nil { // nobody joins any more, so it can be read without the lock
		if o != &c.gate.outcome {
			c.gate.outcome = *o
		}
		close(c.gate.done)
	}
	if next != nil {
		next.call.depart(next.fn)
	}
}

// begin puts the successor of c, if there is one, into the place of c. The shard
// must be locked.
func (c *call[K, V]) begin() *successor[K, V] {
	next := c.successor
	if next == nil {
		return nil
	}
	c.successor = nil
	next.call.pending = false
	next.call.start = time.Since(c.shard.table.epoch)
	c.shard.list(next.call)
	return next
}
