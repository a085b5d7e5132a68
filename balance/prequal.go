package balance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// Prober asks a backend for its load.
type Prober interface {
	// Probe asks the backend of an ID. The ID may be that of a backend which has just
	// left the set. An error counts against the backend, as a request would that failed.
	// It is called from several goroutines, and must return when ctx ends.
	Probe(ctx context.Context, id string) (Load, error)
}

// PrequalOptions are the knobs of [Prequal]. The zero value is right for most
// services.
type PrequalOptions struct {
	// Probes is the number of probes for each pick, which need not be whole. It should
	// be more than 1. 0 means 3, as in the paper.
	Probes float64

	// Pool is the number of probes that are kept, at least 2. 0 means 16, as in the
	// paper.
	Pool int

	// MaxAge is for how long a probe is heeded. It should be about as long as a request
	// takes: until then the backend's queue has changed. 0 means twice the average latency
	// of the backends, and a second while none is known.
	MaxAge time.Duration

	// Hot is the quantile of the requests in flight, over recent probes, above which a
	// backend is hot, from 0 to 1. 0 means 0.6: the paper's 0.84 was worse in all our
	// simulations, as in those of others. If it is negative, all are hot, and latency is
	// not heeded: better if the backends are equally fast, worse if not.
	Hot float64

	// Timeout is how long a probe may take. 0 means a second.
	Timeout time.Duration

	// Go runs a probe, sooner or later: one that it drops is under way for ever. Nil means
	// in a goroutine of its own.
	Go func(probe func())
}

// Prequal returns the strategy of Wydrowski, Kleinberg, Rumble and Archer (Load is not
// what you should balance: Introducing Prequal, NSDI 2024). It is for many clients,
// none of which sees enough of the load to choose by what it knows itself, and for
// backends that share their machines with others.
//
// Each pick sends a few probes to backends drawn at random, whose answers serve the
// picks after it: the requests in flight and the latency that is to be expected with
// so many. Of the probes in the pool, those are hot whose requests in flight are above
// a quantile of the recent ones. It picks the cold backend of the lowest latency, or
// if all are hot that of the fewest requests in flight. A pick makes the backend's
// probe count for one request more. Each pick removes one probe, by turns the oldest
// and the worst, and what has been used too often or is too old.
//
// That the latency is that at the present number of requests is essential: an average
// over the past sends everybody to the backend that was the fastest until they came.
//
// A backend that failed loses its probes, and each failure counts as a request in
// flight for some time (see [Health].Penalty), so that failing fast attracts nothing.
// While there are fewer than two probes it chooses like [LeastLatency].
//
// A pick takes the lock of the pool, for as long as looking at its probes takes. At
// most four times Pool probes are under way at a time; none begin unless there are
// picks. It returns an error from [New] if p is nil.
func Prequal(p Prober, o PrequalOptions) Strategy { return prequalStrategy{p, o} }

type prequalStrategy struct {
	prober  Prober
	options PrequalOptions
}

func (s prequalStrategy) configure(c *chooser, f *fleet) error {
	o := s.options
	switch {
	case s.prober == nil:
		return errors.New("balance: the Prober of Prequal is nil")
	case !(o.Probes >= 0) || math.IsInf(o.Probes, 1) || o.Probes > maxProbes:
		return fmt.Errorf("balance: PrequalOptions.Probes is %v, expected 0 (for 3) to %d", o.Probes, maxProbes)
	case o.Pool != 0 && (o.Pool < 2 || o.Pool > maxPool):
		return fmt.Errorf("balance: PrequalOptions.Pool is %d, expected 0 (for 16) or 2 to %d", o.Pool, maxPool)
	case o.MaxAge < 0:
		return fmt.Errorf("balance: PrequalOptions.MaxAge is %v, expected 0 (for the latency) or more", o.MaxAge)
	case !(o.Hot <= 1) || math.IsInf(o.Hot, -1):
		return fmt.Errorf("balance: PrequalOptions.Hot is %v, expected at most 1", o.Hot)
	case o.Timeout < 0:
		return fmt.Errorf("balance: PrequalOptions.Timeout is %v, expected 0 (for a second) or more", o.Timeout)
	}
	if o.Probes == 0 {
		o.Probes = 3
	}
	if o.Pool == 0 {
		o.Pool = 16
	}
	if o.Hot == 0 {
		o.Hot = 0.6
	}
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	if o.Go == nil {
		o.Go = func(probe func()) { go probe() }
	}
	c.kind = prequal
	f.pool = &pool{options: o, prober: s.prober, fleet: f}
	return nil
}

const (
	maxProbes = 16
	maxPool   = 64
)
