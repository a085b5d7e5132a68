package coalesce

// Stats tells what a [Group] has done since its first use. Joined divided by
// Executions is the number of calls saved for each that was made.
type Stats struct {
	// Executions is the number of flights that were started, those started again
	// for the living callers of a dead starter included.
	Executions int64

	// Joined is the number of callers that joined a flight.
	Joined int64

	// Abandoned is the number of flights whose callers had all left before the
	// work was done.
	Abandoned int64

	// Panics is the number of flights whose work panicked.
	Panics int64

	// InFlight is the number of flights whose work runs now. It counts abandoned
	// and forgotten flights too, which Flights does not show: a large difference
	// means work that does not obey its context.
	InFlight int64

	// LostPanic is the last panic that came when its flight had no caller left,
	// or nil.
	LostPanic *PanicError
}

// Stats returns a snapshot of the counters. Each lock is taken in turn, so the
// figures of different keys may be some nanoseconds apart.
func (g *Group[K, V]) Stats() Stats {
	var sum Stats
	t := g.table.Load()
	if t == nil {
		return sum
	}
	sum.LostPanic = t.lostPanic.Load()
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		sum.Executions += s.executions
		sum.Joined += s.joined
		sum.Abandoned += s.abandoned
		sum.Panics += s.panics
		sum.InFlight += s.executions - s.landed
		s.mu.Unlock()
	}
	return sum
}
