package balance

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"
)

// Pick is one decision of a [Balancer] and the token that ends it. End every pick
// with Done, once the request that it was for has ended: until then it counts as
// under way.
//
// A Pick is a small value. It may be passed on, but must be ended through one
// variable: copies do not know of each other. Different picks may be used
// concurrently; one pick may not.
type Pick[T any] struct {
	// Value is the Value of the chosen backend.
	Value T

	node *node
	open bool // until it is done
}

// Done ends the request with its outcome. A nil error is a success. An error counts
// as a failure of the backend, unless it is a [context.Canceled]: then the caller
// went away, which says nothing of the backend. Later calls on the same variable do
// nothing, as does Done on the zero Pick. It costs one atomic addition, and another
// for a failure.
func (p *Pick[T]) Done(err error) {
	if !p.open {
		return
	}
	p.open = false
	n := p.node
	if err != nil && !errors.Is(err, context.Canceled) {
		n.failures.Add(1)
	}
	n.end()
}

// Observe tells the latency of the request when it is known before its end: the time
// to the first byte. Done then does not measure it. A latency of 0 or less means that
// there is nothing to learn, as from a stream.
func (p *Pick[T]) Observe(latency time.Duration) {}

// Report tells what the backend says of its load.
func (p *Pick[T]) Report(l Load) {}

// ID returns the ID of the chosen backend, for [Balancer.PickExcept], also after
// Done. That of the zero Pick is empty.
func (p *Pick[T]) ID() string {
	if p.node == nil {
		return ""
	}
	return p.node.id
}

// node is what the balancer knows of one backend. It is shared by all snapshots
// that hold the backend, and by the picks of it.
//
// It fills a cache line, and the allocator aligns objects of that size to one, so
// that picks of different backends do not slow each other down.
type node struct {
	// counts holds the requests under way in its low bits and the number of picks
	// above them, so that a pick is one addition. First, since all picks touch it.
	counts   atomic.Uint64
	failures atomic.Int64
	id       string // immutable
	_        [32]byte
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

func (n *node) oneOf(ids []string) bool {
	return slices.Contains(ids, n.id)
}
