package balance

import (
	"math"
	"slices"
	"time"
)

// Load is how busy a backend says it is, in its answer to a request or to a probe.
type Load struct {
	// InFlight is the number of requests under way on the backend, from all clients.
	InFlight int64

	// Latency is what a request that arrives now is expected to take, given the
	// requests under way. 0 means unknown. Only Prequal heeds it.
	Latency time.Duration

	// Utilization is the busy part of the backend's scarcest resource: 1 is a backend
	// that is just fully used. 0 means unknown.
	Utilization float64
}

// valid reports whether the numbers can be.
func (l Load) valid() bool {
	return l.InFlight >= 0 && l.Latency >= 0 && l.Utilization >= 0 && !math.IsInf(l.Utilization, 1)
}

// reportAge is for how long a report is heeded. A load that is older than some
// service times misleads; that it only breaks ties between two candidates bounds the
// harm.
const reportAge = 10 * time.Second

// report keeps what a backend says of its load.
func (f *fleet) report(n *node, l Load) {
	if !l.valid() {
		return
	}
	now := f.clock()
	load := l.Utilization
	if load == 0 {
		load = float64(l.InFlight)
	}
	// An idle backend has told of its load too, which a zero sample would not show.
	n.reported.word.Store(pack(max(load, math.SmallestNonzeroFloat32*(1<<10)), now))
	if f.pool != nil {
		f.pool.add(n, l, now)
	}
}

// told returns what a backend reported, if it did so lately.
func (n *node) told(now time.Duration) (load float64, ok bool) {
	load, age := unpack(n.reported.word.Load(), now)
	return load, load > 0 && age < reportAge
}

// reportsLess reports whether backends i and j both told of their load lately, and i
// of less.
func (s *set) reportsLess(i, j int) bool {
	a, b := s.nodes[i], s.nodes[j]
	if a.reported.word.Load() == 0 || b.reported.word.Load() == 0 {
		return false
	}
	now := s.fleet.clock()
	x, xOK := a.told(now)
	y, yOK := b.told(now)
	return xOK && yOK && x < y
}

// reportLeast returns some backends without those that lately told of more load than
// another of them did. It reorders them.
func (s *set) reportLeast(some []int) []int {
	if len(some) == 1 || !slices.ContainsFunc(some, func(i int) bool { return s.nodes[i].reported.word.Load() != 0 }) {
		return some
	}
	now, least := s.fleet.clock(), math.Inf(1)
	for _, i := range some {
		if load, ok := s.nodes[i].told(now); ok {
			least = min(least, load)
		}
	}
	n := 0
	for _, i := range some {
		if load, ok := s.nodes[i].told(now); !ok || load <= least {
			some[n] = i
			n++
		}
	}
	if n == 0 {
		return some // they told of more in between
	}
	return some[:n]
}
