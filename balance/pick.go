package balance

import "time"

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

	node  *node
	state pickState
}

// pickState is whether a pick is open, whether it is timed, and if so, above these
// bits, since when. In one word, because the compiler keeps no more than four in
// registers, and Value may be two of them.
type pickState int64

const (
	open      pickState = 1 << iota // until it is done
	timed                           // until its latency is known
	stateBits = 2
)

func timedFrom(start time.Duration) pickState { return pickState(start)<<stateBits | timed | open }

func (s pickState) start() time.Duration { return time.Duration(s >> stateBits) }

// Done ends the request with its outcome, which [Options].Classify judges: by
// default a nil error is a success, a [context.Canceled] is ignored, since then the
// caller went away, and any other error is a failure of the backend. Later calls on
// the same variable do nothing, as does Done on the zero Pick.
//
// With an error that has a method RetryAfter() time.Duration in its chain, the
// backend asks to be left alone for that long. It is, as if ejected, within the
// bounds of [Health].
//
// A success costs one atomic addition, and with LeastLatency and Prequal a look at the
// clock and one more atomic operation. A failure costs about three times that.
func (p *Pick[T]) Done(err error) {
	n, state := p.node, p.state
	p.state = 0
	if err == nil && state == open && n.streak.Load() == 0 {
		n.end()
		return
	}
	if state&open != 0 {
		// Afterwards, so that whoever sees that nothing is under way sees the outcomes too;
		// deferred, since a Classify or OnChange that panics must leave nothing under way.
		defer n.end()
		n.fleet.settle(n, state, err)
	}
}

// Observe tells the latency of the request when it is known before its end, as the
// time to the first byte of an answer is. Done then does not measure it. A latency
// of 0 or less means that there is nothing to learn: a stream lasts as long as it
// lasts. Observe works with every strategy, though only LeastLatency and Prequal
// heed it, and does nothing after Done.
func (p *Pick[T]) Observe(latency time.Duration) {
	if p.state&open == 0 {
		return
	}
	p.state = open
	if latency > 0 {
		f := p.node.fleet
		f.learn(p.node, latency, f.clock())
	}
}

// Report passes on what the backend says of its load, in its answer. LeastRequest
// prefers the backend that reports less of two that are equally busy by its own
// count, as long as the reports are younger than ten seconds; Prequal treats it as
// the answer to a probe; to the others it means nothing. It may be called before and
// after Done. Numbers that are negative or not finite are disregarded.
func (p *Pick[T]) Report(l Load) {
	if p.node != nil {
		p.node.fleet.report(p.node, l)
	}
}

// ID returns the ID of the chosen backend, for [Balancer.PickExcept], also after
// Done. That of the zero Pick is empty.
func (p *Pick[T]) ID() string {
	if p.node == nil {
		return ""
	}
	return p.node.id
}
