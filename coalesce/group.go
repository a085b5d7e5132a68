package coalesce

import (
	"context"
	"sync/atomic"
	"time"
)

// A Group runs one piece of work for all callers that ask for the same key at
// the same time.
//
// The first caller of a key starts a flight: one execution of its function. A
// caller that comes while the flight is under way joins it and gets its result.
// Callers are equal: the first has no privilege and no duty.
//
// # The work's context
//
// The work runs on a context with the first caller's values. No caller's
// deadline or cancellation reaches it. It ends
//
//   - when the last caller has left, with the cause [ErrAbandoned], unless Abandon
//     is [KeepRunning];
//   - after Timeout, if that is set, as with context.WithTimeout;
//   - when the work has returned, with the cause context.Canceled, so that what
//     was derived from it is released. A context that the work keeps stays valid
//     for ever: its values can still be read. It keeps the result in memory.
//
// # Guarantees
//
//   - At most one flight of a key accepts callers at any time. The function of a
//     key runs twice at the same time only when a flight was abandoned or
//     forgotten and its work goes on; with [Exclusive], never.
//   - No caller gets a result that was finished before it asked: a flight leaves
//     the table in the same critical section in which it ends.
//   - Every caller returns when its own context ends, with that context's error;
//     the others go on waiting. If the result is there at the same moment, the
//     result wins; with Clone, the last to take it waits for the others' clones.
//   - A panic of the work reaches every caller as a [*PanicError] with the stack
//     of the panic, and runtime.Goexit as [ErrGoexit]. Nobody hangs and nobody
//     gets a zero value with a nil error. A panic after the last caller has left
//     reaches nobody: Stats counts it and keeps it as LostPanic. It does not end
//     the process, since the caller that would have recovered it is gone.
//   - If the work fails with the error of its starter's own context, because the
//     function uses that one instead of the context that it is given, the
//     callers that still live do not share that failure: they ask again, the
//     first of them starts the work with its own function and values, and the
//     others join it. A caller does so once; a second such error it receives.
//
// # Running inline
//
// If the context of the first caller can never end (its Done is nil, as
// context.Background's is), Do and DoResult run the work on the caller's own
// goroutine and start no other. Such a caller waits for the whole life of the
// flight, so the flight is never abandoned. Others join as usual, each with its
// own context. A panic of the work comes out of Do as a [*PanicError], as it
// does elsewhere; runtime.Goexit ends the caller's own goroutine, as in any
// function call, and those who joined get [ErrGoexit].
//
// # Keys
//
// Keys are compared with ==. A key that is not equal to itself, such as a NaN,
// is never joined; its flight is nevertheless removed when it ends. If K is an
// interface type, a key whose dynamic type cannot be compared panics in the
// caller, as it does with a map.
//
// The zero Group is ready for use. A Group must not be copied after first use,
// and its fields must not be changed then.
//
// Cost: two short critical sections on one of several locks and one allocation
// for a flight, three and a goroutine if the caller's context can end; no
// allocation to join one, but one or two for the first that joins work that runs
// inline. If the work uses its context, three to four small allocations more.
//
// A Group is safe for concurrent use by multiple goroutines.
type Group[K comparable, V any] struct {
	// Timeout bounds one execution of the work: it is the deadline of the work's
	// context. Callers are not released by it, but by the work when it obeys its
	// context, and by their own contexts. Zero means no bound; the first use of a
	// Group with a negative one panics.
	Timeout time.Duration

	// MaxWaiters bounds the callers of one flight, the first included. A caller
	// above it gets ErrTooManyWaiters at once, except one that asks again because
	// the starter's context had ended. Zero means no bound; the first use of a
	// Group with a negative one panics.
	MaxWaiters int

	// Clone, if not nil, copies a value. Every caller of a shared flight but one
	// gets a copy, so that no two callers hold the same value. It is needed when
	// callers change what they get, and V is or holds a pointer, a slice or a map.
	// Clone runs on the goroutines of the callers, concurrently, and must only
	// read its argument. A value that comes with an error is not cloned. A panic
	// in Clone reaches the caller for which it ran, as a *PanicError.
	Clone func(V) V

	// Abandon says what becomes of the work when the last caller has left. The
	// zero value is CancelWork; the first use of a Group with a value that is none
	// of the three panics.
	Abandon AbandonPolicy

	// Trace, if not nil, is told what happens to the flights.
	Trace *Trace[K]

	table atomic.Pointer[table[K, V]] // nil until first use
}

// Do returns the result of the flight of key. If there is one it joins it,
// otherwise it starts one by calling fn.
//
// It returns what fn returned; or ctx.Err() when ctx ends first;
// [ErrTooManyWaiters] when the flight is full; [ErrReentrant] when ctx descends
// from the context of the very flight that it would join; [ErrGoexit] when fn
// called runtime.Goexit. It panics with a [*PanicError] when fn panicked, and
// with a string when fn is nil. If ctx has ended already, nothing is started.
//
// Not detected are work that asks for its own key with a context that does not
// descend from its own, and a cycle through different callers: the work of A
// waits for B while the work of B, which somebody else started, waits for A.
// Such calls wait until their contexts end.
func (g *Group[K, V]) Do(ctx context.Context, key K, fn func(context.Context) (V, error)) (V, error) {
	o := g.do(ctx, key, fn)
	if o.panicked {
		panic(o.err)
	}
	return o.val, o.err
}

// DoResult is like Do, tells with how many callers the result was shared, and
// returns a panic of fn as an error of type *PanicError.
func (g *Group[K, V]) DoResult(ctx context.Context, key K, fn func(context.Context) (V, error)) Result[V] {
	o := g.do(ctx, key, fn)
	return o.result()
}

// DoChan is like DoResult, but returns at once. The channel has room for the
// result: exactly one is sent, even if nobody ever receives, and the channel is
// not closed. When ctx ends first the result is its error. A panic of fn and
// runtime.Goexit arrive as errors too.
//
// When DoChan returns, the caller has been admitted: its flight is under way
// and can be joined. The work never runs inline. Cost: a goroutine and a
// channel for each call.
func (g *Group[K, V]) DoChan(ctx context.Context, key K, fn func(context.Context) (V, error)) <-chan Result[V] {
	out := make(chan Result[V], 1)
	c, _, err := g.admit(ctx, key, fn, false, false)
	if err != nil {
		out <- Result[V]{Err: err}
		return out
	}
	go func() {
		var o outcome[V]
		defer func() { out <- o.result() }() // even if Clone calls runtime.Goexit
		if g.await(ctx, c, false, &o) {
			g.retry(ctx, key, fn, false, &o)
		}
	}()
	return out
}

// Forget removes the flight of key, so that the next caller starts another. It
// reports whether there was one that callers could have joined.
//
// The flight goes on for the callers that it has; it ends for them as if it had
// not been forgotten. Use Forget after a write, so that a read which follows it
// does not join a flight that began before it.
func (g *Group[K, V]) Forget(key K) bool {
	t := g.table.Load()
	if t == nil {
		return false
	}
	hash, s := t.locate(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(hash, key)
	if c == nil || c.closed {
		return false // a successor has not begun: it sees whatever was written by now
	}
	s.shut(c)
	return true
}

func (g *Group[K, V]) do(ctx context.Context, key K, fn func(context.Context) (V, error)) (o outcome[V]) {
	c, inline, err := g.admit(ctx, key, fn, true, false)
	switch {
	case err != nil:
		o.err = err
	case inline:
		c.fly(fn, &o)
		o.unshare(g.Clone)
	case g.await(ctx, c, false, &o):
		g.retry(ctx, key, fn, true, &o)
	}
	return o
}

// retry is do for a caller whose flight has ended with its starter's context.
func (g *Group[K, V]) retry(ctx context.Context, key K, fn func(context.Context) (V, error), inline bool, o *outcome[V]) {
	c, inline, err := g.admit(ctx, key, fn, inline, true)
	switch {
	case err != nil:
		o.err = err
	case inline:
		c.fly(fn, o)
		o.unshare(g.Clone)
	default:
		g.await(ctx, c, true, o)
	}
}

// admit lets the caller join the flight of key, or starts one. The caller must
// then await the outcome; or run c itself, if inline is allowed and returned.
// Again says that the caller has been admitted before.
func (g *Group[K, V]) admit(ctx context.Context, key K, fn func(context.Context) (V, error), inline, again bool) (*call[K, V], bool, error) {
	if fn == nil {
		panic("coalesce: nil function")
	}
	if ctx.Done() != nil {
		inline = false
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
	}
	t := g.table.Load()
	if t == nil {
		t = g.build()
	}
	hash, s := t.locate(key)

	s.mu.Lock()
	c := s.find(hash, key)
	for c != nil && c.closed {
		// It cannot be undone that a function is the successor's. So ask first.
		running := c
		s.mu.Unlock()
		if ctx.Value(&running.work) != nil {
			return nil, false, ErrReentrant
		}
		s.mu.Lock()
		if c = s.find(hash, key); c == running {
			break
		}
	}
	if c != nil {
		return g.join(ctx, c, fn, again) // unlocks
	}
	if inline {
		c := s.inline(ctx, hash, key)
		s.list(c)
		c.waiters = 1 // until it lands: it cannot leave
		if g.Timeout > 0 {
			c.stamp()
		}
		s.mu.Unlock()
		return c, true, nil
	}
	c = s.detached(ctx, hash, key)
	s.list(c)
	c.add(again)
	s.mu.Unlock()
	c.depart(fn)
	return c, false, nil
}

// join adds the caller to running, or to its successor if running is closed. The
// shard must be locked; join unlocks it.
func (g *Group[K, V]) join(ctx context.Context, running *call[K, V], fn func(context.Context) (V, error), again bool) (*call[K, V], bool, error) {
	s, c := running.shard, running
	if c.closed {
		if c.successor == nil {
			c.successor = &successor[K, V]{call: s.detached(ctx, c.hash, c.key), fn: fn}
			c.successor.call.pending = true
		}
		c = c.successor.call
	}
	joins := c.waiters > 0 || !c.pending // or it is the first of a successor
	full := g.MaxWaiters > 0 && int(c.waiters) >= g.MaxWaiters && !again
	if !full {
		c.add(again)
		if joins && !again {
			s.joined++
		}
	}
	waiters := int(c.waiters)
	s.mu.Unlock()

	// Only now, because Value is foreign code which must not run under the lock.
	reentrant := ctx.Value(&running.work) != nil
	switch {
	case reentrant && (full || s.refuse(c, joins && !again, again)):
		return nil, false, ErrReentrant
	case full:
		return nil, false, ErrTooManyWaiters
	}
	if g.Trace != nil && g.Trace.Join != nil && joins {
		g.Trace.Join(ctx, running.key, waiters)
	}
	return c, false, nil
}

// await waits until c has its outcome or ctx ends, whichever is first. It
// reports true if the caller shall try again, because what ended was the
// context of the starter.
func (g *Group[K, V]) await(ctx context.Context, c *call[K, V], again bool, o *outcome[V]) bool {
	gate := c.gate
	if done := ctx.Done(); done == nil {
		<-gate.done // half the price of a select
	} else {
		select {
		case <-gate.done:
		case <-done:
			if remain, ok := c.shard.leave(c, again); ok {
				o.err = ctx.Err()
				g.Trace.left(ctx, c.key, remain)
				return false
			}
			<-gate.done // about to be: the flight has landed
		}
	}
	if gate.again && !again {
		return true
	}
	*o = gate.outcome
	o.unshare(g.Clone)
	return false
}
