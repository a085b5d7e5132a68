package ratelimit

import (
	"math"
	"time"
)

// book is what a set must know to give units back.
type book struct {
	// given is what was given back from the middle of the queue of a slot, in ticks, as
	// state.refunded is of a Limiter.
	given [ways]int64

	// lost is the largest word that was ever lost to a newcomer. Nothing is given back
	// below it: the key that owed so much may come back and inherit that word.
	lost int64

	// turns counts the newcomers of a slot. A reservation of another turn gives nothing
	// back.
	turns [ways]uint32
}

// takeOver notes that the place gets another key.
func (b *book) takeOver(p *place) {
	b.turns[p.way]++
	if p.word > p.now {
		b.lost = max(b.lost, p.word)
	}
}

// slot is where a reservation was charged.
type slot struct {
	core // the limit of the key
	tag  uint64
	base int64 // of the frame in which Reservation.end counts
	way  int
	turn uint32
}

// keepBooks makes the books if there are none.
func (t *table) keepBooks(tag uint64) {
	mu := &t.sets[t.setOf(tag)].mu
	mu.Lock()
	have := t.books != nil
	mu.Unlock()
	if have {
		return
	}
	books := make([]book, len(t.sets))
	t.lockAll()
	defer t.unlockAll()
	if t.books != nil {
		return
	}
	for i := range books {
		books[i].lost = math.MinInt64
		for way, tag := range t.sets[i].tags {
			if tag != 0 { // any of the words may have been lost before
				books[i].lost = max(books[i].lost, t.sets[i].word[way])
			}
		}
	}
	t.books = books
}

// reserve takes n units for a tag, to be used after a delay of at most most.
func (t *table) reserve(tag uint64, ns, n int64, most time.Duration, c *core, label string) (Reservation, time.Duration, error) {
	t.keepBooks(tag)
	p := t.open(tag, ns)
	defer p.set.mu.Unlock()
	next, delay, err := c.book(p.word, p.now, n, most)
	t.tally(&p, err == nil)
	if err != nil {
		return Reservation{}, delay, err
	}
	if n > 0 {
		t.put(&p, tag, next, label)
	}
	return t.reservation(&p, tag, c, n, next, ns, delay), delay, nil
}

// reservation returns that of a charge that was just put in its place.
func (t *table) reservation(p *place, tag uint64, c *core, n, end, ns int64, delay time.Duration) Reservation {
	b := &t.books[t.setOf(tag)]
	return Reservation{
		table: t, n: n, end: end, refunded: b.given[p.way], act: ns + int64(delay), delayed: delay > 0,
		slot: slot{core: *c, tag: tag, base: t.base, way: p.way, turn: b.turns[p.way]},
	}
}

// giveBack gives back n of the units of r, by the rules of Reservation.giveBack, and
// never below what a key has lost.
func (t *table) giveBack(r *Reservation, n int64) {
	i := t.setOf(r.slot.tag)
	s, b := &t.sets[i], &t.books[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	way := r.slot.way
	if s.tags[way] != r.slot.tag || b.turns[way] != r.slot.turn {
		return
	}
	end, ok := t.shift(r.end, t.base-r.slot.base)
	if !ok {
		return
	}
	word, given := s.word[way], b.given[way]-r.refunded
	now := t.clamp(int64(time.Since(t.epoch)) - t.base)
	behind := word + given - end
	back := min(mulDiv(n, r.slot.cost, 1), word-max(b.lost, lowest))
	if behind != 0 {
		back = min(back, r.slot.tol-behind-given, end-now-given)
	}
	if back <= 0 {
		return
	}
	if behind != 0 || r.shrinks(n) {
		b.given[way] += back
	}
	s.word[way] -= back
}

// owe charges n units to the key of a slot whether they are there or not.
func (t *table) owe(at *slot, n int64) {
	p := t.open(at.tag, int64(time.Since(t.epoch)))
	defer p.set.mu.Unlock()
	if next := at.owing(p.word, p.now, n); next > p.word {
		t.put(&p, at.tag, next, "")
	}
}
