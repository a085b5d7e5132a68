package coalesce

import (
	"context"
	"errors"
)

// A batch is a set of keys that are fetched together. It is also the context of
// the fetch, therefore it is never reused.
type batch[K comparable, V any] struct {
	work                  // parent is the context of the first caller
	b      *Batcher[K, V] // immutable
	slots  ring[K, V]     // not changed until it lands
	wanted int            // slots that somebody waits for; guarded by Batcher.mu
	next   *batch[K, V]   // in a list of batches that begin now
}

// A slot is a key that is queued or being fetched. Slots are reused: no foreign
// code ever sees one.
type slot[K comparable, V any] struct {
	key     K
	hash    uint64
	outcome outcome[V] // written by the fetch, before it lands

	// Guarded by Batcher.mu.
	batch      *batch[K, V] // nil while it is queued
	prev, next *slot[K, V]  // in the queue or the batch
	chain      *slot[K, V]  // in the index
	listed     bool         // in the index: it can be joined
	wants      *want[K, V]  // whom it will serve
}

// first returns the request that has waited longest for the slot.
func (s *slot[K, V]) first() *request[K, V] {
	w := s.wants
	for w.next != nil {
		w = w.next
	}
	return w.request
}

// Value makes the context of a fetch known to its Batcher.
func (x *batch[K, V]) Value(key any) any {
	if b, ok := key.(*Batcher[K, V]); ok && b == x.b && x.ended.Load() != landed {
		return b
	}
	return x.work.Value(key)
}

// depart fetches x and those that begin with it on goroutines of their own.
func (x *batch[K, V]) depart() {
	for x != nil {
		next := x.next
		go x.fly()
		x = next
	}
}

// fly fetches the batch and lands, however the fetch ends.
func (x *batch[K, V]) fly() {
	var o outcome[map[K]V]
	var failed Errors[K]
	defer func() { x.land(&o, failed) }()
	x.bound(x.b.Timeout)
	keys := make([]K, 0, x.slots.size)
	for s := range x.slots.all {
		keys = append(keys, s.key)
	}
	o.run(x, func(ctx context.Context) (values map[K]V, err error) {
		values, err = x.b.Fetch(ctx, keys)
		failed, err = perKey[K](err) // here, because foreign errors can panic
		return values, err
	})
}

// land gives every caller the outcome of its key, and begins what waited for
// this fetch to end.
func (x *batch[K, V]) land(o *outcome[map[K]V], failed Errors[K]) {
	b := x.b
	b.mu.Lock()
	for s := range x.slots.all { // first of all: whoever comes now starts anew
		b.index.remove(s)
	}
	b.mu.Unlock()

	for s := range x.slots.all {
		s.outcome = pick(o, failed, s.key)
	}

	b.mu.Lock()
	var served *request[K, V]
	for s := range x.slots.all {
		served = s.serve(served)
	}
	b.reuse(&x.slots)
	delete(b.flying, x)
	begun := b.dispatch()
	if b.drained != nil && len(b.flying) == 0 {
		close(b.drained)
	}
	b.mu.Unlock()

	x.end(landed)
	served.wake()
	begun.depart()
}

// serve gives the outcome to all who want it, and puts those requests that have
// now got all before the others that have. Batcher.mu must be held.
func (s *slot[K, V]) serve(others *request[K, V]) *request[K, V] {
	for w := s.wants; w != nil; w = w.next {
		s.outcome.callers++
	}
	for w := s.wants; w != nil; {
		next := w.next
		w.outcome, w.slot, w.prev, w.next = s.outcome, nil, nil, nil
		r := w.request
		r.pending--
		if r.pending == 0 {
			r.next, others = others, r
		}
		w = next
	}
	s.wants = nil
	return others
}

// perKey returns the errors of keys that err consists of, or else err itself.
func perKey[K comparable](err error) (Errors[K], error) {
	for e := err; e != nil; e = errors.Unwrap(e) {
		if failed, ok := e.(Errors[K]); ok {
			return failed, nil
		}
	}
	return nil, err
}

// pick returns the outcome of one key.
func pick[K comparable, V any](o *outcome[map[K]V], failed Errors[K], key K) outcome[V] {
	if o.err != nil {
		return outcome[V]{err: o.err, panicked: o.panicked}
	}
	if err := failed[key]; err != nil {
		return outcome[V]{err: err}
	}
	val, ok := o.val[key]
	if !ok {
		return outcome[V]{err: ErrNotFound}
	}
	return outcome[V]{val: val}
}
