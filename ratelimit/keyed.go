package ratelimit

import (
	"context"
	"fmt"
	"hash/maphash"
	"iter"
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
// A key that is not equal to itself, as NaN, is a new one at each call, and never limited.
//
// Make one with [NewKeyed] and do not copy it. It counts time from its creation on
// the monotonic clock; under testing/synctest create it in the bubble that uses it.
// A decision costs one clock reading, one hash and one uncontended lock of the
// key's set, and allocates nothing.
//
// A Keyed is safe for concurrent use by multiple goroutines.
type Keyed[K comparable] struct {
	table   table
	limit   Limit
	limitOf func(K) Limit // nil if all keys have limit
	seed    maphash.Seed
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

	// Labels is how many bytes of each key the table remembers, for [Keyed.All]: 0 to
	// 255, of the key if it is a string and of fmt.Sprint(key) if not, which then costs
	// an allocation for each decision. Each byte takes two bytes for a key of Capacity.
	Labels int
}

// NewKeyed returns a limiter by key that gives every key the same limit. Every key starts
// with a full burst. Returns an error that wraps ErrInvalidLimit when the limit cannot be
// kept, or ErrInvalidCapacity when the capacity is out of range, or that names Labels.
func NewKeyed[K comparable](limit Limit, o KeyedOptions) (*Keyed[K], error) {
	c, err := limit.compile()
	if err != nil {
		return nil, err
	}
	return newKeyed(&Keyed[K]{limit: limit}, c, o)
}

// NewKeyedBy returns a limiter by key that asks limitOf for the limit of a key, at each
// decision: for plans, for customers with a contract, and for limits that change while
// the service runs. limitOf must be fast and safe for concurrent use.
//
// A key whose limit changes owes as much time as before: what it took counts as long as
// it would have under the old limit, and what is free is the new burst less that. A limit
// that cannot be kept grants nothing: Take refuses with a Limit of 0 and a negative
// RetryAfter, Wait and Reserve return an error that wraps ErrInvalidLimit.
//
// All limits count in ticks of 1/64 ns: a rate is kept exactly when the time of a unit
// is a whole number of ticks, and otherwise too slow, by less than 0.1 % up to 60 million
// a second. Bursts may take up to 208 days to refill. If limits have very different
// periods, a newcomer in a full set may inherit a debt of days: make the table large
// enough, or give each period a Keyed of its own.
//
// Returns an error when limitOf is nil, and those of NewKeyed.
func NewKeyedBy[K comparable](limitOf func(K) Limit, o KeyedOptions) (*Keyed[K], error) {
	if limitOf == nil {
		return nil, fmt.Errorf("%w: limitOf is nil, expected a function", ErrInvalidLimit)
	}
	c := core{scale: 1 << keyScaleBits, span: budget >> keyScaleBits}
	return newKeyed(&Keyed[K]{limitOf: limitOf}, c, o)
}

func newKeyed[K comparable](k *Keyed[K], c core, o KeyedOptions) (*Keyed[K], error) {
	const most = min(1<<30, math.MaxInt>>10) // 40 GB, or what a 32-bit machine can address
	if o.Capacity < 0 || o.Capacity > most {
		return nil, fmt.Errorf("%w: Capacity is %d, expected 0 to %d", ErrInvalidCapacity, o.Capacity, most)
	}
	if o.Labels < 0 || o.Labels > math.MaxUint8 {
		return nil, fmt.Errorf("ratelimit: KeyedOptions.Labels is %d, expected 0 to %d", o.Labels, math.MaxUint8)
	}
	if o.Capacity == 0 {
		o.Capacity = DefaultCapacity
	}
	k.table.init(c, o.Capacity, o.Labels)
	k.seed = maphash.MakeSeed()
	return k, nil
}

// Allow takes one unit of the key's limit and reports whether it was there. It
// panics if K is an interface type and the key cannot be hashed, as a map does.
func (k *Keyed[K]) Allow(key K) bool {
	var own core
	_, _, ok := k.table.take(k.tag(key), k.now(), 1, k.coreOf(key, &own), k.label(key))
	return ok
}

// Take takes n units of the key's limit if they are all there, and none otherwise,
// as [Limiter.Take] does.
func (k *Keyed[K]) Take(key K, n int64) (d Decision) {
	k.take(&d, key, k.now(), n)
	return d
}

// TakeAt is Take at a time of the caller's choice, as [Limiter.TakeAt] is.
func (k *Keyed[K]) TakeAt(key K, now time.Time, n int64) (d Decision) {
	k.take(&d, key, sinceEpoch(k.table.epoch, now), n)
	return d
}

func (k *Keyed[K]) take(d *Decision, key K, ns, n int64) {
	var own core
	c := k.coreOf(key, &own)
	word, now, ok := k.table.take(k.tag(key), ns, n, c, k.label(key))
	c.decide(d, word, now, n, ok)
}

// TakeUpTo takes as many of n units of the key's limit as are there, as
// [Limiter.TakeUpTo] does.
func (k *Keyed[K]) TakeUpTo(key K, n int64) (granted int64, d Decision) {
	var own core
	granted = k.table.takeUpTo(&d, k.tag(key), k.now(), n, k.coreOf(key, &own), k.label(key))
	return granted, d
}

// Peek tells what Take would answer now, as [Limiter.Peek] does. It charges nothing, and
// Stats does not count it.
func (k *Keyed[K]) Peek(key K, n int64) (d Decision) {
	var own core
	c := k.coreOf(key, &own)
	word, now := k.table.peek(k.tag(key), k.now())
	c.foresee(&d, word, now, n)
	return d
}

// Reserve takes n units of the key's limit ahead of time, as [Limiter.Reserve] does. The
// reservation gives back what it can, which is nothing once the key has lost its slot to
// another, and nothing below what another key lost in the same set.
//
// The first Reserve or Wait makes the table 152 bytes a set larger: 44 bytes for a key of
// Capacity.
func (k *Keyed[K]) Reserve(key K, n int64, maxWait time.Duration) (Reservation, error) {
	r, _, err := k.reserve(key, n, maxWait, farAway)
	return r, err
}

// Wait takes n units of the key's limit, sleeping until they are there, as [Limiter.Wait]
// does. Those who wait for the same key are served in the order in which they asked.
func (k *Keyed[K]) Wait(ctx context.Context, key K, n int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, delay, err := k.reserve(key, n, farAway, deadlineOf(ctx, k.table.epoch))
	if err != nil || delay <= 0 {
		return err
	}
	return r.sleep(ctx, delay)
}

// reserve is as Limiter.reserve.
func (k *Keyed[K]) reserve(key K, n int64, maxWait time.Duration, deadline int64) (Reservation, time.Duration, error) {
	limit, c := k.limit, &k.table.core
	if k.limitOf != nil {
		limit = k.limitOf(key)
		own, err := limit.compileByKey()
		if err != nil {
			return Reservation{}, 0, err
		}
		c = &own
	}
	ns := k.now()
	r, delay, err := k.table.reserve(k.tag(key), ns, n, min(maxWait, time.Duration(deadline-ns-1)), c, k.label(key))
	if err != nil {
		return r, 0, &LimitError{N: n, Limit: limit, RetryAfter: delay, Err: err}
	}
	return r, delay, nil
}

// LimitOf returns the limit of the key.
func (k *Keyed[K]) LimitOf(key K) Limit {
	if k.limitOf != nil {
		return k.limitOf(key)
	}
	return k.limit
}

// Limit returns the limit that every key has, and the zero Limit after [NewKeyedBy].
func (k *Keyed[K]) Limit() Limit { return k.limit }

// All yields the keys that owe something, for an operator's page: with each the time
// until its whole burst is there again. A key is shown by its label
// (KeyedOptions.Labels) or, if there is none, by a hash that means the same key as long
// as the Keyed lives, "#0123456789abcdef".
//
// It is a walk through the table, which locks one set at a time, and none while it
// yields. What changes meanwhile may or may not be seen.
func (k *Keyed[K]) All() iter.Seq2[string, time.Duration] {
	return func(yield func(string, time.Duration) bool) {
		for d := range k.table.debtors(k.now()) {
			if !yield(d.label, d.resetAfter) {
				return
			}
		}
	}
}

// Stats walks the table and counts. It takes some nanoseconds a slot, and stops
// one set at a time: the numbers of different sets are not of the same moment.
func (k *Keyed[K]) Stats() Stats { return k.table.stats(k.now()) }

// tag hashes the key. Zero is the mark of an empty slot.
func (k *Keyed[K]) tag(key K) uint64 {
	return max(1, maphash.Comparable(k.seed, key))
}

func (k *Keyed[K]) now() int64 { return int64(time.Since(k.table.epoch)) }

// label returns what the table remembers of the key.
func (k *Keyed[K]) label(key K) string {
	if k.table.labels.width == 0 {
		return ""
	}
	return labelOf(key)
}

// coreOf returns the compiled limit of the key, which it may put into own. A limit that
// cannot be kept has no burst, so that everything is refused.
func (k *Keyed[K]) coreOf(key K, own *core) *core {
	if k.limitOf == nil {
		return &k.table.core
	}
	var err error
	if *own, err = k.limitOf(key).compileByKey(); err != nil {
		*own = core{scale: k.table.scale}
	}
	return own
}
