package ratelimit

import "time"

// book is what a set must know to give units back.
type book struct {
	// given is what was given back from the middle of the queue of a slot, in ticks, as
	// state.refunded is of a Limiter.
	given [ways]int64

	// tol is the least tolerance under which somebody waits for the key of a slot, and
	// zero if nobody does: the limit of the key may have changed since a reservation.
	tol [ways]int64

	// lost is the largest word that was lost to a newcomer since there are books. Nothing
	// is given back below it: the key that owed so much may come back and inherit that
	// word. That it lay in the past means nothing to one who read the clock before.
	lost int64

	// turns counts the newcomers of a slot. A reservation of another turn gives nothing
	// back.
	turns [ways]uint32
}

// takeOver notes that the place gets another key.
func (b *book) takeOver(p *place) {
	b.turns[p.way]++
	b.tol[p.way] = 0
	b.lost = max(b.lost, p.word)
}

// reserved notes a reservation for the key of the place, under a tolerance.
func (b *book) reserved(p *place, tol int64, delayed bool) {
	if p.word <= p.now {
		b.tol[p.way] = 0
	}
	if have := b.tol[p.way]; delayed && (have == 0 || tol < have) {
		b.tol[p.way] = tol
	}
}

// slot is where a reservation was charged.
type slot struct {
	core  // the limit of the key
	tag   uint64
	label string
	base  int64 // of the frame in which Reservation.end counts
	way   int
	turn  uint32
}

// makeBooks makes the books, once: in booking.
func (t *table) makeBooks() {
	books := make([]book, len(t.sets))
	for i := range books {
		books[i].lost = lowest // no word is below one that was lost before
	}
	t.lockAll()
	defer t.unlockAll()
	t.books = books
}

// reserve takes n units for a tag, to be used after a delay of at most most.
func (t *table) reserve(tag uint64, ns, n int64, most time.Duration, c *core, label string) (Reservation, time.Duration, error) {
	t.booking.Do(t.makeBooks)
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
	return t.reservation(&p, tag, label, c, n, next, ns, delay), delay, nil
}

// reservation returns that of a charge that was just put in its place.
func (t *table) reservation(p *place, tag uint64, label string, c *core, n, end, ns int64, delay time.Duration) Reservation {
	b := &t.books[t.setOf(tag)]
	b.reserved(p, c.tol, delay > 0)
	return Reservation{
		table: t, n: n, end: end, refunded: b.given[p.way], act: ns + int64(delay), delayed: delay > 0,
		slot: slot{core: *c, tag: tag, label: label, base: t.base, way: p.way, turn: b.turns[p.way]},
	}
}

// giveBack gives back n of the units of r, by the rules of Reservation.refund, and
// never below what a key has lost.
func (t *table) giveBack(r *Reservation, n int64) {
	i := t.setOf(r.slot.tag)
	s := &t.sets[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	b, way := &t.books[i], r.slot.way
	if s.tags[way] != r.slot.tag || b.turns[way] != r.slot.turn {
		return
	}
	end, ok := t.shift(r.end, t.base-r.slot.base)
	if !ok {
		return
	}
	c := r.slot.core
	if tol := b.tol[way]; tol > 0 {
		c.tol = min(c.tol, tol)
	}
	back, middle := r.refund(&c, t.epoch, t.base, s.word[way], end, b.given[way]-r.refunded, n)
	back = max(0, min(back, s.word[way]-b.lost))
	if middle {
		b.given[way] += back
	}
	s.word[way] -= back
}

// owe charges n units to the key of a slot whether they are there or not.
func (t *table) owe(at *slot, n int64) {
	p := t.open(at.tag, int64(time.Since(t.epoch)))
	defer p.set.mu.Unlock()
	if next := at.owing(p.word, p.now, n); next > p.word {
		t.put(&p, at.tag, next, at.label)
	}
}
