package shed

import "math"

// Counts are numbers of requests by class, [Background] first.
type Counts [classes]uint64

// Of returns the number for a class.
func (c Counts) Of(class Class) uint64 { return c[class.index()] }

// Total returns the sum over all classes.
func (c Counts) Total() uint64 {
	var sum uint64
	for _, n := range c {
		sum += n
	}
	return sum
}

// ShedderStats says how a [Shedder] is doing.
type ShedderStats struct {
	// Level is how much is shed at present.
	Level Level

	// Utilization is what was measured last, NaN before the first measurement.
	Utilization float64

	// Admitted and Shed count the decisions since the beginning.
	Admitted, Shed Counts
}

// Stats returns a snapshot. The numbers are read one after the other while
// others go on: they may not be of the same moment. It costs some atomic loads.
func (s *Shedder) Stats() ShedderStats {
	stats := ShedderStats{
		Level:       s.verdict.Load().level.public(),
		Utilization: math.Float64frombits(s.utilization.Load()),
	}
	for i := range s.counters {
		stats.Admitted[i] = s.counters[i].admitted.Load()
		stats.Shed[i] = s.counters[i].shed.Load()
	}
	return stats
}
