package balance

import (
	"fmt"
	"time"
)

// LatencyOptions are the knobs of [LeastLatency].
type LatencyOptions struct {
	// Decay is the time in which what was learnt of a backend's latency fades to a
	// third (1/e), unless it is learnt anew. It should be some hundred times the
	// latency: many clients ask one backend seldom. 0 means 10 seconds, as in Finagle.
	Decay time.Duration
}

const defaultDecay = 10 * time.Second

// LeastLatency returns the strategy that draws two backends at random, by weight, and
// picks the one on which a request is expected to end first: by its average latency,
// times the requests under way there and this one. It is for backends that are not
// equally fast, and for clients that each have few requests under way, since a latency
// is remembered where a count is not. Up to four backends it compares all, and takes
// any of those that are within a twentieth.
//
// The average is much like Finagle's peak EWMA: a latency above it replaces it at once,
// though by no more than half, and one below it weighs the more, the longer nothing was
// heard. What was learnt fades toward the mean of all backends, and a backend of which
// nothing is known is expected to be like that mean, so that a slow one is tried again
// without looking like the fastest. Requests that failed or were broken off are heeded
// only if they took longer than expected.
//
// It costs two looks at the clock more than [LeastRequest], and some arithmetic; every
// 64th of Decay at most, one end of a request costs O(n), to take the mean.
func LeastLatency(o LatencyOptions) Strategy { return latencyStrategy{o} }

type latencyStrategy struct{ options LatencyOptions }

func (s latencyStrategy) configure(c *chooser, f *fleet) error {
	if s.options.Decay < 0 {
		return fmt.Errorf("balance: LatencyOptions.Decay is %v, expected 0 (for the default) or more", s.options.Decay)
	}
	c.kind = leastLatency
	if s.options.Decay > 0 {
		f.decay = s.options.Decay
	}
	return nil
}

// fastestOf returns the backend of some that is expected to answer first; there are
// at least two.
func (c *chooser) fastestOf(s *set, now time.Duration) int {
	bits := c.rand()
	var i, j int
	switch n := len(s.nodes); {
	case n <= fullScan:
		return c.fastestOfAll(s, now, bits)
	case s.alias != nil || s.warming != nil:
		i = c.thin(s, now, s.drawn(bits))
		j = c.another(s, now, i)
	default:
		i, j = pair(bits, n)
	}
	mean := s.fleet.meanLatency()
	x, xBlind := s.cost(i, mean, now)
	y, yBlind := s.cost(j, mean, now)
	if sampled(bits) {
		c.blind.see(xBlind && yBlind)
	}
	if y < x {
		return j
	}
	return i
}

// alike is the part of a cost below which another is less, where all are compared. Those
// that are closer are as good: what chance makes of them should not send everybody to the
// same one. Of two that are drawn, chance has already had its say, and what is left of a
// latency that has nearly faded still tells the slow from the fast.
const alike = 0.95

// fastestOfAll compares all backends of a small set. It begins anywhere, since the
// first one wins a tie.
func (c *chooser) fastestOfAll(s *set, now time.Duration, bits uint64) int {
	n := len(s.nodes)
	first := c.thin(s, now, s.drawn(bits))
	best := first
	mean := s.fleet.meanLatency()
	least, blind := s.cost(first, mean, now)
	for k := 1; k < n; k++ {
		i := (first + k) % n
		cost, b := s.cost(i, mean, now)
		blind = blind && b
		if cost < alike*least {
			least, best = cost, i
		}
	}
	if sampled(bits) {
		c.blind.see(blind)
	}
	return best
}

// cost is the time until a request would end on a backend, were they served one
// after the other. It is blind if nothing is known of the backend: no request is
// under way there, and none has ended lately.
func (s *set) cost(i int, mean float64, now time.Duration) (cost float64, blind bool) {
	n := s.nodes[i]
	seconds, age, known := s.fleet.expected(n, mean, now)
	load := s.load(i, now)
	if seconds == 0 {
		seconds = 1 // nothing is known of any, so that all are alike
	}
	return seconds * (load + 1), load == 0 && (!known || age > s.fleet.decay)
}
