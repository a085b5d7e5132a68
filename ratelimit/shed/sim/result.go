package sim

import (
	"math"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// Never is the Recovery of what did not recover before the end.
const Never = time.Duration(math.MaxInt64)

// Result is what [Run] measured, after the warm-up.
type Result struct {
	// Goodput is the share of the server's capacity that went into answers that came
	// in time. Wasted went into those whose client had gone, Refusing into refusals. Lost
	// is the price of crowding, and Idle what nobody asked for. Their sum is 1, but for
	// what was in progress at the end of the warm-up.
	Goodput, Wasted, Refusing, Lost, Idle float64

	// Amplification is the number of attempts that reached the server, relative to the
	// requests.
	Amplification float64

	// Mean, P50 and P99 are of the latency of the attempts that were answered in time,
	// from sending to answer.
	Mean, P50, P99 time.Duration

	// Torn is the share of the users who got an answer for a part of their requests of
	// a class, and none for others. Users count by class, if they had two requests of it.
	Torn float64

	// Recovery is the time from the beginning of the last phase until all classes are
	// back: see [ClassResult].Recovery.
	Recovery time.Duration

	// Classes are by class, [shed.Background] first.
	Classes [classes]ClassResult
}

// Of returns the result of a class.
func (r Result) Of(c shed.Class) ClassResult {
	return r.Classes[min(max(c, shed.Background), shed.Critical)-shed.Background]
}

// Total returns the sum of all classes. It has no percentiles.
func (r Result) Total() ClassResult {
	sum := ClassResult{Recovery: r.Recovery}
	for _, c := range r.Classes {
		sum.Requests += c.Requests
		sum.Answered += c.Answered
		sum.TimedOut += c.TimedOut
		sum.Refused += c.Refused
		sum.Throttled += c.Throttled
	}
	return sum
}

// ClassResult is what [Run] measured of one class, or of all.
type ClassResult struct {
	// Requests is the number of requests, with all attempts each.
	Requests int

	// Answered requests got their answer in time, at the first attempt or a later one.
	// TimedOut, Refused and Throttled ones were given up, after the last attempt had
	// timed out, was refused by the server, or was held back by the client's Throttle.
	// Every request is one of these.
	Answered, TimedOut, Refused, Throttled int

	// P50 and P99 are of the latency of the attempts that were answered in time.
	P50, P99 time.Duration

	// Recovery is the time from the beginning of the last phase to the first second
	// from which, for five seconds, 95 % of the requests that arrived were answered. It
	// is Never if there is none.
	Recovery time.Duration
}

// Goodput returns the share of the requests that were answered in time, 1 if there were
// none.
func (c ClassResult) Goodput() float64 {
	if c.Requests == 0 {
		return 1
	}
	return float64(c.Answered) / float64(c.Requests)
}

// The measure of recovery.
const (
	second    = time.Second
	steadyFor = 5 // seconds
	recovered = 0.95
)

// tally counts what the result is made of.
type tally struct {
	config   *Config
	end      time.Duration
	attempts int

	ends      [classes][fates]int
	requests  [classes]int
	latencies [classes][]time.Duration

	useful, wasted, refusing float64
	busy, lost               float64 // of the server, at the end of the warm-up, then since

	saw [classes][]uint8 // by user: gotOne, missedOne, hadTwo

	last    time.Duration         // when the last phase begins
	seconds [classes][]arrivedGot // by second of arrival in the last phase
}

// arrivedGot is how many requests arrived, and how many of these were answered.
type arrivedGot struct{ arrived, got int }

func newTally(c *Config) tally {
	end := c.length()
	t := tally{config: c, end: end, last: end - c.Phases[len(c.Phases)-1].For}
	for i := range t.saw {
		t.saw[i] = make([]uint8, c.Users)
	}
	return t
}

// What a user has seen of a class.
const (
	gotOne = 1 << iota
	missedOne
	hadTwo
)

func (t *tally) arrive(r *request) {
	t.requests[r.class]++
	if at := t.second(r); at != nil {
		at.arrived++
	}
}

// second returns where a request is counted, nil if it came before the last phase.
func (t *tally) second(r *request) *arrivedGot {
	if r.arrived < t.last {
		return nil
	}
	i := int((r.arrived - t.last) / second)
	for len(t.seconds[r.class]) <= i {
		t.seconds[r.class] = append(t.seconds[r.class], arrivedGot{})
	}
	return &t.seconds[r.class][i]
}

func (t *tally) settle(r *request, f fate, latency time.Duration) {
	t.ends[r.class][f]++
	saw := &t.saw[r.class][r.user]
	if *saw != 0 {
		*saw |= hadTwo
	}
	if f != answered {
		*saw |= missedOne
		return
	}
	*saw |= gotOne
	t.latencies[r.class] = append(t.latencies[r.class], latency)
	if at := t.second(r); at != nil {
		at.got++
	}
}

// work counts what the server has just done.
func (t *tally) work(now time.Duration, w work) {
	switch {
	case now < t.config.Warm || now >= t.end:
	case w.job == nil:
		t.refusing += w.size
	case w.job.gone:
		t.wasted += w.size
	default:
		t.useful += w.size
	}
}

// border is the end of the warm-up, or that of all phases. What is in progress then is
// counted for what was done of it.
func (t *tally) border(at time.Duration, s *server) {
	if at < t.end {
		t.busy, t.lost = s.busy, s.lost
		return
	}
	t.busy, t.lost = s.busy-t.busy, s.lost-t.lost
	for _, w := range s.jobs {
		w.size -= w.end - s.done
		t.work(t.end-1, w)
	}
}

func (t *tally) result() Result {
	capacity := float64(t.end-t.config.Warm) * float64(t.config.Workers)
	r := Result{
		Goodput:  t.useful / capacity,
		Wasted:   t.wasted / capacity,
		Refusing: t.refusing / capacity,
		Lost:     t.lost / capacity,
		Idle:     1 - t.busy/capacity,
		Torn:     t.torn(),
	}
	var all []time.Duration
	requests := 0
	for i := range r.Classes {
		ends := &t.ends[i]
		r.Classes[i] = ClassResult{
			Requests:  t.requests[i],
			Answered:  ends[answered],
			TimedOut:  ends[timedOut],
			Refused:   ends[refused],
			Throttled: ends[throttled],
			Recovery:  recovery(t.seconds[i]),
		}
		_, r.Classes[i].P50, r.Classes[i].P99 = summary(t.latencies[i])
		r.Recovery = max(r.Recovery, r.Classes[i].Recovery)
		requests += t.requests[i]
		all = append(all, t.latencies[i]...)
	}
	r.Mean, r.P50, r.P99 = summary(all)
	if requests > 0 {
		r.Amplification = float64(t.attempts) / float64(requests)
	}
	return r
}

// recovery finds the first second from which it is well for steadyFor seconds.
func recovery(seconds []arrivedGot) time.Duration {
	for i := 0; i+steadyFor <= len(seconds); i++ {
		var sum arrivedGot
		for _, s := range seconds[i : i+steadyFor] {
			sum.arrived += s.arrived
			sum.got += s.got
		}
		if float64(sum.got) >= recovered*float64(sum.arrived) {
			return time.Duration(i) * second
		}
	}
	return Never
}

// torn returns the share of the users who were served in part.
func (t *tally) torn() float64 {
	torn, all := 0, 0
	for i := range t.saw {
		for _, saw := range t.saw[i] {
			if saw&hadTwo == 0 {
				continue
			}
			all++
			if saw&gotOne != 0 && saw&missedOne != 0 {
				torn++
			}
		}
	}
	return float64(torn) / float64(max(all, 1))
}

// summary sorts the latencies and returns their mean, median and 99th percentile.
func summary(latencies []time.Duration) (mean, p50, p99 time.Duration) {
	n := len(latencies)
	if n == 0 {
		return 0, 0, 0
	}
	slices.Sort(latencies)
	sum := 0.0
	for _, l := range latencies {
		sum += float64(l)
	}
	return time.Duration(sum / float64(n)), latencies[n/2], latencies[n*99/100]
}
