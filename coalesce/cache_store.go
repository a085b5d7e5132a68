package coalesce

import (
	"math/rand/v2"
	"time"
)

func (c *Cache[K, V]) cost(key K, value V) int {
	if c.options.Cost == nil {
		return 1
	}
	return max(1, c.options.Cost(key, value))
}

// record makes the record of a value, or of an error that says that there is
// none.
func (c *Cache[K, V]) record(now time.Duration, value V, err error, took time.Duration) *record[V] {
	r := &record[V]{value: value, err: err, loaded: now, took: took, expiry: never, early: never}
	switch {
	case err != nil:
		r.value = *new(V)
		r.expiry = later(now, c.options.NegativeTTL)
	case c.options.TTL > 0:
		ttl := c.options.TTL
		if c.options.Jitter > 0 {
			ttl -= time.Duration(c.options.Jitter * rand.Float64() * float64(ttl))
		}
		r.expiry = later(now, ttl)
	}
	r.early = r.expiry
	if c.options.Beta > 0 && err == nil {
		r.early -= time.Duration(min(farthestDraw*c.options.Beta*float64(took), float64(r.expiry)))
	}
	return r
}

// store makes r the record of a key. The cache must be locked.
func (c *Cache[K, V]) store(hash uint64, key K, r *record[V], cost int) {
	it := c.find(hash, key)
	if cost > c.options.Capacity {
		if it != nil {
			c.drop(it)
		}
		return
	}
	if it == nil {
		c.makeRoom(cost, r.loaded)
		it = &item[K, V]{key: key, hash: hash, cost: cost}
		it.current.Store(r)
		c.segment(hash).link(it)
		c.policy.insert(it)
		return
	}
	if cost != it.cost {
		queue := it.queue
		queue.remove(it)
		c.makeRoom(cost, r.loaded)
		it.cost = cost
		queue.push(it)
	}
	it.current.Store(r)
	it.failures, it.failure = 0, nil
	it.retryAt.Store(0)
}

// makeRoom evicts until cost, which is at most the capacity, fits.
func (c *Cache[K, V]) makeRoom(cost int, now time.Duration) {
	dead := func(it *item[K, V]) bool {
		r := it.current.Load()
		if r.err != nil {
			return now >= r.expiry
		}
		return now >= later(r.expiry, max(c.options.Stale, c.options.StaleIfError))
	}
	for !c.policy.fits(cost) {
		it := c.policy.victim(dead)
		c.segment(it.hash).unlink(it)
		c.evictions++
	}
}

// drop removes an item that is in the cache. The cache must be locked.
func (c *Cache[K, V]) drop(it *item[K, V]) {
	it.queue.remove(it)
	c.segment(it.hash).unlink(it)
}

// forget keeps callers who come from now on away from the load of key that is
// under way.
func (c *Cache[K, V]) forget(key K) {
	if c.batcher != nil {
		c.batcher.Forget(key)
	} else {
		c.group.Forget(key)
	}
}

// forgetAll does this for all keys. A load whose lease is void or has ended can
// still be joined until its flight lands, so the leases do not tell which.
func (c *Cache[K, V]) forgetAll() {
	if c.batcher != nil {
		c.batcher.forgetAll()
		return
	}
	for key := range c.group.Flights() {
		c.group.Forget(key)
	}
}
