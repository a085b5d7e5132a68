package balance

import (
	"slices"
	"time"
)

// snapshot is what picks are made from: the backends that are eligible, with all
// that can be decided beforehand. It is immutable; the nodes that it points to are
// not, and outlive it.
type snapshot[T any] struct {
	set
	backends []Backend[T]
}

// set is the part of a snapshot that choosing reads. It is not generic, so that
// the code that chooses exists once and needs no dictionary.
type set struct {
	nodes []*node
	fleet *fleet

	// plain is set if LeastRequest compares two of equal weight, which is the usual
	// case.
	plain bool

	// What follows is nil if all weights are equal.
	inverse  []float64 // 1/weight, the heaviest being 1
	alias    *alias    // draws by weight; not for RoundRobin
	schedule []uint32  // turns by weight; for RoundRobin

	// warming is nil if no backend is. Otherwise it holds when each began, or warm.
	warming []time.Duration
	// eldest is when the first of them began, if all are warming, or warm.
	eldest time.Duration
}

const warm time.Duration = -1

// leastWeight is the least weight relative to the heaviest; a smaller one counts as
// this, so that its inverse is a finite number.
const leastWeight = 1e-12

// weigh prepares choosing by weight, if the weights differ. It scales them.
func (s *set) weigh(weights []float64, k kind) {
	if !slices.ContainsFunc(weights, func(w float64) bool { return w != weights[0] }) {
		return
	}
	relative(weights)
	s.inverse = make([]float64, len(weights))
	for i, w := range weights {
		s.inverse[i] = 1 / w
	}
	if k == roundRobin {
		s.schedule = newSchedule(weights)
	} else {
		s.alias = newAlias(weights)
	}
}

// relative divides weights by the heaviest.
func relative(weights []float64) {
	heaviest := 0.0
	for _, w := range weights {
		heaviest = max(heaviest, w)
	}
	for i := range weights {
		weights[i] = max(weights[i]/heaviest, leastWeight)
	}
}

// warm prepares choosing while backends are warming.
func (s *set) warm() {
	s.eldest = warm
	if !slices.ContainsFunc(s.nodes, func(n *node) bool { return n.warming }) {
		return
	}
	s.warming = make([]time.Duration, len(s.nodes))
	s.eldest = s.nodes[0].warmFrom
	for i, n := range s.nodes {
		s.warming[i] = warm
		if n.warming {
			s.warming[i] = n.warmFrom
		}
		s.eldest = min(s.eldest, s.warming[i])
	}
}

// calm stands for the time while no backend is penalised or warming and the strategy
// needs no time: then nothing reads a clock.
const calm time.Duration = -1

// load is the requests under way on a backend, and the penalties of those that
// failed, for each unit of the weight that it has at the time.
func (s *set) load(i int, now time.Duration) float64 {
	n := s.nodes[i]
	load := float64(n.inFlight())
	if now != calm {
		load += s.fleet.penaltyOf(n.penalty.word.Load(), now)
	}
	if s.inverse != nil {
		load *= s.inverse[i]
	}
	if s.warming != nil {
		load /= s.warmth(i, now)
	}
	return load
}

// weight is that of a backend at the time, the heaviest being 1.
func (s *set) weight(i int, now time.Duration) float64 {
	w := 1.0
	if s.inverse != nil {
		w /= s.inverse[i]
	}
	if s.warming != nil {
		w *= s.warmth(i, now)
	}
	return w
}

// warmth is the part of its share that a backend gets while it is warming. Where all
// are, it is relative to the one that is the warmest.
func (s *set) warmth(i int, now time.Duration) float64 {
	from := s.warming[i]
	if from == warm {
		return 1
	}
	w := s.fleet.health.warmth(from, now)
	if s.eldest != warm {
		w /= s.fleet.health.warmth(s.eldest, now)
	}
	return w
}
