package httpcoalesce

import "sync/atomic"

// Stats are counts since the Handler was made. Requests minus Executions is what
// collapsing has saved.
type Stats struct {
	// Requests is how many requests came.
	Requests uint64
	// Executions is how often the wrapped handler was called, for a flight or for
	// one request alone.
	Executions uint64
	// Joined is how often a request joined a flight that another one had started.
	Joined uint64
	// Passed is how many requests ran alone without waiting: they could not be
	// collapsed, or their key was remembered for such responses.
	Passed uint64
	// Released is how many requests waited for a response that could not be shared,
	// and then ran alone. If it is a large part of Joined, requests are collapsed
	// that should not be.
	Released uint64
	// Diverted is how often a request waited for a response that turned out to vary
	// on a field in which the request differs, and then went on to its own variant.
	// Name such fields in KeyHeaders.
	Diverted uint64
	// Slow is how many clients were cut off because they were more than MaxBuffer
	// behind.
	Slow uint64
	// Abandoned is how many executions were cancelled because the last client had
	// left.
	Abandoned uint64
	// Aborted is how many flights ended in a panic, runtime.Goexit or a body shorter
	// than its Content-Length.
	Aborted uint64
	// InFlight is how many flights there are now.
	InFlight int64
}

type counters struct {
	requests, executions, joined, passed, released, diverted, slow, abandoned, aborted atomic.Uint64

	inFlight atomic.Int64
}

// Stats returns the counts. They are read one after the other, so that while
// requests are served they need not add up.
func (h *Handler) Stats() Stats {
	return Stats{
		Requests:   h.count.requests.Load(),
		Executions: h.count.executions.Load(),
		Joined:     h.count.joined.Load(),
		Passed:     h.count.passed.Load(),
		Released:   h.count.released.Load(),
		Diverted:   h.count.diverted.Load(),
		Slow:       h.count.slow.Load(),
		Abandoned:  h.count.abandoned.Load(),
		Aborted:    h.count.aborted.Load(),
		InFlight:   h.count.inFlight.Load(),
	}
}
