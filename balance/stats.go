package balance

import (
	"iter"
	"time"
)

// State says whether a backend is picked.
type State uint8

const (
	// Healthy backends get their share.
	Healthy State = iota

	// Warming backends joined lately, or are back from an ejection, and get a growing
	// part of their share.
	Warming

	// Ejected backends get nothing until their time is over, unless too few others are
	// left.
	Ejected
)

// String returns "healthy", "warming" or "ejected".
func (s State) String() string {
	switch s {
	case Healthy:
		return "healthy"
	case Warming:
		return "warming"
	default:
		return "ejected"
	}
}

// Stats says how one backend fares.
type Stats struct {
	// InFlight is the number of picks that are not done.
	InFlight int64

	// Picks is the number of picks since the backend joined. It starts again at 0
	// after 2^40, a million a second for twelve days.
	Picks int64

	// Failures is the number of picks that were done with an error that is a
	// [Failure].
	Failures int64

	// Share is the part of all picks that this backend got, from 0 to 1, among the
	// backends of the set and since each joined.
	Share float64

	// Latency is the average that was learnt last, as a peak EWMA. It is 0 if nothing
	// was: only LeastLatency and Prequal measure it, and [Pick.Observe] tells it.
	Latency time.Duration

	// State says whether the backend is picked.
	State State
}

// Stats yields the backends of the current set, in the order of
// [Balancer.Update], with what is known of each. The set is a snapshot; the numbers
// are read one after the other while picks go on. It costs O(n) and does not slow
// picks down.
func (b *Balancer[T]) Stats() iter.Seq2[Backend[T], Stats] {
	return func(yield func(Backend[T], Stats) bool) {
		m, stats := b.stats()
		var all int64
		for i := range stats {
			all += stats[i].Picks
		}
		for i := range stats {
			if all > 0 {
				stats[i].Share = float64(stats[i].Picks) / float64(all)
			}
			if !yield(m.backends[i], stats[i]) {
				return
			}
		}
	}
}

func (b *Balancer[T]) stats() (*members[T], []Stats) {
	f := &b.fleet
	if b.all.Load() == nil {
		return nil, nil // the zero Balancer
	}
	f.mu.Lock()
	defer f.unlock()
	now := f.clock()
	if int64(now) >= f.due.Load() {
		f.refresh(now, false)
	}
	m := b.all.Load()
	stats := make([]Stats, len(m.nodes))
	for i, n := range m.nodes {
		counts := n.counts.Load()
		latency, _ := unpack(n.latency.word.Load(), now)
		stats[i] = Stats{
			InFlight: int64(counts & inFlightMask),
			Picks:    int64(counts >> inFlightBits),
			Failures: n.failures.Load(),
			Latency:  duration(latency),
		}
		// By the time: what is due is done only for those in this client's subset.
		switch {
		case n.ejected > now:
			stats[i].State = Ejected
		case n.warming && now-n.warmFrom < f.health.SlowStart:
			stats[i].State = Warming
		}
	}
	return m, stats
}

// Blind returns the part of the picks, from 0 to 1, that could not tell their
// candidates apart: none had a request under way and, with LeastLatency and Prequal, of
// none was a latency known that is younger than Decay, nor were there enough probes.
// Such picks are random ones. If they are many because the service is idle,
// that is as it should be. If the backends are busy, there are too many clients for
// each to see any load: use a [Subset], LeastLatency or Prequal.
//
// It is an estimate from a 64th of the picks. It is 1 with Random and RoundRobin,
// which are always blind, and 0 while there is no sample.
func (b *Balancer[T]) Blind() float64 {
	if b.chooser.kind == random || b.chooser.kind == roundRobin {
		return 1
	}
	sampled := b.chooser.blind.sampled.Load()
	if sampled == 0 {
		return 0
	}
	return min(1, float64(b.chooser.blind.blind.Load())/float64(sampled))
}
