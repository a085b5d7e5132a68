// Package learn finds out how many requests a server can work on at a time, from how
// long they take.
//
// It is a state machine without a clock or a lock: the caller says what ended and
// when, and lets one goroutine in at a time. So the same code runs in shed's Adaptive,
// and in a simulator on a virtual clock.
package learn

import (
	"math"
	"math/rand/v2"
	"time"
)

// Algorithm is how the limit follows the latency.
type Algorithm uint8

const (
	Gradient Algorithm = iota // by the ratio of the baseline and the latency
	Vegas                     // by the length of the queue that follows from them
)

// Outcome says what became of a request. The numbers are those of shed.Outcome.
type Outcome uint8

const (
	Success Outcome = iota
	Drop
	Ignore
)

// Options configure a Learner. The caller has checked them.
type Options struct {
	Algorithm         Algorithm
	Initial, Min, Max int     // 1 <= Min <= Initial <= Max
	Reserve           float64 // the share of the limit that most requests cannot use
	Seed              uint64  // for the jitter between probes
}

// The constants of Gradient are those of GradientLimit and Gradient2Limit of Netflix's
// concurrency-limits, those of Vegas of its VegasLimit, unless they are said to be ours.
const (
	tolerance = 1.5 // the latency may be so many times the baseline
	steepest  = 0.5 // the least gradient, so that an outlier does not cut too much
	smoothing = 0.2 // how much of a decrease happens in one window

	// leastSamples is how many requests a window has at least, and leastWindow how long it
	// lasts at least; it also has two requests for each unit of the limit, so that it
	// lasts some two latencies. With 50 requests the mean of exponential latencies has an
	// error of 14 %, well within the tolerance. Ours.
	leastSamples = 50
	leastWindow  = 20 * time.Millisecond

	// fewDrops is the share of drops in a window up to which the limit may grow, and a probe
	// measures. It is more than what one lost replica of a few costs: such drops are not
	// fewer at a lower limit. Ours.
	fewDrops = 0.3
)

// Learner is the state machine. See the package learn and shed.Adaptive.
//
// Requests are gathered in windows, and each window moves the limit once:
//
//   - Drops lower it by half their share, as DCTCP does with marked packets.
//   - A latency within the tolerance raises it, unless half of the limit was never in use:
//     then nothing is known about more.
//   - A latency above it lowers it.
//
// All depends on the baseline, the latency without a queue. An average of past
// latencies, as that of Gradient2, follows the queue that the limit makes, and the
// limit follows the average, without end. So no window in which the limit was
// in use may raise the baseline. What measures it are probes: see probe.go.
type Learner struct {
	options Options
	limit   float64
	base    float64 // the baseline in nanoseconds, 0 while unknown
	sure    float64 // what a probe made it last
	window  window
	last    float64 // the mean latency of the last window
	smooth  float64 // an average of these since the last halving, 0 when there is none
	slow    int     // windows in a row far above the baseline
	fast    fast
	probe   probe
	random  *rand.Rand
}

// window is what happened since begin.
type window struct {
	begin      time.Duration
	sum        time.Duration // of the latencies of successes
	n, drops   int
	peak, need int
}

// New returns a Learner.
func New(o Options) *Learner {
	l := &Learner{options: o, limit: float64(o.Initial), random: rand.New(rand.NewPCG(o.Seed, 0))}
	l.probe.countdown = firstProbe
	l.open(0)
	return l
}

// Limit returns how many requests may be in progress now: during a probe, fewer than
// are thought to fit.
func (l *Learner) Limit() int {
	switch l.probe.phase {
	case idle:
		return int(l.limit)
	case draining:
		// One place goes on. If it did not, and more requests hung than the probe lets
		// in, nothing would end any more, and so nothing would begin.
		return min(max(l.probe.limit, int(math.Ceil(float64(l.probe.old+1)/(1-l.options.Reserve)))), int(l.limit))
	default:
		return l.probe.limit
	}
}

// Baseline returns the latency without a queue, 0 while unknown.
func (l *Learner) Baseline() time.Duration { return time.Duration(l.base) }

// Latency returns the mean latency of the last window, 0 before the first.
func (l *Learner) Latency() time.Duration { return time.Duration(l.last) }

// Probing reports whether a probe is going on.
func (l *Learner) Probing() bool { return l.probe.phase != idle }

// Probes returns how many probes have begun.
func (l *Learner) Probes() uint64 { return l.probe.count }

// Sample says that a request ended at now that took rtt, while inflight were in
// progress including itself. It reports whether Limit has changed.
func (l *Learner) Sample(now, rtt time.Duration, inflight int, o Outcome) bool {
	w, before := &l.window, l.Limit()
	w.peak = max(w.peak, inflight)
	if l.probe.phase != idle && !l.probe.counts(now-rtt, inflight) {
		return l.Limit() != before
	}
	switch o {
	case Success:
		w.sum += max(rtt, 1)
		w.n++
	case Drop:
		w.drops++
	}
	if w.n+w.drops < w.need || now-w.begin < leastWindow {
		return false
	}
	l.close()
	l.open(now)
	if l.probe.phase == draining { // it has just begun
		l.probe.begun, l.probe.old, l.probe.patience = now, inflight-1, 2*l.window.need
	}
	return l.Limit() != before
}

func (l *Learner) open(now time.Duration) {
	l.window = window{begin: now, need: max(leastSamples, 2*int(l.limit))}
}

// close draws the conclusions from a window.
func (l *Learner) close() {
	w := &l.window
	share := float64(w.drops) / float64(w.n+w.drops)
	mean := float64(w.sum) / float64(max(w.n, 1))
	if l.probe.phase != idle {
		l.conclude(mean, share)
		return
	}
	if w.n >= w.drops {
		l.last = mean
		if l.smooth == 0 {
			l.smooth = mean
		}
		l.smooth += steady * (mean - l.smooth)
		l.gauge(mean)
		l.adjust(mean, share <= fewDrops)
	}
	l.set(l.limit * (1 - share/2))
	l.schedule()
}

// load returns the limit that the peak of the window is all of, if most requests cannot
// use the reserve.
func (l *Learner) load() float64 { return float64(l.window.peak) / (1 - l.options.Reserve) }

// adjust moves the limit by the mean latency of a window.
func (l *Learner) adjust(mean float64, mayGrow bool) {
	mayGrow = mayGrow && 2*l.load() > l.limit
	if l.options.Algorithm == Vegas {
		l.vegas(mean, mayGrow)
		return
	}
	gradient := max(steepest, tolerance*l.base/mean)
	switch {
	case gradient < 1:
		l.set(l.limit * (1 - smoothing*(1-gradient)))
	case mayGrow:
		l.set(l.limit + math.Sqrt(l.limit))
	}
}

// vegas keeps between alpha and beta requests in the server's queue: 3 and 6 times the
// logarithm of the limit, and not more than half of a small limit, which is ours.
func (l *Learner) vegas(mean float64, mayGrow bool) {
	step := max(1, math.Log10(l.limit))
	beta := min(6*step, l.limit/2)
	alpha, few := beta/2, beta/6
	queue := l.limit * (1 - l.base/mean)
	switch {
	case queue > beta:
		l.set(l.limit - step)
	case !mayGrow || queue >= alpha:
	case queue > few:
		l.set(l.limit + step)
	default:
		l.set(l.limit + beta)
	}
}

func (l *Learner) set(limit float64) {
	l.limit = min(max(limit, float64(l.options.Min)), float64(l.options.Max))
}
