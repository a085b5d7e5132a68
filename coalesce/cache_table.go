package coalesce

import "sync/atomic"

// A segment is a part of the cache's hash table. A table of one segment would
// stop all writers while it grows; this one stops them for a part of that.
//
// It is read without a lock and written under Cache.mu.
type segment[K comparable, V any] struct {
	buckets atomic.Pointer[buckets[K, V]]
	items   int // guarded by Cache.mu
}

// buckets are chains of items. A reader that walks a chain while the segment
// grows may be led into another chain and so miss an item that is there; it
// never finds one that is not. Therefore moved is set before the first item
// moves: a reader that has found nothing and sees it asks again under the lock.
type buckets[K comparable, V any] struct {
	moved  atomic.Bool
	chains []atomic.Pointer[item[K, V]] // a power of two of them
}

const maxSegments = 256

// newSegments returns a table for the given number of entries at most.
func newSegments[K comparable, V any](entries int) []segment[K, V] {
	n := 1
	for n < maxSegments && n < entries/128 {
		n *= 2
	}
	segments := make([]segment[K, V], n)
	for i := range segments {
		segments[i].empty()
	}
	return segments
}

func (s *segment[K, V]) empty() {
	s.items = 0
	s.buckets.Store(&buckets[K, V]{chains: make([]atomic.Pointer[item[K, V]], 8)})
}

func (c *Cache[K, V]) segment(hash uint64) *segment[K, V] {
	return &c.segments[hash&uint64(len(c.segments)-1)]
}

// chain returns the chain of a hash. The low bits have chosen the segment.
func (b *buckets[K, V]) chain(hash uint64) *atomic.Pointer[item[K, V]] {
	return &b.chains[hash>>32&uint64(len(b.chains)-1)]
}

// find returns the item of key, or nil. No lock is needed.
func (c *Cache[K, V]) find(hash uint64, key K) *item[K, V] {
	b := c.segment(hash).buckets.Load()
	for it := b.chain(hash).Load(); it != nil; it = it.next.Load() {
		if it.hash == hash && it.key == key {
			return it
		}
	}
	if b.moved.Load() {
		return c.findAgain(hash, key)
	}
	return nil
}

func (c *Cache[K, V]) findAgain(hash uint64, key K) *item[K, V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.find(hash, key) // the current buckets never have moved set
}

// link adds an item. The cache must be locked.
func (s *segment[K, V]) link(it *item[K, V]) {
	b := s.buckets.Load()
	if s.items == len(b.chains) {
		b = s.grow(b)
	}
	at := b.chain(it.hash)
	it.next.Store(at.Load())
	at.Store(it)
	s.items++
}

// unlink removes an item. Its own link stays, so that a reader who stands on it
// finds the way on. The cache must be locked.
func (s *segment[K, V]) unlink(it *item[K, V]) {
	at := s.buckets.Load().chain(it.hash)
	for at.Load() != it {
		at = &at.Load().next
	}
	at.Store(it.next.Load())
	s.items--
}

func (s *segment[K, V]) grow(old *buckets[K, V]) *buckets[K, V] {
	b := &buckets[K, V]{chains: make([]atomic.Pointer[item[K, V]], 2*len(old.chains))}
	old.moved.Store(true)
	for i := range old.chains {
		for it := old.chains[i].Load(); it != nil; {
			next := it.next.Load()
			at := b.chain(it.hash)
			it.next.Store(at.Load())
			at.Store(it)
			it = next
		}
	}
	s.buckets.Store(b)
	return b
}
