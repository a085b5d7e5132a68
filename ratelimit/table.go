package ratelimit

import (
	"iter"
	"math/bits"
	"sync"
	"sync/atomic"
)

// ways is the number of slots of a set: as many as fit with the lock and the
// counters into two cache lines.
const ways = 7

// slotsPerKey is how many slots the table has for each key of its capacity. Keys
// fall into sets at random, so the sets fill unevenly: with two slots a key about
// one key in eighty finds its set full when the table holds its capacity.
const slotsPerKey = 2

// set is a group of slots that share a lock. The first cache line is all that a
// look-up reads, the second is written by a charge. A tag of zero marks an empty
// slot; a slot that was filled once is never empty again.
type set struct {
	mu   sync.Mutex
	tags [ways]uint64 // guarded by mu
	word [ways]int64  // guarded by mu

	// Counters, guarded by mu: small, to fit in, and emptied into the table's when
	// they are full, so that hardly ever a shared counter is touched.
	allowed, denied, inherited uint16
}

// table maps hashes to words. It is bounded, has no pointers for the garbage
// collector to follow, and never forgets a debt.
//
// The argument. Call the smallest word of a full set its floor. (1) A charge raises
// a word, and a newcomer takes over the smallest word of its set and raises it, so
// the floor never falls. (2) When a key loses its slot, its word was the floor. So
// when the key comes back and finds no slot, the word that it takes over is not
// smaller than the one that it left: it owes at least as much as before. That
// needs the look-up, the charge and the renaming to be one critical section. If a
// charge could be late, landing in a slot that was renamed after the look-up, the
// key's own debt would be lost to (2).
type table struct {
	core
	sets []set

	// base is the middle of the frame, in nanoseconds from the epoch. It is read
	// under the lock of any set and written under the locks of all.
	base int64

	allowed, denied, inherited atomic.Uint64

	// lookedUp, if set, runs between look-up and charge. Tests set it before use.
	lookedUp func(tag uint64)
}

// newSets returns the sets for a capacity.
func newSets(capacity int) []set {
	return make([]set, (capacity*slotsPerKey+ways-1)/ways)
}

// take asks for n units for a tag, at ns nanoseconds from the epoch. It returns
// the word that decided, and the time in ticks.
func (t *table) take(tag uint64, ns, n int64) (word, now int64, ok bool) {
	i, _ := bits.Mul64(tag, uint64(len(t.sets)))
	s := &t.sets[i]
	s.mu.Lock()
	since := ns - t.base
	if !t.inFrame(since) {
		s.mu.Unlock()
		t.reframe(ns)
		s.mu.Lock()
		since = ns - t.base
	}
	if t.inFrame(since) {
		now = since * t.scale
	} else {
		now = past
	}

	slot, newcomer := s.find(tag)
	if t.lookedUp != nil {
		t.lookedUp(tag)
	}
	word = s.word[slot]
	if newcomer && s.tags[slot] == 0 {
		word = unused
	} else if newcomer && word > now {
		count(&s.inherited, &t.inherited)
	}
	if n == 0 || !t.possible(n) {
		ok = n == 0
	} else {
		var next int64
		if next, ok = t.admits(word, now, n); ok {
			s.tags[slot], s.word[slot] = tag, next
		}
	}
	if ok {
		count(&s.allowed, &t.allowed)
	} else {
		count(&s.denied, &t.denied)
	}
	s.mu.Unlock()
	return word, now, ok
}

// count adds one to a small counter that overflows into a large one.
func count(small *uint16, large *atomic.Uint64) {
	*small++
	if *small == 0 {
		large.Add(1 << 16)
	}
}

// decideFor is take with the details.
func (t *table) decideFor(d *Decision, tag uint64, ns, n int64) {
	word, now, ok := t.take(tag, ns, n)
	t.decide(d, word, now, n, ok)
}

// find returns the slot of a tag or, for a newcomer, the slot to take over: the
// first empty one, else the one with the smallest word.
func (s *set) find(tag uint64) (slot int, newcomer bool) {
	for i, have := range &s.tags {
		if have == tag {
			return i, false
		}
	}
	for i, have := range &s.tags {
		if have == 0 {
			return i, true
		}
		if s.word[i] < s.word[slot] {
			slot = i
		}
	}
	return slot, true
}

// reframe moves the frame so that ns is its middle, unless what was charged lies too
// far ahead for that. It stops the table for some nanoseconds a set, once in 13
// days with the finest ticks and once in 36 years with the coarsest.
func (t *table) reframe(ns int64) {
	for i := range t.sets {
		t.sets[i].mu.Lock() // always in this order
	}
	if d := ns - t.base; !t.inFrame(d) && t.fits(d) {
		for word := range t.words() {
			*word, _ = t.shift(*word, d)
		}
		t.base = ns
	}
	for i := range t.sets {
		t.sets[i].mu.Unlock()
	}
}

// fits reports whether all words can be carried into a frame d nanoseconds later.
func (t *table) fits(d int64) bool {
	for word := range t.words() {
		if _, ok := t.shift(*word, d); !ok {
			return false
		}
	}
	return true
}

// words yields the words of all filled slots. The caller holds all locks.
func (t *table) words() iter.Seq[*int64] {
	return func(yield func(*int64) bool) {
		for i := range t.sets {
			s := &t.sets[i]
			for slot, tag := range s.tags {
				if tag != 0 && !yield(&s.word[slot]) {
					return
				}
			}
		}
	}
}

// stats counts set by set.
func (t *table) stats(ns int64) Stats {
	st := Stats{Capacity: len(t.sets) * ways}
	for i := range t.sets {
		s := &t.sets[i]
		s.mu.Lock()
		now := t.clamp(ns - t.base)
		for slot, tag := range s.tags {
			if tag == 0 {
				continue
			}
			st.Resident++
			if s.word[slot] > now {
				st.Live++
			}
		}
		st.Allowed += uint64(s.allowed)
		st.Denied += uint64(s.denied)
		st.Inherited += uint64(s.inherited)
		s.mu.Unlock()
	}
	st.Allowed += t.allowed.Load()
	st.Denied += t.denied.Load()
	st.Inherited += t.inherited.Load()
	return st
}
