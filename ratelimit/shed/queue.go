package shed

import (
	"fmt"
	"time"
)

const (
	// DefaultTarget is the time that a request may wait in a standing queue unless
	// Queue.Target says otherwise: the M of "Fail at Scale".
	DefaultTarget = 5 * time.Millisecond

	// DefaultInterval is how long a queue must not have been empty to be standing
	// unless Queue.Interval says otherwise: the N of "Fail at Scale".
	DefaultInterval = 100 * time.Millisecond
)

// Queue is the waiting room of a gate. The zero value is none: what does not fit is
// refused at once.
//
// A short queue takes up bursts. A long one that never empties makes every request
// late and none faster. So the queue keeps two times, as Facebook's controlled delay
// does (Maurer, "Fail at Scale", ACM Queue 2015). While the queue was empty at some
// moment of the last Interval, it is a burst: requests are served in the order of
// arrival, and may wait until the Interval is over. From then on the queue is standing:
// the newest request is served first, since its caller is the likeliest to be there
// still, and whoever has waited for the Target is refused. In both cases a request may
// wait for the Target. Those whose time is over are refused before any work is done.
//
// The defaults suit requests of up to some tens of milliseconds, behind a limit of some
// tens. Somebody has to leave within an Interval for a burst to be served at all: if the
// time of a request divided by the limit comes near it, make both longer.
//
// Higher classes are served first. For a class, the queue is standing if it and the
// classes above it were not empty for an Interval: a backlog of Background does not
// shorten the time of Critical, and no request is kept that came before a refused one
// of a higher class. When Max requests wait, a request of a higher class takes the place
// of the one that would be served last of the lowest class, which is refused as
// Outranked.
type Queue struct {
	// Max is how many requests may wait. Zero means no queue. A queue is bounded by
	// time already; Max bounds its memory, so some times the limit is a good value.
	Max int

	// Target is how long a request may wait in a standing queue. Zero means
	// DefaultTarget.
	Target time.Duration

	// Interval is how long a queue must not have been empty to be standing. It is
	// Target or more. Zero means DefaultInterval, or Target if that is longer.
	Interval time.Duration
}

// check returns the queue with its defaults, or an error that names the field.
func (q Queue) check(options string) (Queue, error) {
	const most = 10_000 * time.Hour // so that no sum of times overflows
	switch {
	case q.Max < 0:
		return q, fmt.Errorf("shed: %s.Queue.Max is %d, expected 0 or more", options, q.Max)
	case q.Target < 0 || q.Target > most:
		return q, fmt.Errorf("shed: %s.Queue.Target is %v, expected 0 to %v", options, q.Target, most)
	case q.Interval < 0 || q.Interval > most:
		return q, fmt.Errorf("shed: %s.Queue.Interval is %v, expected 0 to %v", options, q.Interval, most)
	}
	if q.Target == 0 {
		q.Target = DefaultTarget
		if q.Interval > 0 {
			q.Target = min(q.Target, q.Interval)
		}
	}
	if q.Interval == 0 {
		q.Interval = max(DefaultInterval, q.Target)
	}
	if q.Interval < q.Target {
		return q, fmt.Errorf("shed: %s.Queue.Interval is %v, expected the Target, %v, or more", options, q.Interval, q.Target)
	}
	return q, nil
}

// checkReserve returns an error that names the field.
func checkReserve(options string, reserve float64) error {
	if !(reserve >= 0 && reserve < 1) {
		return fmt.Errorf("shed: %s.Reserve is %v, expected 0 or more and below 1", options, reserve)
	}
	return nil
}
