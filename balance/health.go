package balance

import "time"

// Health says how a [Balancer] treats backends that fail, and new ones. The zero
// value is right for most services. In every field 0 means the default and a
// negative value switches that part off.
type Health struct {
	// Penalty is the time that a failure costs: it counts as a request under way that
	// takes about so long, whatever it really took. So a backend that fails at once
	// looks slow, not fast. 0 means a second.
	Penalty time.Duration

	// Consecutive is the number of failures in a row that ejects a backend. 0 means 5.
	Consecutive int

	// SuccessRate ejects a backend whose part of requests that succeed falls below it,
	// counted over Interval and only if there were at least Volume. 0 means 0.8.
	SuccessRate float64
	Interval    time.Duration // 0 means 10 seconds
	Volume      int           // 0 means 100

	// MaxEjected is the greatest part of the backends that may be ejected at a time,
	// but one always may. 0 means 0.1.
	MaxEjected float64

	// Keep is the number of backends that are never ejected, the last ones. 0 means 1.
	Keep int

	// BaseEjection is for how long a backend is ejected the first time. Each further
	// time is longer by as much, up to MaxEjection, and each such time that it stays
	// healthy makes it shorter again. 0 means 30 seconds and 5 minutes.
	BaseEjection, MaxEjection time.Duration

	// Panic is the part of the backends that must be left. If fewer are, ejections are
	// disregarded and all backends are picked from. 0 means 0.5.
	Panic float64

	// SlowStart is the time over which a backend that joins, or returns from an
	// ejection, gets from a tenth of its share to all of it. 0 means 10 seconds.
	SlowStart time.Duration
}
