package ratelimit

// Stats says how a [Keyed] is doing. Live well below Capacity/2 and few Inherited
// mean that its capacity is large enough.
type Stats struct {
	// Capacity is the number of slots, at least twice KeyedOptions.Capacity.
	Capacity int

	// Resident is the number of slots that hold a key. It never falls.
	Resident int

	// Live is the number of slots whose key has not its full burst: those that
	// carry information.
	Live int

	// Allowed and Denied count decisions.
	Allowed, Denied uint64

	// Inherited counts the decisions for a key that had no slot and found its set
	// full of live ones: it was treated as owing what the least of them owes.
	Inherited uint64
}

// stats counts set by set.
func (t *table) stats(ns int64) Stats {
	st := Stats{Capacity: len(t.sets) * ways}
	for i := range t.sets {
		s := &t.sets[i]
		s.mu.Lock()
		now := t.clamp(ns - t.base)
		for way, tag := range s.tags {
			if tag == 0 {
				continue
			}
			st.Resident++
			if s.word[way] > now {
				st.Live++
			}
		}
		st.Allowed += uint64(s.allowed)
		st.Denied += uint64(s.denied)
		st.Inherited += uint64(s.inherited)
		s.mu.Unlock()
	}
	st.Allowed += t.allowed.Load()
	st.Denied += t.denied.Load()
	st.Inherited += t.inherited.Load()
	return st
}
