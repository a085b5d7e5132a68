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
	// Warming backends are new, or back from an ejection, and get a growing part of
	// their share.
	Warming
	// Ejected backends get nothing, until their time is over.
	Ejected
)

// Stats says how one backend fares.
type Stats struct {
	// InFlight is the number of picks that are not done.
	InFlight int64

	// Picks is the number of picks since the backend joined. It starts again at 0
	// after 2^40, a million a second for twelve days.
	Picks int64

	// Failures is the number of picks that were done with an error, other than
	// [context.Canceled].
	Failures int64

	// Share is the part of all picks that this backend got, from 0 to 1, among the
	// backends of the set and since each joined.
	Share float64

	// Latency is what is known of the backend's latency. 0 means nothing.
	Latency time.Duration

	// State says whether the backend is picked.
	State State
}

// Blind returns the part of the picks, from 0 to 1, in which all candidates looked
// the same because nothing was known of their load.
func (b *Balancer[T]) Blind() float64 { return 0 }

// Stats yields the backends of the current set, in the order of
// [Balancer.Update], with what is known of each. The set is a snapshot; the numbers
// are read one after the other while picks go on. It costs O(n) and does not slow
// picks down.
func (b *Balancer[T]) Stats() iter.Seq2[Backend[T], Stats] {
	return func(yield func(Backend[T], Stats) bool) {
		s := b.current.Load()
		if s == nil {
			return
		}
		stats := make([]Stats, len(s.nodes))
		var all int64
		for i, n := range s.nodes {
			counts := n.counts.Load()
			stats[i] = Stats{
				InFlight: int64(counts & inFlightMask),
				Picks:    int64(counts >> inFlightBits),
				Failures: n.failures.Load(),
			}
			all += stats[i].Picks
		}
		for i, backend := range s.backends {
			if all > 0 {
				stats[i].Share = float64(stats[i].Picks) / float64(all)
			}
			if !yield(backend, stats[i]) {
				return
			}
		}
	}
}
