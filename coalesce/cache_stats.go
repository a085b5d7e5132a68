package coalesce

import (
	"sync/atomic"
	"unsafe"
)

// CacheStats tells what a [Cache] has done since it was made, and what it holds.
// Hits divided by Hits and Misses is the hit ratio.
type CacheStats struct {
	// Hits is the number of keys that were answered from memory at once, with or
	// without a value.
	Hits int64

	// StaleHits is how many of the Hits got a stale value within
	// CacheOptions.Stale.
	StaleHits int64

	// StaleErrors is the number of keys that were answered with a stale value
	// within CacheOptions.StaleIfError, because a load had failed: as a hit in
	// the pause after it, or as a miss that waited for it.
	StaleErrors int64

	// Misses is the number of keys that waited for a load.
	Misses int64

	// Loads is the number of keys that were loaded, those of the refreshes
	// included. Misses far above Loads are what coalescing has saved.
	Loads int64

	// LoadErrors is how many of the Loads failed. ErrNotFound is no failure, and
	// neither is the end of a load whose callers have all left.
	LoadErrors int64

	// Refreshes is the number of refreshes that began in the background.
	Refreshes int64

	// Evictions is the number of entries that had to give way to others.
	Evictions int64

	// Entries is the number of entries now, expired ones included.
	Entries int

	// Cost is the sum of their costs. It is at most CacheOptions.Capacity.
	Cost int
}

// Stats returns a snapshot of the counters. Those of hits and misses may be some
// nanoseconds behind.
func (c *Cache[K, V]) Stats() CacheStats {
	c.mu.Lock()
	sum := CacheStats{
		Loads:      c.loads,
		LoadErrors: c.loadErrors,
		Refreshes:  c.refreshes,
		Evictions:  c.evictions,
		Entries:    c.policy.entries(),
		Cost:       c.policy.cost(),
	}
	c.mu.Unlock()
	for i := range c.counters {
		n := &c.counters[i]
		sum.Hits += n.hits.Load()
		sum.StaleHits += n.stale.Load()
		sum.StaleErrors += n.staleErrors.Load()
		sum.Misses += n.misses.Load()
	}
	return sum
}

// counters count for some of the goroutines: with one counter for all, the
// readers of a hot key would wait for each other to count.
type counters struct {
	hits, stale, staleErrors, misses atomic.Int64

	_ [96]byte // to 128 bytes: neighbours do not share a pair of cache lines
}

func newCounters(procs int) []counters {
	// With 8 for each processor, two that run at the same time rarely meet.
	n := 16
	for n < 8*procs {
		n *= 2
	}
	return make([]counters, n)
}

// count returns the counters of this goroutine. They are chosen by the address
// of its stack, which no other shares; the smallest stack is 2 KiB. Nothing
// cheaper than this differs between goroutines that run at the same time.
func (c *Cache[K, V]) count() *counters {
	var here byte
	stack := uint64(uintptr(unsafe.Pointer(&here))) >> 11
	const golden = 0x9E3779B97F4A7C15 // spreads it over the high bits (Knuth, TAOCP 6.4)
	return &c.counters[stack*golden>>32&uint64(len(c.counters)-1)]
}
