package coalesce

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
)

// NewBatchCache returns a Cache that loads with b, and so fetches many keys
// with one call: those of one GetAll, those of callers that come during a
// fetch, and those that are refreshed in the background.
//
// It takes b over. It replaces b.Fetch by a function that calls it and stores
// what it returned before the callers have it, and Close closes b. B must not
// have been used before; its fields must be right, as the first use of a Batcher
// demands. Whoever calls b.Load goes past the values in memory, but stores what
// it loads.
//
// What [NewCache] and [Cache] say of the load holds for Fetch: a key that it
// does not return, or for which it returns an ErrNotFound in an [Errors], has no
// value. The context of the work is that of a fetch, as [Batcher] describes it.
// For Beta a load takes as long as its fetch. Timeout and Trace must be zero:
// Batcher has its own Timeout.
func NewBatchCache[K comparable, V any](b *Batcher[K, V], o CacheOptions[K, V]) (*Cache[K, V], error) {
	switch {
	case b == nil:
		return nil, errors.New("coalesce: NewBatchCache: the Batcher is nil, expected one")
	case b.Fetch == nil:
		return nil, errors.New("coalesce: NewBatchCache: Batcher.Fetch is nil, expected a function")
	case b.ready.Load():
		return nil, errors.New("coalesce: NewBatchCache: the Batcher has been used, expected one that has not")
	case o.Timeout > 0:
		return nil, fmt.Errorf("coalesce: CacheOptions.Timeout is %v, expected 0 with a Batcher: set Batcher.Timeout", o.Timeout)
	case o.Trace != nil:
		return nil, errors.New("coalesce: CacheOptions.Trace is set, expected nil with a Batcher")
	}
	c, err := newCache(nil, b, o)
	if err != nil {
		return nil, err
	}
	fetch := b.Fetch
	b.Fetch = func(ctx context.Context, keys []K) (map[K]V, error) { return c.runBatch(ctx, keys, fetch) }
	return c, nil
}

func (c *Cache[K, V]) fetchBatched(ctx context.Context, hash uint64, key K) (*record[V], error) {
	var o outcome[V]
	o.run(ctx, func(ctx context.Context) (V, error) { return c.batcher.Load(ctx, key) })
	absent := errors.Is(o.err, ErrNotFound)
	if o.err != nil && !absent {
		return nil, o.err
	}
	if it := c.find(hash, key); it != nil {
		r := it.current.Load()
		if absent == (r.err != nil) && c.now() < r.expiry {
			return r, r.err // what the fetch has stored, or something newer
		}
	}
	if absent {
		return nil, o.err
	}
	return &record[V]{value: o.val, loaded: c.now()}, nil
}

// A cachedBatch is a fetch for a cache: its keys are those of the Batcher's
// batch that the cache does not know.
type cachedBatch[K comparable, V any] struct {
	keys   []K
	leases []*lease[K] // for each key
	loaded []loaded[V] // for each key, once the fetch has returned
	known  map[K]V     // the others, if they have values
}

// runBatch does for the keys of a fetch what run does for the key of a load.
func (c *Cache[K, V]) runBatch(ctx context.Context, keys []K, fetch func(context.Context, []K) (map[K]V, error)) (map[K]V, error) {
	x := c.beginBatch(keys)
	if len(x.keys) == 0 {
		return x.known, nil
	}
	var o outcome[map[K]V]
	defer func() { c.settleBatch(ctx, x, &o) }() // even if the fetch calls runtime.Goexit
	o.run(ctx, func(ctx context.Context) (map[K]V, error) {
		values, err := fetch(ctx, x.keys)
		c.judgeBatch(x, values, err)
		return values, err
	})
	if o.panicked {
		panic(o.err)
	}
	if len(x.known) == 0 {
		return o.val, o.err
	}
	all := maps.Clone(o.val) // Fetch may have kept its own
	if all == nil {
		all = map[K]V{}
	}
	maps.Copy(all, x.known)
	return all, o.err
}

func (c *Cache[K, V]) beginBatch(keys []K) *cachedBatch[K, V] {
	x := &cachedBatch[K, V]{
		keys:   make([]K, 0, len(keys)),
		leases: make([]*lease[K], 0, len(keys)),
	}
	now := c.now()
	leases := make([]lease[K], len(keys))
	for i, key := range keys {
		leases[i] = lease[K]{key: key, hash: maphash.Comparable(c.seed, key), since: now}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, key := range keys {
		l := &leases[i]
		// A load that has just failed is no reason to do without: others of this
		// batch are fetched anyway.
		if r, _, ok := c.known(l.hash, key, now); ok && r != nil {
			if r.err == nil {
				if x.known == nil {
					x.known = map[K]V{}
				}
				x.known[key] = r.value
			}
			continue
		}
		x.keys = append(x.keys, key)
		x.leases = append(x.leases, l)
		c.begin(l)
	}
	return x
}

func (c *Cache[K, V]) judgeBatch(x *cachedBatch[K, V], values map[K]V, err error) {
	o := outcome[map[K]V]{val: values, err: err}
	var failed Errors[K]
	failed, o.err = perKey[K](err)
	all := make([]loaded[V], len(x.keys))
	for i, key := range x.keys {
		one := &all[i]
		one.outcome = pick(&o, failed, key)
		one.cost, one.absent = c.judge(key, one.val, one.err)
	}
	x.loaded = all
}

func (c *Cache[K, V]) settleBatch(ctx context.Context, x *cachedBatch[K, V], o *outcome[map[K]V]) {
	if x.loaded == nil { // a panic or Goexit
		x.loaded = make([]loaded[V], len(x.keys))
		for i := range x.loaded {
			x.loaded[i].err = o.err
		}
	}
	deserted := o.err != nil && deserted(ctx)
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, l := range x.leases {
		_, _ = c.settleLocked(l, &x.loaded[i], now, deserted)
	}
}

// forgetAll does for all keys what Forget does for one.
func (b *Batcher[K, V]) forgetAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for x := range b.flying {
		for s := range x.slots.all {
			b.index.remove(s)
		}
	}
}
