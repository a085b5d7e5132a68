package ratelimit

import (
	"iter"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
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
// key's own debt would be lost to (2). What is given back lowers a word, but never
// below one that was lost in (2): see book.
//
// The argument speaks of words only. Limits may differ by key, as long as they count in
// the same ticks.
type table struct {
	core  // of all keys; with limits by key only the scale and the span count
	sets  []set
	epoch time.Time
	id    uint64

	// base is the middle of the frame, in nanoseconds from the epoch. It is read
	// under the lock of any set and written under the locks of all.
	base int64

	// books is nil until something is reserved, when booking makes it. It is read under the
	// lock of any set and written under the locks of all.
	books   []book
	booking sync.Once

	labels labels

	allowed, denied, inherited atomic.Uint64

	// lookedUp, if set, runs between look-up and charge. Tests set it before use.
	lookedUp func(tag uint64)
}

// init makes the table empty, for a capacity.
func (t *table) init(c core, capacity, labelled int) {
	t.core = c
	t.sets = make([]set, (capacity*slotsPerKey+ways-1)/ways)
	t.epoch = time.Now()
	t.id = nextID()
	t.labels.make(len(t.sets)*ways, labelled)
}

// setOf returns the index of the set of a tag.
func (t *table) setOf(tag uint64) int {
	i, _ := bits.Mul64(tag, uint64(len(t.sets)))
	return int(i)
}

// place is where a tag is in its set, or would be. It is good as long as the set is
// locked.
type place struct {
	set      *set
	way      int
	newcomer bool
	word     int64 // what the tag owes, or what it inherits
	now      int64 // in ticks
}

// open locks the set of a tag and finds its place, at ns nanoseconds from the epoch.
func (t *table) open(tag uint64, ns int64) place {
	s := &t.sets[t.setOf(tag)]
	s.mu.Lock()
	since := ns - t.base
	if !t.inFrame(since) {
		s.mu.Unlock()
		t.reframe(ns)
		s.mu.Lock()
		since = ns - t.base
	}
	return t.find(s, tag, since)
}

// find finds the place of a tag in its set, which is locked.
func (t *table) find(s *set, tag uint64, since int64) place {
	p := place{set: s, now: past}
	if t.inFrame(since) {
		p.now = since * t.scale
	}
	p.way, p.newcomer = s.find(tag)
	if t.lookedUp != nil {
		t.lookedUp(tag)
	}
	p.word = s.word[p.way]
	if p.newcomer && s.tags[p.way] == 0 {
		p.word = lowest // which refuses what is past
	}
	return p
}

// find returns the slot of a tag or, for a newcomer, the slot to take over: the
// first empty one, else the one with the smallest word.
func (s *set) find(tag uint64) (way int, newcomer bool) {
	for i, have := range &s.tags {
		if have == tag {
			return i, false
		}
	}
	for i, have := range &s.tags {
		if have == 0 {
			return i, true
		}
		if s.word[i] < s.word[way] {
			way = i
		}
	}
	return way, true
}

// put gives the place to the tag, with what it owes from now on.
func (t *table) put(p *place, tag uint64, word int64, label string) {
	if p.newcomer {
		t.takeOver(p, tag, label)
	}
	p.set.tags[p.way], p.set.word[p.way] = tag, word
}

// takeOver notes that a slot has another key.
func (t *table) takeOver(p *place, tag uint64, label string) {
	if t.books == nil && t.labels.width == 0 {
		return
	}
	i := t.setOf(tag)
	if t.books != nil {
		t.books[i].takeOver(p)
	}
	t.labels.write(i*ways+p.way, label)
}

// tally counts a decision.
func (t *table) tally(p *place, ok bool) {
	if p.newcomer && p.word > p.now {
		count(&p.set.inherited, &t.inherited)
	}
	if ok {
		count(&p.set.allowed, &t.allowed)
	} else {
		count(&p.set.denied, &t.denied)
	}
}

// count adds one to a small counter that overflows into a large one.
func count(small *uint16, large *atomic.Uint64) {
	*small++
	if *small == 0 {
		large.Add(1 << 16)
	}
}

// take asks for n units for a tag with its limit, at ns nanoseconds from the epoch. It
// returns the word that decided, and the time in ticks. It is open, find, put and tally
// in one function, which is twice as fast.
func (t *table) take(tag uint64, ns, n int64, c *core, label string) (word, now int64, ok bool) {
	s := &t.sets[t.setOf(tag)]
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
	way, newcomer := s.find(tag)
	if t.lookedUp != nil {
		t.lookedUp(tag)
	}
	word = s.word[way]
	if newcomer && s.tags[way] == 0 {
		word = lowest // which refuses what is past
	} else if newcomer && word > now {
		count(&s.inherited, &t.inherited)
	}
	if n == 0 || !c.possible(n) {
		ok = n == 0
	} else {
		var next int64
		if next, ok = c.admits(word, now, n); ok {
			if newcomer && (t.books != nil || t.labels.width > 0) {
				t.takeOver(&place{set: s, way: way, word: word, now: now}, tag, label)
			}
			s.tags[way], s.word[way] = tag, next
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

// takeUpTo asks for as many of n units as are there.
func (t *table) takeUpTo(d *Decision, tag uint64, ns, n int64, c *core, label string) (granted int64) {
	p := t.open(tag, ns)
	granted = max(0, min(n, c.free(p.word, p.now)))
	ok := granted > 0 || n == 0
	if granted > 0 {
		next, _ := c.admits(p.word, p.now, granted)
		t.put(&p, tag, next, label)
	}
	t.tally(&p, ok)
	p.set.mu.Unlock()
	if ok {
		n = granted
	}
	c.decide(d, p.word, p.now, min(n, max(granted, 1)), ok)
	return granted
}

// peek looks at a tag, and counts nothing.
func (t *table) peek(tag uint64, ns int64) (word, now int64) {
	p := t.open(tag, ns)
	p.set.mu.Unlock()
	return p.word, p.now
}

// lockAll locks all sets, in the one order.
func (t *table) lockAll() {
	for i := range t.sets {
		t.sets[i].mu.Lock()
	}
}

func (t *table) unlockAll() {
	for i := range t.sets {
		t.sets[i].mu.Unlock()
	}
}

// reframe moves the frame so that ns is its middle, unless what was charged lies too
// far ahead for that. It stops the table for some nanoseconds a set, once in 13
// days with the finest ticks and once in 36 years with the coarsest.
func (t *table) reframe(ns int64) {
	t.lockAll()
	defer t.unlockAll()
	d := ns - t.base
	if t.inFrame(d) || !t.fits(d) {
		return
	}
	for word := range t.words() {
		*word, _ = t.shift(*word, d)
	}
	for i := range t.books {
		t.books[i].lost, _ = t.shift(t.books[i].lost, d)
	}
	t.base = ns
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
			for way, tag := range s.tags {
				if tag != 0 && !yield(&s.word[way]) {
					return
				}
			}
		}
	}
}
