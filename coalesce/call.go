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
	start     time.Duration // since the table's epoch; 0 if nobody has asked yet
	next      *call[K, V]   // in the same bucket
	head      *waiter[K, V] // the callers that wait, but not one that runs inline
	successor *call[K, V]   // of a closed call: begins when this one has landed
	waiters   int32         // the callers, one that runs inline included
	listed    bool          // in the table
	closed    bool          // nobody may join: listed so that no other begins (Exclusive)
	pending   bool          // a successor that has not begun
	landed    bool          // the outcome is known and on its way to the waiters
}

// A waiter is a caller that waits for a call. Waiters are reused: no foreign
// code ever sees one, and it goes back only when its caller has taken the
// outcome or has left the list under the lock, so that none is on its way.
type waiter[K comparable, V any] struct {
	shard *shard[K, V]
	ready chan outcome[V] // capacity 1: landing never blocks on a caller

	// What the caller asked for, in case it has to start the work again.
	ctx context.Context
	fn  func(context.Context) (V, error)

	// Guarded by shard.mu.
	call       *call[K, V]
	prev, next *waiter[K, V]
	again      bool // it has been through a second start
}

// stamp sets the start, once. Inline flights that nobody joins do without: the
// clock would be a quarter of their cost. The shard must be locked.
func (c *call[K, V]) stamp() {
	if c.start == 0 {
		c.start = time.Since(c.shard.table.epoch)
	}
}

// add makes the caller a waiter of c. The shard must be locked.
func (c *call[K, V]) add(ctx context.Context, fn func(context.Context) (V, error)) *waiter[K, V] {
	c.stamp()
	w := c.shard.waiter()
	w.ctx, w.fn = ctx, fn
	c.push(w)
	return w
}

func (c *call[K, V]) push(w *waiter[K, V]) {
	w.call, w.prev, w.next = c, nil, c.head
	if c.head != nil {
		c.head.prev = w
	}
	c.head = w
	c.waiters++
}

func (c *call[K, V]) drop(w *waiter[K, V]) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		c.head = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	}
	w.call, w.prev, w.next = nil, nil, nil
	c.waiters--
}

// fly runs the work until an outcome stands. The outcome is of use only to a
// caller that runs it inline, where there is never an heir.
func (c *call[K, V]) fly(fn func(context.Context) (V, error), o *outcome[V]) {
	for h := c.execute(fn, o); h.call != nil; {
		*o = outcome[V]{} // another execution: it may panic where the last returned
		h = h.call.execute(h.fn, o)
	}
}

// depart runs the work on a goroutine of its own.
func (c *call[K, V]) depart(fn func(context.Context) (V, error)) {
	go c.fly(fn, new(outcome[V]))
}

// execute runs the work once and lands, however the work ends.
func (c *call[K, V]) execute(fn func(context.Context) (V, error), o *outcome[V]) (h heir[K, V]) {
	g := c.shard.group
	c.bound(g.Timeout)
	if g.Trace != nil {
		done := g.Trace.started(c.parent, c.key)
		defer func() { done(o.callers, o.err) }()
	}
	defer c.land(o, &h)
	o.run(&c.work, fn)
	if o.err != nil && !o.panicked {
		h = c.heir(o.err)
	}
	return h
}

// land ends the flight. In one critical section it takes the call out of the
// table and decides who gets the outcome: whoever joins later starts anew. If
// there is an heir, its call takes the place of this one in that section.
func (c *call[K, V]) land(o *outcome[V], h *heir[K, V]) {
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
	listed := c.listed
	if listed {
		s.remove(c)
	}
	if h.ctx != nil {
		c.bequeath(h, listed)
	}
	list, callers := c.head, int(c.waiters)
	c.head = nil
	next := c.begin()
	s.mu.Unlock()

	o.callers = callers
	if callers > 1 && g.Clone != nil && o.err == nil {
		o.original = newOriginal(callers)
	}
	c.end(landed)
	for w := list; w != nil; {
		next := w.next // before the send, after which w may be in use again
		w.ready <- *o
		w = next
	}
	if next.call != nil {
		next.call.depart(next.fn)
	}
}

// begin puts the successor of c, if there is one, into the place of c, and
// returns it with the function of one of its callers. The shard must be locked.
func (c *call[K, V]) begin() (h heir[K, V]) {
	next := c.successor
	if next == nil {
		return h
	}
	c.successor = nil
	s, w := c.shard, next.head // it has callers: the last to leave removes it
	for w.next != nil {
		w = w.next // the first to come of those who wait
	}
	next.pending = false
	next.parent = w.ctx // the one for whom it was made may have left
	next.start = time.Since(s.table.epoch)
	s.list(next)
	return heir[K, V]{ctx: w.ctx, fn: w.fn, call: next}
}

// An heir is the caller with whose context and function the work is started
// again, and the call that does it.
type heir[K comparable, V any] struct {
	ctx  context.Context
	fn   func(context.Context) (V, error)
	call *call[K, V]
}

// heir tells whether err is the end of the starter's own context, which must
// not become the end of those who still live, and picks one of these. It runs
// foreign code (Err, Is, Unwrap) and therefore holds no lock while it does.
func (c *call[K, V]) heir(err error) (h heir[K, V]) {
	if c.parent.Done() == nil {
		return h // cannot die, and may run inline
	}
	dead := c.parent.Err()
	if dead == nil || !errors.Is(err, dead) && !errors.Is(err, context.Cause(c.parent)) {
		return h
	}
	if c.work.Err() != nil {
		return h // the work's own context has ended, by Timeout or because all have left
	}
	var living []heir[K, V]
	c.shard.mu.Lock()
	for w := c.head; w != nil; w = w.next {
		if !w.again {
			living = append(living, heir[K, V]{ctx: w.ctx, fn: w.fn})
		}
	}
	c.shard.mu.Unlock()
	for _, l := range living {
		if l.ctx.Err() == nil {
			return l
		}
	}
	return h
}

// bequeath moves the callers that may go on waiting to a new call, which is
// listed if c was: a forgotten flight stays forgotten. The shard must be
// locked.
func (c *call[K, V]) bequeath(h *heir[K, V], listed bool) {
	var next *call[K, V]
	for w := c.head; w != nil; {
		following := w.next
		if !w.again {
			if next == nil {
				next = c.shard.make(h.ctx, c.hash, c.key)
				next.stamp()
				next.closed, next.successor = c.closed, c.successor
				c.successor = nil
				c.shard.list(next)
			}
			w.again = true
			c.drop(w)
			next.push(w)
		}
		w = following
	}
	if next != nil && !listed {
		c.shard.remove(next)
	}
	h.call = next
}
