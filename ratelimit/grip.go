package ratelimit

import (
	"cmp"
	"runtime"
	"slices"
)

// grip is the hold that All has on a want.
type grip struct {
	want   Want
	ns     int64 // the time, from the limit's own epoch
	leader int   // the index of the first grip of the same lock, which has taken it

	state *state // of a limiter
	place place  // of the key; of a limiter only the word and the time
	next  int64  // of a leader of a limiter: the word after the charges up to now
	end   int64  // the word after the charge

	stale   bool // the time lies outside the frame of the table
	charged bool
	refused bool
	oldTag  uint64 // what was in the slot before the charge
	oldWord int64
}

// inOrder compares grips by the order in which All takes hold. Tables come before
// limiters: who waits for the lock of a set should hold no word, for which others spin.
func inOrder(a, b *grip) int {
	l, m := a.want.limiter, b.want.limiter
	t, u := a.want.table, b.want.table
	switch {
	case l != nil && m != nil:
		return cmp.Compare(l.id, m.id)
	case l != nil:
		return 1
	case m != nil:
		return -1
	case t != u:
		return cmp.Compare(t.id, u.id)
	}
	return cmp.Compare(t.setOf(a.want.tag), t.setOf(b.want.tag))
}

// holdAll takes all locks and words, in order.
func holdAll(grips []grip) {
	stale := false
	for i := range grips {
		g := &grips[i]
		if g.leader = i; i > 0 && inOrder(&grips[i-1], g) == 0 {
			g.leader = grips[i-1].leader
		} else if g.stale = !g.hold(); g.stale {
			stale = true
		}
	}
	if !stale {
		return
	}
	for i := range slices.Backward(grips) {
		grips[i].letGo(false, grips[i].leader == i)
	}
	for i := range grips {
		if grips[i].stale {
			grips[i].want.table.reframe(grips[i].ns)
		}
	}
	for i := range grips { // what is out of its frame now is past
		if grips[i].leader == i {
			grips[i].hold()
		}
	}
}

// hold takes the lock of the key's set, or the word of the limiter. It reports whether
// the time lies in the frame of the table.
func (g *grip) hold() bool {
	if t := g.want.table; t != nil {
		g.place.set = &t.sets[t.setOf(g.want.tag)]
		g.place.set.mu.Lock()
		return t.inFrame(g.ns - t.base)
	}
	for {
		s, now := g.want.limiter.at(g.ns)
		word := s.word.Load()
		if word == frozen {
			runtime.Gosched()
		} else if s.word.CompareAndSwap(word, frozen) {
			g.state, g.place.word, g.place.now, g.next = s, word, now, word
			return true
		}
	}
}

// core returns the limit that is asked.
func (g *grip) core(leader *grip) *core {
	if g.want.limiter != nil {
		return &leader.state.core
	}
	return &g.want.core
}

// charge charges the want, for the time being, and says what comes of it. A want that is
// refused is charged too, so that another want of the same limit counts it.
func (g *grip) charge(leader *grip) (d Decision) {
	w, c := &g.want, g.core(leader)
	if w.limiter != nil {
		g.place.word, g.place.now = leader.next, leader.place.now
	} else {
		g.place = w.table.find(leader.place.set, w.tag, g.ns-w.table.base)
	}
	ok, next := w.n == 0, g.place.word
	if !ok && c.possible(w.n) {
		g.charged = true
		next, ok = c.admits(g.place.word, g.place.now, w.n)
		if next > g.place.now+5*budget { // so far that the sum is above the burst
			next = g.place.word
		}
	}
	g.refused, g.end = !ok, next
	if w.limiter != nil {
		leader.next = next
	} else if s := g.place.set; g.charged {
		g.oldTag, g.oldWord = s.tags[g.place.way], s.word[g.place.way]
		s.tags[g.place.way], s.word[g.place.way] = w.tag, next
	}
	c.decide(&d, g.place.word, g.place.now, w.n, ok)
	d.Name = w.name
	return d
}

// keep makes the charge final.
func (g *grip) keep(leader *grip) {
	w := &g.want
	if w.table != nil {
		w.table.tally(&g.place, true)
		if g.charged && g.place.newcomer {
			w.table.takeOver(&g.place, w.tag, w.label)
		}
		if w.into != nil {
			*w.into = w.table.reservation(&g.place, w.tag, w.label, &w.core, w.n, g.end, g.ns, 0)
		}
	} else if w.into != nil {
		s := leader.state
		*w.into = Reservation{limiter: w.limiter, state: s, n: w.n, end: g.end, refunded: s.refunded.Load(), act: g.ns}
	}
}

// letGo takes the charge back, unless it is kept, and if it has the lock, or the word,
// lets go of it.
func (g *grip) letGo(kept, leads bool) {
	w := &g.want
	if w.limiter != nil {
		if leads && kept {
			g.state.word.Store(g.next)
		} else if leads {
			g.state.word.Store(g.place.word)
		}
		return
	}
	s := g.place.set
	if !kept && g.charged {
		s.tags[g.place.way], s.word[g.place.way] = g.oldTag, g.oldWord
	}
	if g.refused {
		w.table.tally(&g.place, false)
	}
	if leads {
		s.mu.Unlock()
	}
}
