package main

import (
	"iter"
	"sync/atomic"
)

// Switches turn the patterns on and off while the service runs. A service of your
// own needs none of them.
type Switches struct {
	Balance, Coalesce, Shard, Outbox, RateLimit atomic.Bool

	// Slow is not a pattern: it makes one replica slow.
	Slow atomic.Bool
}

// NewSwitches returns switches that are all on.
func NewSwitches() *Switches {
	s := &Switches{}
	for _, b := range s.all() {
		b.Store(true)
	}
	return s
}

// all yields the switches by the names that the page uses.
func (s *Switches) all() iter.Seq2[string, *atomic.Bool] {
	return func(yield func(string, *atomic.Bool) bool) {
		_ = yield("coalesce", &s.Coalesce) && yield("shard", &s.Shard) && yield("outbox", &s.Outbox) &&
			yield("ratelimit", &s.RateLimit) && yield("balance", &s.Balance) && yield("slow", &s.Slow)
	}
}

// set sets the switch with that name and reports whether there is one.
func (s *Switches) set(name string, on bool) bool {
	for n, b := range s.all() {
		if n == name {
			b.Store(on)
			return true
		}
	}
	return false
}
