package balance

import (
	"sync/atomic"
	"time"
)

// Strategy is a way to choose a backend: [LeastRequest], [LeastLatency], [Prequal],
// [RoundRobin] or [Random]. It is an immutable value that may be given to several
// balancers. The set of strategies is closed, so that choosing is a switch and not a
// call through an interface.
type Strategy interface {
	configure(c *chooser, f *fleet) error
}

type kind uint8

const (
	random kind = iota
	roundRobin
	leastRequest
	leastLatency
	prequal
)

// timed reports whether picks need the time, and their latency is measured.
func (k kind) timed() bool { return k >= leastLatency }

// chooser chooses an index in a set. Apart from the counters it is immutable.
type chooser struct {
	kind    kind
	choices int // of leastRequest
	rand    func() uint64

	// The counters change with many picks, and what is around them hardly ever.
	_     [64]byte
	turn  atomic.Uint64 // of roundRobin
	blind blindness
	_     [64]byte
}

// choose returns the index of a backend; the set is not empty.
func (c *chooser) choose(s *set, now time.Duration) int {
	if len(s.nodes) == 1 {
		return 0
	}
	switch c.kind {
	case roundRobin:
		return c.nextTurn(s, now)
	case leastRequest:
		return c.leastOf(s, now)
	case leastLatency:
		return c.fastestOf(s, now)
	case prequal:
		return s.fleet.pool.choose(c, s, now)
	default:
		return c.draw(s, now)
	}
}

// unit returns a random number in [0, 1).
func (c *chooser) unit() float64 { return float64(c.rand()>>11) / (1 << 53) }

// below scales 32 random bits to [0, n) by one multiplication. Its bias is at most
// n/2^32.
func below(bits uint32, n int) int { return int(uint64(bits) * uint64(n) >> 32) }

// draw returns a random index, by weight.
func (c *chooser) draw(s *set, now time.Duration) int {
	return c.thin(s, now, s.drawn(c.rand()))
}

// drawn is the index that random bits draw, by weight.
func (s *set) drawn(bits uint64) int {
	if s.alias != nil {
		return s.alias.draw(bits)
	}
	return below(uint32(bits>>32), len(s.nodes))
}

// thinTries bounds the draws for one pick while backends are warming. That the last
// one is taken whatever it is adds at most a 10th, to the power of that, to the share
// of those that are at their coldest.
const thinTries = 16

// thin takes an index that was drawn with the probability that its warmth says, and
// otherwise draws again, or takes the next turn.
func (c *chooser) thin(s *set, now time.Duration, i int) int {
	if s.warming == nil {
		return i // the usual case, on its own so that it is inlined
	}
	return c.thinWarming(s, now, i)
}

func (c *chooser) thinWarming(s *set, now time.Duration, i int) int {
	for range thinTries {
		if w := s.warmth(i, now); w >= 1 || c.unit() < w {
			break
		}
		if c.kind == roundRobin {
			i = c.turnOf(s)
		} else {
			i = s.drawn(c.rand())
		}
	}
	return i
}

// blindness estimates the part of the picks that could not tell their candidates
// apart, from a 64th of them. To count all would cost an idle service, where every
// pick is blind, a contended addition for each.
type blindness struct{ sampled, blind atomic.Uint64 }

// sampled reports whether a pick is one of those. The bits that say so are among those
// which hardly matter to the draw.
func sampled(bits uint64) bool { return bits%64 == 0 }

// see takes a pick into account that is sampled.
func (b *blindness) see(blind bool) {
	b.sampled.Add(1)
	if blind {
		b.blind.Add(1)
	}
}
