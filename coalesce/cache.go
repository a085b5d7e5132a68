package coalesce

import (
	"context"
	"errors"
	"hash/maphash"
	"iter"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A Cache keeps the values that a load function returned, loads each at most
// once at a time, and serves old ones where that is allowed, so that the end of
// an entry's life is not felt behind it.
//
// # The problem
//
// A cache in front of a database takes most of its load, and so the database is
// built for the rest. When the entry of a popular key expires, every reader
// misses at once and all of them go to the database: a cache stampede. Each of
// the fields of [CacheOptions] takes away a part of it:
//
//   - The readers of one key share one load. This is always so; it is what a
//     [Group] does.
//   - Stale lets them go on with the old value while it is loaded in the
//     background, so that nobody waits.
//   - Beta refreshes an entry before it expires, by chance: each reader draws a
//     lot, which wins the more often the nearer the end is and the longer the
//     load takes. This is XFetch (Vattani, Chierichetti, Lowenstein, "Optimal
//     Probabilistic Cache Stampede Prevention", VLDB 2015): a refresh begins if
//     now - took*Beta*ln(random) >= expiry. Nobody gets an old value, and many
//     processes that share a database do not all refresh at the same moment.
//     A key that is seldom read gains nothing.
//   - Jitter keeps keys that were loaded together, at a start or after Clear,
//     from expiring together for ever after.
//   - StaleIfError answers with the old value while the database is down.
//   - NegativeTTL remembers the keys that do not exist, which otherwise are
//     asked for again and again, since nothing is kept for them.
//
// # Guarantees
//
//   - A fresh value is younger than TTL. Within Stale an older one is served,
//     and within StaleIfError one whose load has failed; never past the longer
//     of them.
//   - A key is loaded once for each time that it expires or goes, also if a
//     caller is late and comes when another's load is just over. Only a load whose
//     callers have all left, or that was invalidated, is begun again, also while
//     it is slow to stop.
//   - Invalidate, Set and Clear are never undone by a load or refresh that
//     began before: what it brings goes to the callers that had asked for it
//     before, and is not kept.
//   - Errors never replace a value, and are not kept. Only ErrNotFound says
//     something of the value, namely that there is none: it removes the entry.
//   - The costs of all entries are at most Capacity at any time. Which entry
//     gives way is decided by S3-FIFO (Yang et al., SOSP 2023), which a scan of
//     keys that are needed once cannot flush.
//
// # Loads
//
// Loads run as the work of a [Group] does: callers of one key share it, its
// context has the values of the first and ends when all have left, and each
// caller returns when its own context ends. The values of the first caller's
// context include its credentials: what a value depends on belongs into its
// key. A panic of the load reaches all callers as an error of type *PanicError,
// and runtime.Goexit as [ErrGoexit]; if the load runs on the goroutine of its
// caller, because the context of that one cannot end, Goexit ends it.
//
// A refresh in the background has the values of the context of the call that
// set it off, is not ended by the end of that context, and its errors and panics
// show in Stats and Trace alone. After a load that failed, the next refresh of
// the key in the background begins after a pause of 100 ms, which doubles with
// each failure to at most 10 s (these are our choice), and within StaleIfError
// nobody waits for a load during the pause: a broken database is not hit with
// every Get.
//
// # When not to use it
//
// All callers get the same value, not a copy: if it holds a pointer, a slice or
// a map, nobody may change what it points to. Where a reader must see a write
// that another process just made, no TTL is short enough: the cache of a process
// knows nothing of those of others, and Invalidate must reach each. Nothing runs
// in the background to remove entries that have expired. They stay until they
// are evicted, against which hits no longer help them.
//
// # Keys
//
// Keys are compared with ==. A key that is not equal to itself, such as a NaN,
// is loaded each time, and its entries are in nobody's way for longer than
// eviction takes. If K is an interface type, a key whose dynamic type cannot be
// compared panics in the caller, as it does with a map.
//
// A Cache is made by [NewCache] or [NewBatchCache]; the zero value is of no use.
// It starts no goroutine except for loads and refreshes. Close it if the process
// goes on without it.
//
// Cost of a hit: the hash of the key, five loads, one add to a counter that
// few share, and a read of the clock if values expire; no lock and no
// allocation. A hot key is only read, so its readers do not slow each other
// down. Loads, and all else that changes the cache, take one lock for well below a
// microsecond, or for longer while a part of the table doubles, and never while
// foreign code runs.
//
// A Cache is safe for concurrent use by multiple goroutines.
type Cache[K comparable, V any] struct {
	// Immutable.
	options  CacheOptions[K, V]
	load     func(context.Context, K) (V, error) // nil if there is a batcher
	batcher  *Batcher[K, V]
	seed     maphash.Seed
	epoch    time.Time // all times count from it: time.Since is half the price of time.Now
	segments []segment[K, V]
	counters []counters
	draw     func() float64 // from the exponential distribution, of mean 1
	closing  context.Context
	cancel   context.CancelFunc

	closed atomic.Bool // written under mu
	group  Group[K, *record[V]]

	_ [128]byte // what is written below is not on the cache lines of what hits read

	mu         sync.Mutex
	policy     s3fifo[K, V]
	leases     leases[K]
	refreshers int           // goroutines that refresh
	idle       chan struct{} // closed once the cache is closed and there is none
	loads      int64
	loadErrors int64
	refreshes  int64
	evictions  int64
}

// NewCache returns a Cache of what load returns. Load says that a key has no
// value by returning [ErrNotFound] or an error that wraps it. The error names
// the argument that is wrong.
func NewCache[K comparable, V any](load func(context.Context, K) (V, error), o CacheOptions[K, V]) (*Cache[K, V], error) {
	if load == nil {
		return nil, errors.New("coalesce: NewCache: load is nil, expected a function")
	}
	return newCache(load, nil, o)
}

func newCache[K comparable, V any](load func(context.Context, K) (V, error), b *Batcher[K, V], o CacheOptions[K, V]) (*Cache[K, V], error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	c := &Cache[K, V]{
		options:  o,
		load:     load,
		batcher:  b,
		seed:     maphash.MakeSeed(),
		epoch:    time.Now(),
		segments: newSegments[K, V](o.Capacity),
		counters: newCounters(runtime.GOMAXPROCS(0)),
		draw:     rand.ExpFloat64,
		policy:   s3fifo[K, V]{capacity: o.Capacity},
		leases:   leases[K]{},
		idle:     make(chan struct{}),
	}
	c.group.Timeout, c.group.Trace = o.Timeout, o.Trace
	c.closing, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// Get returns the value of key: from memory if that is allowed, else by loading
// it.
//
// It returns the error of the load, if no older value may take its place: that
// is [ErrNotFound] or wraps it if there is no value; ctx.Err() when ctx ends
// first; [ErrReentrant] when the load of a key asks for the same key;
// [ErrClosed] when it is not in memory and the cache is closed. A value in
// memory is returned also if ctx has ended.
func (c *Cache[K, V]) Get(ctx context.Context, key K) (V, error) {
	hash := maphash.Comparable(c.seed, key)
	if it := c.find(hash, key); it != nil {
		if r := it.current.Load(); r.early == never || c.now() < r.early {
			it.touch()
			c.count().hits.Add(1)
			return r.value, r.err
		}
	}
	e, err := c.entry(ctx, hash, key)
	return e.Value, err
}

// Entry is like Get and tells the age of the value and by what right it is
// served. For a key that has no value the State is Negative, together with the
// error of the load. With any other error the Entry is zero.
func (c *Cache[K, V]) Entry(ctx context.Context, key K) (Entry[V], error) {
	return c.entry(ctx, maphash.Comparable(c.seed, key), key)
}

// Peek returns the value of key if it is in memory and Get would return it
// without loading it: fresh, or within Stale. It loads nothing, sets off no
// refresh, and counts neither as a hit nor for what is evicted.
func (c *Cache[K, V]) Peek(key K) (V, bool) {
	if it := c.find(maphash.Comparable(c.seed, key), key); it != nil {
		if r := it.current.Load(); c.peekable(r) {
			return r.value, true
		}
	}
	var zero V
	return zero, false
}

func (c *Cache[K, V]) peekable(r *record[V]) bool {
	return r.err == nil && (r.expiry == never || c.now() < later(r.expiry, c.options.Stale))
}

// Set makes value the value of key, as if it had just been loaded. Loads of key
// that are under way do not replace it.
func (c *Cache[K, V]) Set(key K, value V) {
	hash := maphash.Comparable(c.seed, key)
	cost := c.cost(key, value)
	now := c.now()
	c.mu.Lock()
	c.leases.revoke(hash)
	var took time.Duration // the best guess of what the next load will take
	if it := c.find(hash, key); it != nil {
		took = it.current.Load().took
	}
	c.store(hash, key, c.record(now, value, nil, took), cost)
	c.mu.Unlock()
	c.forget(key)
}

// Invalidate removes the value of key. A Get that begins after Invalidate has
// returned gets a value whose load began after Invalidate was called. Call it
// after a write, when the write is done.
func (c *Cache[K, V]) Invalidate(key K) {
	hash := maphash.Comparable(c.seed, key)
	c.mu.Lock()
	c.leases.revoke(hash)
	if it := c.find(hash, key); it != nil {
		c.drop(it)
	}
	c.mu.Unlock()
	c.forget(key)
}

// Clear is Invalidate for all keys.
func (c *Cache[K, V]) Clear() {
	c.mu.Lock()
	for hash := range c.leases {
		c.leases.revoke(hash)
	}
	for _, q := range []*fifo[K, V]{&c.policy.small, &c.policy.main} {
		for q.oldest != nil {
			q.remove(q.oldest)
		}
	}
	for i := range c.segments {
		c.segments[i].empty()
	}
	c.mu.Unlock()
	c.forgetAll()
}

// All iterates over the keys and values that Peek would return, in no order.
//
// It is a snapshot in parts, as that of [Group.Flights] is: the loop may use
// the Cache, and an entry that is there as long as the loop runs is yielded
// exactly once.
func (c *Cache[K, V]) All() iter.Seq2[K, V] {
	type entry struct {
		key   K
		value V
	}
	return func(yield func(K, V) bool) {
		var part []entry
		for i := range c.segments {
			part = part[:0]
			c.mu.Lock()
			chains := c.segments[i].buckets.Load().chains
			for j := range chains {
				for it := chains[j].Load(); it != nil; it = it.next.Load() {
					if r := it.current.Load(); c.peekable(r) {
						part = append(part, entry{it.key, r.value})
					}
				}
			}
			c.mu.Unlock()
			for _, e := range part {
				if !yield(e.key, e.value) {
					return
				}
			}
		}
	}
}

func (c *Cache[K, V]) now() time.Duration { return time.Since(c.epoch) }
