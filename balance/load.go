package balance

import "time"

// Load is how busy a backend says it is, in its answer to a request or to a probe.
type Load struct {
	// InFlight is the number of requests under way on the backend, from all clients.
	InFlight int64

	// Latency is what a request that arrives now is expected to take, given the
	// requests under way. 0 means unknown.
	Latency time.Duration

	// Utilization is the busy part of the backend's scarcest resource: 1 is a backend
	// that is just fully used. 0 means unknown.
	Utilization float64
}
