package coalesce

import (
	"iter"
	"time"
)

// A Flight describes a flight that is under way.
type Flight struct {
	// Age is the time since the work was started. For work that its caller runs
	// inline, without a Timeout, it is the time since somebody first joined it or
	// Flights first saw it: reading the clock would be a quarter of its cost. For
	// a flight that has not begun, because of Exclusive, it is the time since its
	// first caller came.
	Age time.Duration

	// Waiters is the number of callers that wait for it now.
	Waiters int
}

// Flights iterates over the flights that can be joined, in no order. Abandoned
// and forgotten flights are not among them; with KeepRunning, abandoned ones are,
// with 0 Waiters.
//
// It is a snapshot in parts: the flights of one shard of the table are copied
// under its lock and then yielded without it, so the loop may use the Group. A
// flight that lasts as long as the loop is yielded exactly once; one that
// begins or ends meanwhile, at most once. It is meant for a debug page.
func (g *Group[K, V]) Flights() iter.Seq2[K, Flight] {
	type entry struct {
		key    K
		flight Flight
	}
	return func(yield func(K, Flight) bool) {
		t := g.table.Load()
		if t == nil {
			return
		}
		var part []entry
		for i := range t.shards {
			s := &t.shards[i]
			part = part[:0]
			s.mu.Lock()
			for _, c := range s.buckets {
				for ; c != nil; c = c.next {
					f := c
					if c.closed {
						if c.successor == nil {
							continue
						}
						f = c.successor.call
					}
					f.stamp()
					part = append(part, entry{c.key, Flight{Age: time.Since(t.epoch) - f.start, Waiters: int(f.waiters)}})
				}
			}
			s.mu.Unlock()
			for _, e := range part {
				if !yield(e.key, e.flight) {
					return
				}
			}
		}
	}
}
