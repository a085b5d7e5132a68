package shed

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed/internal/learn"
)

// Algorithm is how an [Adaptive] follows the latency.
type Algorithm uint8

const (
	// Gradient2 lets latency rise to 1.5 times the baseline. It keeps a server busy whose
	// latencies vary, and comes to rest at about 1.5 times what the server works on at a
	// time. It is named after the algorithm of Netflix's concurrency-limits that has this
	// tolerance, and grows by the square root of the limit as that one's predecessor.
	Gradient2 Algorithm = iota

	// Vegas estimates the length of the server's queue, as TCP Vegas does (Brakmo and
	// Peterson, 1995), and keeps it between 3 and 6 times the decimal logarithm of the
	// limit, as Netflix's VegasLimit does; for small limits, below half of the limit. It
	// keeps large limits tighter than Gradient2, and is slower.
	Vegas
)

// String returns "gradient2" or "vegas".
func (a Algorithm) String() string {
	if a == Vegas {
		return "vegas"
	}
	return "gradient2"
}

// Adaptive is a [Concurrency] that finds its limit out by itself. What a server works
// on at a time cannot be measured, but what goes beyond that waits somewhere inside it, and
// so takes longer. Adaptive raises the limit while latencies stay near the baseline, the
// latency without a queue, and lowers it when they rise.
//
// The requests that end are gathered in windows of 50, or twice the limit if that is
// more, and at least 20 ms; each window moves the limit once, by its mean latency, as the
// [Algorithm] says. Means, because latencies differ by what is asked for, and the least of
// them says little. The limit does not rise while less than half of it, without the
// reserve, is in use. It falls by half the share of requests that end with [Drop], as in
// DCTCP (Alizadeh et al., 2010), so that a server on which everything times out is not taken
// for a constant one. The latency of those, and of requests that end with [Ignore], counts
// nowhere.
//
// The baseline cannot creep. If it were an average of what is seen, a limit that is a
// little too high would raise it, and it the limit, until nothing limits (concurrency-limits,
// issues 134 and 137). Here a window in which a limit above Min is in use never raises it.
// Instead, every 40 to 79 such windows, and soon after latencies have changed much, the
// limit is halved for about a window. If latencies are then what they were before, or not
// far below, nothing queues at half the limit, and the measurement is the new baseline, even
// if it is higher: the server has become slower, and is not overloaded. If they are halved,
// too, all that was taken away had been waiting: the limit stays halved, and is halved again.
// This costs one to four hundredths of the throughput, and requests are refused meanwhile
// that would otherwise be let in. A limit that is not in use is not probed.
//
// So under steady overload of a server that works on c requests at a time, the limit comes
// near c from wherever it was, and stays there: in thousands of simulated runs, with constant
// and exponential service times from 1 to 100 ms, to 1.6c with Gradient2 and 1.2c with Vegas in
// the median, and between 0.7c and 2.3c in the worst. It takes some tens of windows.
//
// It learns of what waits behind it, and of nothing before it. Handlers that only compute,
// and for less than the 10 ms after which Go lets the next goroutine run, end before another
// begins: the queue is then that of the scheduler, in front of Acquire, and the limit is
// never reached. That is what [Shedder] sees. A request that hangs keeps its place, and as
// many as the limit stop everything: give all of them a deadline.
//
// Acquire and Release take an uncontended lock and a reading of the monotonic clock each,
// and allocate nothing; nor do refusals, which read no clock where there is no Queue. A
// request that waits in the
// Queue costs what it costs in Concurrency; its wait is not part of its latency.
//
// Make one with [NewAdaptive] and do not copy it. Make one for each thing that can be
// overloaded: calls of two backends through one Adaptive teach it nothing about either.
// It counts time from its creation; under testing/synctest create it in the bubble that uses
// it.
//
// An Adaptive is safe for concurrent use by multiple goroutines.
type Adaptive struct {
	door    door
	learner *learn.Learner // guarded by door.mu
}

// AdaptiveOptions configure NewAdaptive. The zero value is ready to use.
type AdaptiveOptions struct {
	// Algorithm is how the limit follows the latency. Zero means Gradient2.
	Algorithm Algorithm

	// Initial is the limit at the start. Zero means 20, within Min and Max, as in failsafe-go
	// and concurrency-limits.
	Initial int

	// Min is the least limit. Zero means 1. A probe cannot go below it either, so it
	// must be no more than the server can bear at any time.
	Min int

	// Max is the greatest limit. Zero means 1000, or Min or Initial if they are greater.
	// Peers have 200, since their limits creep up to it; a server that can work on 256 at a
	// time then does 70 % of what it could (package sim).
	Max int

	// Reserve is the share of the limit that only Critical requests may use, as in
	// ConcurrencyOptions. Zero means none.
	Reserve float64

	// Queue is where requests wait that cannot start at once. Zero means nowhere.
	Queue Queue
}

func (o AdaptiveOptions) check() (AdaptiveOptions, error) {
	for _, field := range []struct {
		name  string
		value int
	}{{"Initial", o.Initial}, {"Min", o.Min}, {"Max", o.Max}} {
		if field.value < 0 {
			return o, fmt.Errorf("shed: AdaptiveOptions.%s is %d, expected 0 or more", field.name, field.value)
		}
	}
	if o.Algorithm > Vegas {
		return o, fmt.Errorf("shed: AdaptiveOptions.Algorithm is %d, expected Gradient2 or Vegas", o.Algorithm)
	}
	if o.Min == 0 {
		o.Min = 1
	}
	if o.Max == 0 {
		o.Max = max(1000, o.Min, o.Initial)
	}
	if o.Max < o.Min {
		return o, fmt.Errorf("shed: AdaptiveOptions.Max is %d, expected Min, %d, or more", o.Max, o.Min)
	}
	if o.Initial == 0 {
		o.Initial = min(max(20, o.Min), o.Max)
	}
	if o.Initial < o.Min || o.Initial > o.Max {
		return o, fmt.Errorf("shed: AdaptiveOptions.Initial is %d, expected Min to Max, %d to %d", o.Initial, o.Min, o.Max)
	}
	if err := checkReserve("AdaptiveOptions", o.Reserve); err != nil {
		return o, err
	}
	var err error
	o.Queue, err = o.Queue.check("AdaptiveOptions")
	return o, err
}

// NewAdaptive returns a gate. Returns an error that names the field that is out of
// range.
func NewAdaptive(o AdaptiveOptions) (*Adaptive, error) {
	o, err := o.check()
	if err != nil {
		return nil, err
	}
	a := &Adaptive{learner: learn.New(learn.Options{
		Algorithm: learn.Algorithm(o.Algorithm),
		Initial:   o.Initial,
		Min:       o.Min,
		Max:       o.Max,
		Reserve:   o.Reserve,
		Seed:      rand.Uint64(),
	})}
	a.door.init(o.Initial, o.Reserve, o.Queue)
	return a, nil
}

// Acquire lets a request in, at once or after a wait in the queue, and begins to
// measure its latency. It must be ended with [Permit.Release], whose outcome matters:
// see [Outcome]. Returns an [*Error] when the request is refused, and ctx.Err() when ctx
// ended before the request could start: its place then goes to the next one.
func (a *Adaptive) Acquire(ctx context.Context, class Class) (Permit, error) {
	if err := a.door.enter(ctx, class.index()); err != nil {
		return Permit{}, err
	}
	return Permit{gate: a, start: a.door.now()}, nil
}

// TryAcquire is Acquire for a request that does not wait.
func (a *Adaptive) TryAcquire(class Class) (Permit, error) {
	if err := a.door.tryEnter(class.index()); err != nil {
		return Permit{}, err
	}
	return Permit{gate: a, start: a.door.now()}, nil
}

// Do acquires a permit, calls f once with ctx, and releases the permit with the
// [OutcomeOf] f's error, or with Ignore when f panics or calls [runtime.Goexit]. Returns
// what Acquire or f returns. When ctx has a deadline of the caller's, and f returns its
// [context.DeadlineExceeded], that is a Drop: a caller in a hurry looks like a slow server.
// Use Acquire where these must be told apart.
func (a *Adaptive) Do(ctx context.Context, class Class, f func(context.Context) error) error {
	p, err := a.Acquire(ctx, class)
	if err != nil {
		return err
	}
	return p.run(ctx, f)
}

// Stats returns a snapshot, of one moment.
func (a *Adaptive) Stats() AdaptiveStats {
	d := &a.door
	d.mu.Lock()
	defer d.mu.Unlock()
	return AdaptiveStats{
		ConcurrencyStats: d.stats(),
		Baseline:         a.learner.Baseline(),
		Latency:          a.learner.Latency(),
		Probing:          a.learner.Probing(),
		Probes:           a.learner.Probes(),
	}
}

// AdaptiveStats says how an [Adaptive] is doing.
type AdaptiveStats struct {
	// ConcurrencyStats says what was let in and refused. During a probe its Limit is that
	// of the probe.
	ConcurrencyStats

	// Baseline is the latency without a queue as it is thought to be, 0 while unknown.
	Baseline time.Duration

	// Latency is the mean latency in the last window, 0 before the first has ended.
	Latency time.Duration

	// Probing says whether the limit is lowered to measure the baseline.
	Probing bool

	// Probes counts how often it was.
	Probes uint64
}

func (a *Adaptive) release(start time.Duration, o Outcome) {
	d := &a.door
	now := d.now()
	d.mu.Lock()
	if a.learner.Sample(now, now-start, d.engine.InFlight(), learn.Outcome(min(o, Ignore))) {
		wake(d.engine.SetLimit(now, a.learner.Limit()))
	}
	wake(d.engine.Leave(now))
	d.mu.Unlock()
}
