package learn

import "time"

// A probe measures the latency without a queue. It halves the limit, waits until no
// more than that is in progress and until twice as many have ended, and looks at a window
// of those that end afterwards. (To look at those that began afterwards would be to
// see the short ones first: exponential latencies come out 30 % too low.)
//
// When the latency of these is about what it was before, or at least far from half of
// it, half the limit makes no queue, and the probe's latency is the baseline, be it higher or
// lower than before: a server that has become slower for everybody is not overloaded.
// When the latency is halved with the limit, all of the half that was taken away had
// been waiting, and so may some of the rest be. Then the limit stays halved, and
// the next probe follows at once.
//
// This is why the baseline cannot creep. Let the server work on c requests at a time
// and the limit be L > c, the latency b*L/c. A probe with L <= 2c finds b itself. With
// a greater L it halves L. And with a measurement that went wrong it still
// finds at most b*L/2c, so that the limit cannot come to more than 1.5 * L/2 before the next
// one: three quarters of what it was.
const (
	// probeShare is the share of the limit that remains. Ours: with the tolerance it must
	// be below 1.
	probeShare = 0.5

	// queued is the ratio of latencies below which all was queued. It is 0.5 then, 0.67
	// where Gradient rests, at 1.5c, and 1 without a queue. Ours.
	queued = 0.6

	// steady is the weight of a window in the latency to compare with. That of the last
	// window alone is too uncertain; but if it is higher, something has just changed. Ours.
	steady = 0.3

	// A probe comes after 40 to 79 windows in which the limit was in use, and itself
	// takes a window and a little. With the work that is not done meanwhile probes cost one
	// to four hundredths of the throughput. VegasLimit probes each 15 to 30 windows of
	// that size, GradientLimit each 1,000 to 2,000 windows. The first comes early, because the
	// first window may have been overloaded; and one comes again soon after a change.
	leastProbe, jitterProbe = 40, 40
	firstProbe              = 4
	againProbe              = 10

	// suspicion is how many times the baseline, and for how many windows in a row, the
	// latency must be for a probe at once: the queue is long, or the baseline is no longer
	// true. Ours.
	suspicion, suspects = 2.5, 3

	// A latency that is lower than this share of the baseline for three windows in a row
	// shows that the baseline is too high: a queue can only add. The mean of the 50
	// requests of a window lies that low by chance once in 20 windows, and three times in a
	// row once in thousands. The baseline takes the highest of the three until a probe, which
	// follows. Ours.
	faster = 0.75

	// follow is the weight of a new measurement in the baseline where nothing is
	// in question. When it has come to so many times what a probe measured, a probe comes
	// soon. Ours.
	follow, unsure = 0.1, 1.2
)

type phase uint8

const (
	idle     phase = iota
	draining       // until no more than the limit is in progress, and not all of it old
	settling       // until the requests that had to queue have ended
	measuring
)

type probe struct {
	phase     phase
	limit     int
	begun     time.Duration
	old       int     // how many requests are in progress that began before the probe
	patience  int     // how many may end until half of them must have
	skip      int     // how many requests to disregard while settling
	before    float64 // the mean latency before
	countdown int     // windows until the next
	again     bool    // whether the one after that is to come soon
	count     uint64
}

// counts reports whether a request that ended, and had begun at some time, belongs to the
// measurement. It gives the probe up when the old requests do not end.
func (p *probe) counts(began time.Duration, inflight int) bool {
	if p.phase == draining && began < p.begun {
		p.old = max(p.old-1, 0)
	}
	switch {
	case p.phase == draining && inflight-1 <= p.limit && p.old < p.limit:
		p.phase, p.skip = settling, 2*p.limit
	case p.phase == draining:
		if p.patience--; p.patience <= 0 {
			p.phase = idle
		}
	case p.phase == settling:
		if p.skip--; p.skip <= 0 {
			p.phase = measuring
		}
	}
	return p.phase == measuring
}

// fast is the windows in a row that were faster than the baseline.
type fast struct {
	n       int
	highest float64
}

// gauge learns the baseline from a window without a probe.
func (l *Learner) gauge(mean float64) {
	switch {
	case l.base == 0:
		l.base, l.sure = mean, mean
	case int(l.limit) <= 1 || l.limit <= float64(l.options.Min):
		// Nothing can be lower than that: there is no other measurement.
		l.base += follow * (mean - l.base)
	case 2*l.load() <= l.limit && mean <= tolerance*l.base:
		// As little was in progress as in a probe.
		l.base += follow * (mean - l.base)
	}
	if l.base > unsure*l.sure {
		l.hasten(firstProbe)
	}
	if mean >= faster*l.base {
		l.fast = fast{}
	} else if l.fast.n++; l.fast.n < 3 {
		l.fast.highest = max(l.fast.highest, mean)
	} else {
		l.base = max(l.fast.highest, mean)
		l.fast = fast{}
		l.hasten(0)
	}
	if mean > suspicion*l.base {
		l.slow++
	} else {
		l.slow = 0
	}
}

// schedule begins a probe if it is time. What is not in use needs none.
func (l *Learner) schedule() {
	load := l.load()
	if 2*load <= l.limit {
		return
	}
	if load >= 0.9*l.limit {
		l.probe.countdown--
	}
	if l.slow >= suspects {
		l.hasten(0)
	}
	if l.probe.countdown <= 0 {
		l.begin(max(l.smooth, l.last), load)
	}
}

// hasten lets the next probe come after so many windows, if it is not nearer already,
// and the one after that soon, too: the next may be misled by what changes just now.
func (l *Learner) hasten(windows int) {
	if l.probe.countdown > windows {
		l.probe.countdown, l.probe.again = windows, true
	}
}

// begin begins a probe, unless the limit is as low as it can be. If the limit is above the
// load, what is halved is the load: to halve a limit that is not in use would measure the
// same again.
func (l *Learner) begin(before, load float64) {
	l.slow = 0
	l.probe.countdown = leastProbe + l.random.IntN(jitterProbe)
	if l.probe.again {
		l.probe.countdown, l.probe.again = againProbe, false
	}
	limit := max(l.options.Min, int(probeShare*min(l.limit, load)))
	if limit >= int(l.limit) || before == 0 {
		return
	}
	l.probe.phase, l.probe.limit, l.probe.before = draining, limit, before
	l.probe.count++
}

// conclude ends a probe, whose requests had the mean latency.
func (l *Learner) conclude(mean, drops float64) {
	p := &l.probe
	p.phase = idle
	switch {
	case drops > fewDrops: // it says nothing but that
		l.set(l.limit * (1 - drops/2))
	case mean >= queued*p.before:
		if l.base/mean > faster && mean/l.base < 1/faster {
			mean = (mean + l.base) / 2 // both are measurements of the same
		} else {
			p.countdown = againProbe // so much has changed that it should be confirmed
		}
		l.base, l.sure = mean, mean
	default:
		l.base = min(l.base, mean)
		l.sure = l.base
		l.set(float64(p.limit))
		l.smooth = 0
		l.begin(mean, l.limit)
	}
}
