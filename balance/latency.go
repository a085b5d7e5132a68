package balance

import (
	"math"
	"time"
)

// steepest is the most by which one latency raises the average. Ten times as much is
// believed after six. A pause of the client itself makes all its requests late, and
// would make all backends equally bad at once, for as long as that takes to fade: then
// it would ask the slow ones too.
const steepest = 1.5

// learn takes a latency into account that was measured at now.
//
// The average is Finagle's peak EWMA, but for the bound to a rise: a latency above it
// replaces it, one below it counts the more, the longer ago the last one was.
func (f *fleet) learn(n *node, latency, now time.Duration) {
	x := latency.Seconds()
	for {
		word := n.latency.word.Load()
		value := x
		if word != 0 {
			old, age := unpack(word, now)
			if x < old {
				if age == 0 {
					return // it weighs nothing
				}
				value = x + (old-x)*f.fading.left(age)
			} else {
				value = min(x, steepest*old)
			}
		}
		if n.latency.word.CompareAndSwap(word, pack(value, now)) {
			break
		}
	}
	f.average(now)
}

// learnAtLeast takes into account that a request took at least so long when it was
// broken off. If that is less than what was expected, it says nothing.
func (f *fleet) learnAtLeast(n *node, latency, now time.Duration) {
	expected := f.meanLatency()
	if word := n.latency.word.Load(); word != 0 {
		expected, _ = unpack(word, now)
	}
	if expected > 0 && latency.Seconds() > expected {
		f.learn(n, latency, now)
	}
}

// meanPeriod is the part of decay after which the mean is made anew.
const meanPeriod = 64

// average makes the mean of the members' latencies anew, if it is old.
func (f *fleet) average(now time.Duration) {
	old := f.mean.word.Load()
	if old != 0 {
		if _, age := unpack(old, now); age < f.decay/meanPeriod {
			return
		}
	}
	mean, _ := unpack(old, now)
	sum, count := 0.0, 0
	for _, n := range *f.members.Load() {
		// As expected, not as learnt: or one that was slow once, and is not asked for that
		// reason, would hold the mean up that it is to fade to.
		if seconds, _, known := f.expected(n.node, mean, now); known {
			sum += seconds
			count++
		}
	}
	if count > 0 {
		f.mean.word.CompareAndSwap(old, pack(sum/float64(count), now))
	}
}

// expected is the latency, in seconds, that a backend is expected to have at now, and
// how long ago it was last heard of, if known. What was learnt of it fades, and the
// mean of all takes its place: of a backend that was not asked for long, and of one
// that never was, nothing better is known. Were it to fade to 0, as in most
// implementations, the slowest would be taken for the fastest once it had not been
// asked for a while.
func (f *fleet) expected(n *node, mean float64, now time.Duration) (seconds float64, age time.Duration, known bool) {
	word := n.latency.word.Load()
	if word == 0 {
		return mean, 0, false
	}
	value, age := unpack(word, now)
	if mean == 0 {
		return value, age, true
	}
	return mean + (value-mean)*f.fading.left(age), age, true
}

// meanLatency is that of the members, in seconds; 0 is unknown.
func (f *fleet) meanLatency() float64 {
	mean, _ := unpack(f.mean.word.Load(), 0)
	return mean
}

// duration converts seconds.
func duration(seconds float64) time.Duration {
	return time.Duration(math.Round(seconds * float64(time.Second)))
}
