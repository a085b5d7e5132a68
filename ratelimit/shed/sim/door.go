package sim

import (
	"cmp"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed/internal/gate"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed/internal/learn"
)

type (
	waiter = gate.Waiter[*attempt]
	chain  = gate.Chain[*attempt]
)

// door is a shed.Concurrency or shed.Adaptive on a virtual clock: the engines that these
// have, put together as they do it. What differs is who waits: they have a goroutine and
// a timer for each waiter, and the simulator an event.
type door struct {
	engine  *gate.Gate[*attempt]
	learner *learn.Learner // nil for a fixed limit
	blind   bool
}

// The defaults of shed.AdaptiveOptions. A test compares.
const (
	defaultInitial = 20
	defaultMin     = 1
	defaultMax     = 1000
)

// newDoor returns the gate of a strategy, nil if it has none. What is wrong with the
// options is for shed to say.
func newDoor(s *Strategy, seed uint64) (*door, error) {
	switch {
	case s.Concurrency != nil:
		if _, err := shed.NewConcurrency(*s.Concurrency); err != nil {
			return nil, err
		}
		return &door{engine: newEngine(s.Concurrency.Limit, s.Concurrency.Reserve, s.Concurrency.Queue), blind: s.Blind}, nil
	case s.Adaptive != nil:
		if _, err := shed.NewAdaptive(*s.Adaptive); err != nil {
			return nil, err
		}
		o := *s.Adaptive
		o.Min = cmp.Or(o.Min, defaultMin)
		o.Max = cmp.Or(o.Max, max(defaultMax, o.Min, o.Initial))
		o.Initial = cmp.Or(o.Initial, min(max(defaultInitial, o.Min), o.Max))
		return &door{
			engine: newEngine(o.Initial, o.Reserve, o.Queue),
			learner: learn.New(learn.Options{
				Algorithm: learn.Algorithm(o.Algorithm),
				Initial:   o.Initial,
				Min:       o.Min,
				Max:       o.Max,
				Reserve:   o.Reserve,
				Seed:      seed,
			}),
			blind: s.Blind,
		}, nil
	}
	return nil, nil
}

func newEngine(limit int, reserve float64, q shed.Queue) *gate.Gate[*attempt] {
	if q.Target == 0 {
		q.Target = shed.DefaultTarget
		if q.Interval > 0 {
			q.Target = min(q.Target, q.Interval)
		}
	}
	return gate.New[*attempt](gate.Options{
		Limit:    limit,
		Reserve:  reserve,
		Max:      q.Max,
		Target:   q.Target,
		Interval: cmp.Or(q.Interval, max(shed.DefaultInterval, q.Target)),
	})
}

// arrive lets an attempt in, queues it or refuses it: see the state of its waiter. The
// chain is of others that had to go.
func (d *door) arrive(now time.Duration, a *attempt) chain {
	class := a.class
	if d.blind {
		class = 0
	}
	return d.engine.Arrive(now, class, &a.waiter)
}

// leave ends an attempt that was in progress. Whether its client has gone is not known
// here: the server has done the work to its end, so it is a success to learn from.
func (d *door) leave(now time.Duration, a *attempt) (limit, next chain) {
	if d.learner != nil && d.learner.Sample(now, now-a.started, d.engine.InFlight(), learn.Success) {
		limit = d.engine.SetLimit(now, d.learner.Limit())
	}
	return limit, d.engine.Leave(now)
}
