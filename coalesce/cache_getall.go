package coalesce

import (
	"context"
	"hash/maphash"
	"iter"
)

// GetAll returns the values of keys, in their order; a key that is given twice
// comes twice. Err of a Result is what Get would return; Shared and Waiters say
// nothing of values that were in memory.
//
// The keys that are not in memory are loaded at the same time: by one LoadAll of
// the Batcher, if there is one, and else by a load for each, so that the caller
// sets how many run at once by how many keys it gives. They are asked for when
// the sequence is ranged over, anew each time, and nothing is yielded before all
// of them are there or ctx has ended. Then those that are there have their
// values, and the others the error of ctx.
func (c *Cache[K, V]) GetAll(ctx context.Context, keys []K) iter.Seq2[K, Result[V]] {
	return func(yield func(K, Result[V]) bool) {
		results := make([]Result[V], len(keys))
		var missing []K
		var at []int // where they are in keys
		for i, key := range keys {
			e, err, ok := c.held(ctx, maphash.Comparable(c.seed, key), key)
			if !ok {
				missing, at = append(missing, key), append(at, i)
			}
			results[i] = Result[V]{Val: e.Value, Err: err}
		}
		if len(missing) > 0 {
			n := 0
			for key, r := range c.fetchAll(ctx, missing) {
				results[at[n]] = c.rescue(ctx, key, r)
				n++
			}
		}
		for i, key := range keys {
			if !yield(key, results[i]) {
				return
			}
		}
	}
}

// fetchAll loads keys at the same time and yields them in their order.
func (c *Cache[K, V]) fetchAll(ctx context.Context, keys []K) iter.Seq2[K, Result[V]] {
	if c.batcher != nil && !c.closed.Load() {
		return c.batcher.LoadAll(ctx, keys)
	}
	return func(yield func(K, Result[V]) bool) {
		flights := make([]<-chan Result[*record[V]], len(keys))
		for i, key := range keys {
			if c.closed.Load() {
				break
			}
			hash := maphash.Comparable(c.seed, key)
			flights[i] = c.group.DoChan(ctx, key, func(ctx context.Context) (*record[V], error) {
				return c.run(ctx, hash, key)
			})
		}
		for i, key := range keys {
			r := Result[V]{Err: ErrClosed}
			if flights[i] != nil {
				got := <-flights[i]
				r = Result[V]{Err: got.Err, Shared: got.Shared, Waiters: got.Waiters}
				if got.Err == nil {
					r.Val = got.Val.value
				}
			}
			if !yield(key, r) {
				return
			}
		}
	}
}

// rescue does for GetAll what fallback does for Get.
func (c *Cache[K, V]) rescue(ctx context.Context, key K, r Result[V]) Result[V] {
	if r.Err != nil {
		var e Entry[V]
		e, r.Err = c.fallback(ctx, maphash.Comparable(c.seed, key), key, r.Err)
		r.Val = e.Value
	}
	return r
}
