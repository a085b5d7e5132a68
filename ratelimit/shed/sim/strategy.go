package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// Strategy is what protects the server, in the order in which an attempt meets it: the
// client's budget of retries, the client's Throttle, then the server's Shedder, and a
// gate, which is Concurrency or Adaptive. What is nil is not there. Run changes nothing
// that is pointed to.
type Strategy struct {
	// Name is how benchmarks and tables call it.
	Name string

	// Budget is the number of retries relative to that of requests that all clients
	// together may send in the long run, as in Finagle's RetryBudget. Zero means that
	// there is no budget: every request may be tried again.
	Budget float64

	// Throttle is in the clients, which share one. What it rejects is not tried again. The
	// simulator sets Rand.
	Throttle *shed.ThrottleOptions

	// Shedder is in front of the gate. The simulator sets Seed and Rand, and Utilization
	// unless the caller has: to the Signal.
	Shedder *shed.ShedderOptions

	// Signal is what the Shedder goes by.
	Signal Signal

	// Concurrency is a gate with a fixed limit.
	Concurrency *shed.ConcurrencyOptions

	// Adaptive is a gate with a learnt limit.
	Adaptive *shed.AdaptiveOptions

	// Blind makes the gate a naive one: it has no classes, and does not notice that the
	// client of a request in its queue has gone.
	Blind bool
}

// Signal is a utilization that a Shedder can go by, as a mean since it measured last.
type Signal uint8

const (
	// Busy is the share of the workers that are busy. It is never above 1, as the load of
	// processors.
	Busy Signal = iota

	// InProgress is the number of requests in progress and in the gate's queue, relative
	// to the workers.
	InProgress

	// Demand is Busy, times the number of attempts that came to the gate relative to
	// those that it let in. It is above 1 while the gate refuses.
	Demand
)

// String returns "busy", "in-progress" or "demand".
func (s Signal) String() string { return [...]string{"busy", "in-progress", "demand"}[min(s, Demand)] }

func (s *Strategy) validate() error {
	if !(s.Budget >= 0 && s.Budget <= most) {
		return fmt.Errorf("sim: Strategy.Budget is %v, expected 0 to %d", s.Budget, most)
	}
	if s.Signal > Demand {
		return fmt.Errorf("sim: Strategy.Signal is %d, expected Busy, InProgress or Demand", s.Signal)
	}
	if s.Concurrency != nil && s.Adaptive != nil {
		return errors.New("sim: Strategy.Concurrency and Strategy.Adaptive are set, expected one of them")
	}
	return nil
}

// Strategies returns those of the benchmarks, for a server with so many workers: nothing
// ("none"), a fixed limit of the workers with a long queue ("fifo"), without a queue
// ("fixed") and with shed's ("codel"), learnt limits without and with it, a Shedder alone
// and in front of a gate, a Throttle, and what is recommended.
//
// Options are shed's defaults wherever it has one, with two exceptions. Queues have four
// places for each worker. And the Shedder of recommended goes by Demand, with bounds around
// 1, since what a gate lets in is no reason to shed, and restores a class in 40 seconds.
func Strategies(workers int) []Strategy {
	queue := shed.Queue{Max: 4 * workers}
	endless := shed.Queue{Max: most, Target: farAway, Interval: farAway}
	fixed := func(q shed.Queue) *shed.ConcurrencyOptions { return &shed.ConcurrencyOptions{Limit: workers, Queue: q} }
	learnt := func(a shed.Algorithm, q shed.Queue, reserve float64) *shed.AdaptiveOptions {
		return &shed.AdaptiveOptions{Algorithm: a, Queue: q, Reserve: reserve}
	}
	defaults := func() *shed.ShedderOptions { return &shed.ShedderOptions{} }
	demand := func() *shed.ShedderOptions {
		return &shed.ShedderOptions{High: 1.1, Low: 0.95, RestoreOver: 40 * time.Second}
	}
	return []Strategy{
		{Name: "none"},
		{Name: "fifo", Concurrency: fixed(endless), Blind: true},
		{Name: "fixed", Concurrency: fixed(shed.Queue{})},
		{Name: "codel", Concurrency: fixed(queue)},
		{Name: "gradient2", Adaptive: learnt(shed.Gradient2, shed.Queue{}, 0)},
		{Name: "gradient2-codel", Adaptive: learnt(shed.Gradient2, queue, 0)},
		{Name: "vegas", Adaptive: learnt(shed.Vegas, shed.Queue{}, 0)},
		{Name: "vegas-codel", Adaptive: learnt(shed.Vegas, queue, 0)},
		{Name: "shedder", Shedder: defaults(), Signal: InProgress},
		{Name: "shedder-vegas-codel", Shedder: defaults(), Adaptive: learnt(shed.Vegas, queue, 0.1)},
		{Name: "throttle-vegas-codel", Throttle: &shed.ThrottleOptions{}, Adaptive: learnt(shed.Vegas, queue, 0.1)},
		{Name: "recommended", Budget: 0.1, Shedder: demand(), Signal: Demand, Adaptive: learnt(shed.Vegas, queue, 0.1)},
	}
}
