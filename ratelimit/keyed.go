package ratelimit

import (
	"fmt"
	"hash/maphash"
	"math"
	"time"
)

// Keyed is a [Limiter] for each key (a user, an API key, a tenant), in memory whose
// size is fixed when it is made, whatever keys arrive.
//
// It is a set-associative table: a seeded hash of the key names a set of seven
// slots, and a slot holds the hash and the key's GCRA word. A key that owes
// nothing needs no slot, so only keys that took something lately count. When a
// newcomer finds its set full, it takes over the slot that owes least, and with it
// what is owed: it starts as if it had taken that itself. The rule is that of the
// Space-Saving counters (Metwally, Agrawal and El Abbadi, ICDT 2005).
//
// So the error has one side. No key is ever granted more than its limit allows, in
// any window of time, however many keys come and whatever an adversary does to
// push others out. A key may be refused too early when far more keys are in debt
// than the table was made for; Stats counts how often that could happen
// (Inherited). Two keys with the same 64-bit hash share a limit; the seed is
// random, so nobody can look for such keys.
//
// The number of keys does not burden the garbage collector: there are no pointers
// in the table, and keys are not stored.
//
// Make one with [NewKeyed] and do not copy it. It counts time from its creation on
// the monotonic clock; under testing/synctest create it in the bubble that uses it.
// A decision costs one clock reading, one hash and one uncontended lock of the
// key's set, and allocates nothing.
//
// A Keyed is safe for concurrent use by multiple goroutines.
type Keyed[K comparable] struct {
	table table
	limit Limit
	seed  maphash.Seed
	epoch time.Time
}

// DefaultCapacity is the capacity of a Keyed whose options name none. It takes
// 2.4 MB.
const DefaultCapacity = 1 << 16

// KeyedOptions configure NewKeyed. The zero value is ready to use.
type KeyedOptions struct {
	// Capacity is how many keys may be in debt at the same time before keys begin
	// to share: about one in eighty does at the capacity, one in three thousand at half
	// of it. The table has two slots for each, rounded up to whole sets of seven
	// slots in 128 bytes: 37 bytes for a key of capacity. All of it is allocated at
	// the start. Zero means DefaultCapacity.
	Capacity int
}

// NewKeyed returns a limiter by key. Every key starts with a full burst. Returns an
// error that wraps ErrInvalidLimit when the limit cannot be kept, or
// ErrInvalidCapacity when the capacity is out of range.
func NewKeyed[K comparable](limit Limit, o KeyedOptions) (*Keyed[K], error) {
	c, err := limit.compile()
	if err != nil {
		return nil, err
	}
	const most = min(1<<30, math.MaxInt>>8) // 40 GB, or what a 32-bit machine can address
	if o.Capacity < 0 || o.Capacity > most {
		return nil, fmt.Errorf("%w: Capacity is %d, expected 0 to %d", ErrInvalidCapacity, o.Capacity, most)
	}
	if o.Capacity == 0 {
		o.Capacity = DefaultCapacity
	}
	return &Keyed[K]{
		table: table{core: c, sets: newSets(o.Capacity)},
		limit: limit,
		seed:  maphash.MakeSeed(),
		epoch: time.Now(),
	}, nil
}

// Allow takes one unit of the key's limit and reports whether it was there. It
// panics if K is an interface type and the key cannot be hashed, as a map does.
func (k *Keyed[K]) Allow(key K) bool {
	_, _, ok := k.table.take(k.tag(key), int64(time.Since(k.epoch)), 1)
	return ok
}

// Take takes n units of the key's limit if they are all there, and none otherwise,
// as [Limiter.Take] does.
func (k *Keyed[K]) Take(key K, n int64) (d Decision) {
	k.table.decideFor(&d, k.tag(key), int64(time.Since(k.epoch)), n)
	return d
}

// TakeAt is Take at a time of the caller's choice, as [Limiter.TakeAt] is.
func (k *Keyed[K]) TakeAt(key K, now time.Time, n int64) (d Decision) {
	k.table.decideFor(&d, k.tag(key), sinceEpoch(k.epoch, now), n)
	return d
}

// Limit returns the limit that every key has.
func (k *Keyed[K]) Limit() Limit { return k.limit }

// Stats walks the table and counts. It takes some nanoseconds a slot, and stops
// one set at a time: the numbers of different sets are not of the same moment.
func (k *Keyed[K]) Stats() Stats {
	return k.table.stats(int64(time.Since(k.epoch)))
}

// tag hashes the key. Zero is the mark of an empty slot.
func (k *Keyed[K]) tag(key K) uint64 {
	return max(1, maphash.Comparable(k.seed, key))
}
