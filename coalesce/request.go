package coalesce

import (
	"context"
	"hash/maphash"
)

// A request is one call of Load or LoadAll. Requests are reused: no foreign code
// ever sees one.
type request[K comparable, V any] struct {
	wants   []want[K, V]
	ctx     context.Context
	pending int           // wants that wait for their outcome; guarded by Batcher.mu
	ready   chan struct{} // gets one value when pending comes to 0; has room for it
	next    *request[K, V]
}

// A want is one key of a request, linked to the slot that will serve it.
type want[K comparable, V any] struct {
	request *request[K, V]
	key     K
	hash    uint64
	outcome outcome[V]

	// Guarded by Batcher.mu.
	slot       *slot[K, V] // nil when the outcome is there or the caller has left
	prev, next *want[K, V] // of the same slot
}

func (w *want[K, V]) ask(r *request[K, V], seed maphash.Seed, key K) {
	w.request, w.key, w.hash = r, key, maphash.Comparable(seed, key)
}

// request returns one that has n wants.
func (b *Batcher[K, V]) request(ctx context.Context, n int) *request[K, V] {
	r, _ := b.requests.Get().(*request[K, V])
	if r == nil {
		r = &request[K, V]{ready: make(chan struct{}, 1)}
	}
	if cap(r.wants) < n {
		r.wants = make([]want[K, V], n)
	}
	r.wants, r.ctx = r.wants[:n], ctx
	return r
}

// release gives back a request whose outcomes have been taken, or whose caller
// has left.
func (b *Batcher[K, V]) release(r *request[K, V]) {
	if cap(r.wants) > 1000 {
		return // a single huge call must not hold its memory for ever
	}
	clear(r.wants)
	r.ctx = nil
	b.requests.Put(r)
}

// wake tells the callers of a list of requests that they have got all.
func (r *request[K, V]) wake() {
	for r != nil {
		next := r.next // before the send, after which r may be in use again
		r.next = nil
		r.ready <- struct{}{}
		r = next
	}
}
