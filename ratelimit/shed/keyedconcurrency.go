package shed

import (
	"fmt"
	"hash/maphash"
	"iter"
	"maps"
	"sync"
	"time"
	"unsafe"
)

// KeyedConcurrency lets a fixed number of requests be in progress at a time for each
// key (a user, an API key, a tenant): Stripe's concurrent requests limiter, for
// endpoints that are slow or costly, and clients that retry before the first answer
// came.
//
// It guarantees that at most the limit is in progress for each key. A request above it
// is refused at once: a client that asks for too much at a time has no claim to a place
// in a queue.
//
// It is a table of the keys that are in progress, in 64 parts with a lock each. A key
// is forgotten when nothing of it is in progress, and the table shrinks with the number
// of keys.
//
// Make one with [NewKeyedConcurrency] and do not copy it. Acquire and Release take a
// hash and a look-up in a map each, under an uncontended lock, and allocate nothing once
// the table has grown.
//
// A KeyedConcurrency is safe for concurrent use by multiple goroutines.
type KeyedConcurrency[K comparable] struct {
	limit   int
	seed    maphash.Seed
	refusal Error
	shards  [keyShards]keyShard[K]
}

const keyShards = 64

// keyShard is a part of the table, on cache lines of its own.
type keyShard[K comparable] struct {
	keyTable[K]
	_ [(128 - unsafe.Sizeof(keyTable[int]{})%128) % 128]byte
}

type keyTable[K comparable] struct {
	mu      sync.Mutex
	entries map[K]*keyEntry[K]
	peak    int          // the largest size of entries since it was made
	free    *keyEntry[K] // entries without a key, fewer than peak

	admitted, refused uint64
}

// keyEntry is a key in progress. It is what its permits point to.
type keyEntry[K comparable] struct {
	table    *keyTable[K]
	key      K
	inflight int
	next     *keyEntry[K] // in the list of the free
}

// NewKeyedConcurrency returns a gate with a limit for each key. Returns an error when
// the limit is below 1.
func NewKeyedConcurrency[K comparable](limit int) (*KeyedConcurrency[K], error) {
	if limit < 1 {
		return nil, fmt.Errorf("shed: the limit by key is %d, expected 1 or more", limit)
	}
	return &KeyedConcurrency[K]{
		limit:   limit,
		seed:    maphash.MakeSeed(),
		refusal: Error{Class: Default, Reason: Full},
	}, nil
}

// Acquire lets a request of the key in. It must be ended with [Permit.Release], whose
// outcome does not matter. Returns an [*Error] with the reason Full when the limit is in
// progress. A key that is not equal to itself, as a NaN, is always refused: it could not
// be found again. Acquire panics if K is an interface type and the key cannot be hashed, as
// a map does.
func (k *KeyedConcurrency[K]) Acquire(key K) (Permit, error) {
	t := &k.shards[maphash.Comparable(k.seed, key)%keyShards].keyTable
	t.mu.Lock()
	e := t.entries[key]
	if e == nil && key == key || e != nil && e.inflight < k.limit { // a NaN is not equal to itself
		if e == nil {
			e = t.add(key)
		}
		e.inflight++
		t.admitted++
		t.mu.Unlock()
		return Permit{gate: e}, nil
	}
	t.refused++
	t.mu.Unlock()
	return Permit{}, &k.refusal
}

// Limit returns the limit that every key has.
func (k *KeyedConcurrency[K]) Limit() int { return k.limit }

// All iterates over the keys in progress and how many requests each has in progress, in
// no order. It copies one part of the table at a time: the numbers within a part are of
// one moment, those of different parts are not. The loop may use the gate.
func (k *KeyedConcurrency[K]) All() iter.Seq2[K, int] {
	type pair struct {
		key      K
		inflight int
	}
	return func(yield func(K, int) bool) {
		var pairs []pair
		for i := range k.shards {
			t := &k.shards[i].keyTable
			pairs = pairs[:0]
			t.mu.Lock()
			for key, e := range t.entries {
				pairs = append(pairs, pair{key, e.inflight})
			}
			t.mu.Unlock()
			for _, p := range pairs {
				if !yield(p.key, p.inflight) {
					return
				}
			}
		}
	}
}

// KeyedConcurrencyStats says how a [KeyedConcurrency] is doing.
type KeyedConcurrencyStats struct {
	// Keys is the number of keys in progress.
	Keys int

	// InFlight is how many requests are in progress, for all keys together.
	InFlight int

	// Admitted and Refused count requests.
	Admitted, Refused uint64
}

// Stats walks the table and counts, as All does: the numbers of different parts are not
// of the same moment.
func (k *KeyedConcurrency[K]) Stats() KeyedConcurrencyStats {
	var s KeyedConcurrencyStats
	for i := range k.shards {
		t := &k.shards[i].keyTable
		t.mu.Lock()
		s.Keys += len(t.entries)
		for _, e := range t.entries {
			s.InFlight += e.inflight
		}
		s.Admitted += t.admitted
		s.Refused += t.refused
		t.mu.Unlock()
	}
	return s
}

// add makes an entry. It runs under mu.
func (t *keyTable[K]) add(key K) *keyEntry[K] {
	e := t.free
	if e == nil {
		e = &keyEntry[K]{table: t}
	} else {
		t.free, e.next = e.next, nil
	}
	e.key = key
	if t.entries == nil {
		t.entries = make(map[K]*keyEntry[K])
	}
	t.entries[key] = e
	t.peak = max(t.peak, len(t.entries))
	return e
}

func (e *keyEntry[K]) release(time.Duration, Outcome) {
	t := e.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.inflight--; e.inflight > 0 {
		return
	}
	if e.inflight < 0 { // a permit was copied and both were released
		e.inflight = 0
		return
	}
	delete(t.entries, e.key)
	var none K
	e.key = none // it may hold memory
	e.next, t.free = t.free, e
	t.shrink()
}

// shrink gives back the memory of a map that was far larger, which Go's maps keep. It
// moves fewer entries than were deleted since the last time.
func (t *keyTable[K]) shrink() {
	const small = 64
	if t.peak <= small || len(t.entries) > t.peak/4 {
		return
	}
	entries := make(map[K]*keyEntry[K], 2*len(t.entries))
	maps.Copy(entries, t.entries)
	t.entries, t.peak, t.free = entries, max(small/4, len(entries)), nil
}
