package balance

import (
	"slices"
	"sync/atomic"
)

// node is what the balancer knows of one backend. It is shared by all snapshots
// that hold the backend, and by the picks of it.
//
// It fills a cache line, and the allocator aligns objects of that size to one, so
// that picks of different backends do not slow each other down.
type node struct {
	// counts holds the requests under way in its low bits and the number of picks
	// above them, so that a pick is one addition. First, since all picks touch it.
	counts atomic.Uint64

	latency  sample // seconds
	penalty  sample // requests
	reported sample // the load that the backend told of

	failures atomic.Int64
	streak   atomic.Int32 // failures since the last success
	_        [4]byte

	*record
	_ [8]byte
}

// A count of 16 million requests under way on one backend is out of reach: their
// goroutines alone would fill 32 GiB. The picks start again at 0 after 2^40.
const (
	inFlightBits = 24
	inFlightMask = 1<<inFlightBits - 1
	onePick      = 1<<inFlightBits | 1
)

func (n *node) begin()          { n.counts.Add(onePick) }
func (n *node) end()            { n.counts.Add(^uint64(0)) }
func (n *node) inFlight() int64 { return int64(n.counts.Load() & inFlightMask) }

// ended is the number of requests that have ended, unless the picks started again.
func (n *node) ended() int64 {
	counts := n.counts.Load()
	return int64(counts>>inFlightBits) - int64(counts&inFlightMask)
}

func (n *node) oneOf(ids []string) bool {
	return slices.Contains(ids, n.id)
}
