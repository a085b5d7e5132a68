package coalesce

import (
	"context"
	"errors"
	"time"
)

func (c *Cache[K, V]) entry(ctx context.Context, hash uint64, key K) (Entry[V], error) {
	if e, err, ok := c.held(ctx, hash, key); ok {
		return e, err
	}
	if c.closed.Load() {
		return c.fallback(ctx, hash, key, ErrClosed)
	}
	r, err := c.fetch(ctx, hash, key)
	if err == nil {
		return Entry[V]{Value: r.value, Age: c.now() - r.loaded}, nil
	}
	return c.fallback(ctx, hash, key, err)
}

// held answers from memory, if that is allowed, and sets off a refresh where
// one is due.
func (c *Cache[K, V]) held(ctx context.Context, hash uint64, key K) (e Entry[V], err error, ok bool) {
	it := c.find(hash, key)
	if it == nil {
		c.count().misses.Add(1)
		return e, nil, false
	}
	it.touch()
	r, now := it.current.Load(), c.now()
	e = Entry[V]{Value: r.value, Age: now - r.loaded}
	n := c.count()
	switch {
	case now < r.expiry:
		if r.err != nil {
			e.State = Negative
		} else if now >= r.early && c.tooNear(r, now) {
			c.refresh(ctx, it, now)
		}
		n.hits.Add(1)
		return e, r.err, true
	case r.err == nil && now < later(r.expiry, c.options.Stale):
		c.refresh(ctx, it, now)
		n.hits.Add(1)
		n.stale.Add(1)
		e.State = Stale
		return e, nil, true
	case c.pausing(it, r, now):
		n.hits.Add(1)
		n.staleErrors.Add(1)
		e.State = StaleError
		return e, nil, true
	}
	n.misses.Add(1)
	return Entry[V]{}, nil, false
}

// pausing reports whether the stale value is to be served without a load,
// because the last one has just failed.
func (c *Cache[K, V]) pausing(it *item[K, V], r *record[V], now time.Duration) bool {
	at := it.retryAt.Load()
	return at != underWay && now < time.Duration(at) && c.excusable(r, now)
}

// excusable reports whether the value may be served when its load has failed.
func (c *Cache[K, V]) excusable(r *record[V], now time.Duration) bool {
	return r.err == nil && now < later(r.expiry, c.options.StaleIfError)
}

// fallback is what a caller gets whose load failed with err.
func (c *Cache[K, V]) fallback(ctx context.Context, hash uint64, key K, err error) (Entry[V], error) {
	if errors.Is(err, ErrNotFound) {
		return Entry[V]{State: Negative}, err
	}
	if ctx.Err() != nil || errors.Is(err, ErrReentrant) {
		return Entry[V]{}, err // the caller has failed and not the load
	}
	it := c.find(hash, key)
	if it == nil {
		return Entry[V]{}, err
	}
	r, now := it.current.Load(), c.now()
	e := Entry[V]{Value: r.value, Age: now - r.loaded}
	switch {
	case r.err == nil && now < r.expiry: // it was set meanwhile
		return e, nil
	case c.excusable(r, now):
		c.count().staleErrors.Add(1)
		e.State = StaleError
		return e, nil
	}
	return Entry[V]{}, err
}

// fetch loads a key, together with all others who do. The record is nil if the
// load has failed, and not nil together with an error if it is known that there
// is no value.
func (c *Cache[K, V]) fetch(ctx context.Context, hash uint64, key K) (*record[V], error) {
	if c.batcher != nil {
		return c.fetchBatched(ctx, hash, key)
	}
	r := c.group.DoResult(ctx, key, func(ctx context.Context) (*record[V], error) {
		return c.run(ctx, hash, key)
	})
	return r.Val, r.Err
}

// run is the work of a flight: it loads and stores. The store comes before the
// flight lands, so that whoever misses the flight finds the value.
func (c *Cache[K, V]) run(ctx context.Context, hash uint64, key K) (r *record[V], err error) {
	now := c.now()
	c.mu.Lock()
	r, err, ok := c.known(hash, key, now)
	if ok {
		c.mu.Unlock()
		return r, err
	}
	l := &lease[K]{key: key, hash: hash, since: now}
	c.begin(l)
	c.mu.Unlock()

	var out loaded[V]
	defer func() { // even if the load calls runtime.Goexit
		r, err = c.settle(ctx, l, &out)
	}()
	out.run(ctx, func(ctx context.Context) (V, error) {
		v, err := c.load(ctx, key)
		out.cost, out.absent = c.judge(key, v, err)
		return v, err
	})
	return r, err
}

// known returns what a load that is about to start need not load, because
// another was over a moment ago: whoever came too late for that flight starts
// another one. The cache must be locked.
func (c *Cache[K, V]) known(hash uint64, key K, now time.Duration) (*record[V], error, bool) {
	it := c.find(hash, key)
	if it == nil || it.pinned > 0 {
		return nil, nil, false
	}
	r := it.current.Load()
	switch {
	case now < r.expiry:
		return r, r.err, true
	case c.pausing(it, r, now):
		return nil, it.failure, true
	}
	return nil, nil, false
}

// A loaded is what the load of one key came to, and what foreign code has to
// say of it, which must not be asked under the lock.
type loaded[V any] struct {
	outcome[V]
	cost   int
	absent bool // the error says that there is no value
}

func (c *Cache[K, V]) judge(key K, value V, err error) (cost int, absent bool) {
	if err == nil {
		return c.cost(key, value), false
	}
	if !errors.Is(err, ErrNotFound) {
		return 0, false
	}
	if c.options.NegativeTTL > 0 {
		var zero V
		cost = c.cost(key, zero)
	}
	return cost, true
}

// begin gives a load its lease. The cache must be locked.
func (c *Cache[K, V]) begin(l *lease[K]) {
	c.loads++
	c.leases.begin(l)
}

// settle stores what a load came to, if its lease is still valid, and returns
// what its callers get.
func (c *Cache[K, V]) settle(ctx context.Context, l *lease[K], out *loaded[V]) (r *record[V], err error) {
	deserted := out.err != nil && deserted(ctx)
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.settleLocked(l, out, now, deserted)
}

func (c *Cache[K, V]) settleLocked(l *lease[K], out *loaded[V], now time.Duration, deserted bool) (r *record[V], err error) {
	took := now - l.since
	switch {
	case out.err == nil:
		r = c.record(now, out.val, nil, took)
		if c.leases.overtake(l) {
			c.store(l.hash, l.key, r, out.cost)
		}
	case out.absent:
		if c.options.NegativeTTL > 0 {
			r = c.record(now, out.val, out.err, took)
		}
		if !c.leases.overtake(l) {
			break
		}
		if r != nil {
			c.store(l.hash, l.key, r, out.cost)
		} else if it := c.find(l.hash, l.key); it != nil {
			c.drop(it)
		}
	default:
		valid := c.leases.end(l)
		if deserted {
			break
		}
		c.loadErrors++
		if it := c.find(l.hash, l.key); it != nil && valid {
			it.failures++
			it.failure = out.err
			it.retryAt.Store(int64(later(now, pause(it.failures))))
		}
	}
	return r, out.err
}

// deserted reports whether all callers of the work have left. That it has failed
// then says nothing of the backend.
func deserted(ctx context.Context) bool {
	// Err comes first: before anybody has asked for it, Cause would answer for
	// the context of the starter.
	return ctx.Err() != nil && errors.Is(context.Cause(ctx), ErrAbandoned)
}
