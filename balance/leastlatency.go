package balance

import "time"

// LatencyOptions are the knobs of [LeastLatency].
type LatencyOptions struct {
	// Decay is the time in which what was learnt of a backend's latency fades, to about
	// a third. 0 means 10 seconds.
	Decay time.Duration
}

// LeastLatency returns the strategy that draws two backends at random and picks the
// one with the lower latency, times the requests under way there.
func LeastLatency(o LatencyOptions) Strategy { return latencyStrategy{o} }

type latencyStrategy struct{ options LatencyOptions }

func (s latencyStrategy) configure(c *chooser) error {
	c.kind, c.choices = leastRequest, defaultChoices // to be written
	return nil
}
