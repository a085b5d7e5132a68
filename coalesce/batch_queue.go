package coalesce

import (
	"cmp"
	"time"
)

// All functions of this file need Batcher.mu, except where they say that they
// take it.

// The default of Batcher.MaxBatch. SQL Server takes 2100 parameters, Oracle 1000
// expressions in a list; PostgreSQL and SQLite take tens of thousands.
const defaultMaxBatch = 1000

// add makes w wait for its key: with those who wait for it already, or in the
// batch that collects.
func (b *Batcher[K, V]) add(w *want[K, V]) {
	b.stats.Loads++
	s := b.index.find(w.hash, w.key)
	if s != nil {
		b.stats.Joined++
	} else {
		s = b.enqueue(w)
	}
	if s.wants != nil {
		s.wants.prev = w
	} else if s.batch != nil {
		s.batch.wanted++
	}
	w.slot, w.next, s.wants = s, s.wants, w
}

// enqueue puts a new slot at the end of the queue.
func (b *Batcher[K, V]) enqueue(w *want[K, V]) *slot[K, V] {
	s := b.free
	if s != nil {
		b.free, s.next = s.next, nil
		b.spare--
	} else {
		s = new(slot[K, V])
	}
	s.key, s.hash = w.key, w.hash
	b.queued.push(s)
	b.index.add(s)
	if b.Linger > 0 && b.queued.size == 1 {
		var t *time.Timer
		t = time.AfterFunc(b.Linger, func() { b.ripen(&t) })
		b.linger = t
	}
	return s
}

// ripen ends the lingering. It takes the lock.
func (b *Batcher[K, V]) ripen(t **time.Timer) {
	b.mu.Lock()
	if b.linger != *t { // stopped a moment too late
		b.mu.Unlock()
		return
	}
	b.ripe = true
	begun := b.dispatch()
	b.mu.Unlock()
	begun.depart()
}

// unripe makes an empty queue ready to linger anew.
func (b *Batcher[K, V]) unripe() {
	b.ripe = false
	if b.linger != nil {
		b.linger.Stop()
		b.linger = nil
	}
}

// dispatch returns the batches that may begin now, as a list. Whoever calls it
// must let them depart when it has given up the lock.
func (b *Batcher[K, V]) dispatch() (begun *batch[K, V]) {
	most := cmp.Or(b.MaxBatch, defaultMaxBatch)
	for len(b.flying) < max(1, b.MaxInFlight) && b.queued.size > 0 {
		if b.Linger > 0 && !b.ripe && b.queued.size < most && b.drained == nil {
			break
		}
		x := &batch[K, V]{work: work{parent: b.queued.first.first().ctx}, b: b, next: begun}
		b.queued.cut(most, &x.slots)
		x.wanted = x.slots.size
		for s := range x.slots.all {
			s.batch = x
		}
		if b.queued.size == 0 {
			b.unripe()
		} else {
			b.ripe = true // it came with what fills a batch: no need to wait for more
		}
		b.flying[x] = true
		b.stats.Fetches++
		b.stats.Keys += int64(x.slots.size)
		begun = x
	}
	return begun
}

// leave takes the request off the slots it waits for, with err as the outcome,
// and reports false if it has got all. It takes the lock.
func (b *Batcher[K, V]) leave(r *request[K, V], err error) bool {
	b.mu.Lock()
	if r.pending == 0 {
		b.mu.Unlock()
		return false
	}
	r.pending = 0
	var over []*batch[K, V]
	for i := range r.wants {
		w := &r.wants[i]
		if w.slot == nil {
			continue
		}
		if x := b.unwant(w); x != nil {
			over = append(over, x)
		}
		w.outcome = outcome[V]{err: err}
	}
	b.mu.Unlock()
	for _, x := range over {
		x.end(abandoned)
	}
	return true
}

// unwant takes w off its slot. If nobody else wants that, a queued slot leaves
// its batch; a batch under way of which nobody wants anything any more cannot be
// joined, and is returned so that it is ended.
func (b *Batcher[K, V]) unwant(w *want[K, V]) (over *batch[K, V]) {
	s := w.slot
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		s.wants = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	}
	w.slot, w.prev, w.next = nil, nil, nil
	if s.wants != nil {
		return nil
	}
	x := s.batch
	if x == nil {
		b.index.remove(s)
		b.queued.drop(s)
		if b.queued.size == 0 {
			b.unripe()
		}
		return nil
	}
	x.wanted--
	if x.wanted > 0 {
		return nil
	}
	for s := range x.slots.all {
		b.index.remove(s)
	}
	return x
}

// abort gives ErrClosed to those who wait for what is queued, and ends the
// contexts of what is under way. It takes the lock.
func (b *Batcher[K, V]) abort() {
	b.mu.Lock()
	var served *request[K, V]
	for s := range b.queued.all {
		b.index.remove(s)
		s.outcome = outcome[V]{err: ErrClosed}
		served = s.serve(served)
	}
	b.queued = ring[K, V]{}
	var under []*batch[K, V]
	for x := range b.flying {
		under = append(under, x)
	}
	b.mu.Unlock()
	served.wake()
	for _, x := range under {
		x.end(closed)
	}
}

// reuse empties a ring of slots that are in the index no more, to be used again.
func (b *Batcher[K, V]) reuse(r *ring[K, V]) {
	for s := range r.all {
		if b.spare == defaultMaxBatch {
			break // a burst must not hold its memory for ever
		}
		*s = slot[K, V]{next: b.free}
		b.free = s
		b.spare++
	}
	*r = ring[K, V]{}
}
