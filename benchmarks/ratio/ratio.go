// Package ratio measures how the times of two operations compare, on a machine that
// is busy with other things.
//
// It runs short slices of both in turns, a b b a, and takes the median of the ratios
// of neighbouring slices. What slows the machine down for a while slows both; what
// hits a single slice does not move the median. With three busy processes beside it
// on two processors the ratio stays within a hundredth, where separate benchmarks
// are off by a factor of two.
//
// It is good for one goroutine and operations that need the processor. Two
// operations that share a lock, a cache line or a disk disturb each other.
package ratio

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// Op runs an operation n times. The loop is the operation's own, so that no call
// through a function value is part of what is measured.
type Op func(n int)

// Result is how two operations compare.
type Result struct {
	// Ratio is the time of the first divided by that of the second.
	Ratio float64

	// Low and High are the quartiles of the ratios that Ratio is the median of.
	Low, High float64

	// A and B are the medians of the times of one operation.
	A, B time.Duration
}

func (r Result) String() string {
	return fmt.Sprintf("%.3f (quartiles %.3f to %.3f; %v against %v)", r.Ratio, r.Low, r.High, r.A, r.B)
}

const (
	slice = 200 * time.Microsecond // long against the clock, short against a time slice of the scheduler
	pairs = 1001
)

// Measure compares a to b. It takes about half a second.
func Measure(a, b Op) Result { return MeasureSlices(a, b, slice, pairs) }

// MeasureSlices compares a to b in so many pairs of slices, an odd number. It is for
// operations of which one takes longer than the slices of Measure, or that start
// goroutines, whose beginning and end must be short against a slice.
func MeasureSlices(a, b Op, slice time.Duration, pairs int) Result {
	na, nb := calibrate(a, slice), calibrate(b, slice)
	logs := make([]float64, pairs)
	as, bs := make([]float64, pairs), make([]float64, pairs)
	for i := range pairs {
		if i%2 == 0 {
			as[i] = timed(a, na)
			bs[i] = timed(b, nb)
		} else {
			bs[i] = timed(b, nb)
			as[i] = timed(a, na)
		}
		logs[i] = math.Log(as[i] / bs[i])
	}
	for _, s := range [][]float64{logs, as, bs} {
		slices.Sort(s)
	}
	return Result{
		Ratio: math.Exp(logs[pairs/2]), Low: math.Exp(logs[pairs/4]), High: math.Exp(logs[3*pairs/4]),
		A: time.Duration(as[pairs/2]), B: time.Duration(bs[pairs/2]),
	}
}

// timed returns the nanoseconds of one operation.
func timed(op Op, n int) float64 {
	started := time.Now()
	op(n)
	return float64(time.Since(started)) / float64(n)
}

// calibrate returns how often an operation runs in a slice.
func calibrate(op Op, slice time.Duration) int {
	for n := 1; ; n *= 2 {
		started := time.Now()
		op(n)
		if d := time.Since(started); d > slice/2 {
			return max(1, int(float64(n)*float64(slice)/float64(d)))
		}
	}
}

// Bench runs a comparison as a benchmark: it reports the ratio and both times
// instead of a time.
func Bench(b *testing.B, ours, peer Op) {
	var r Result
	for b.Loop() {
		r = Measure(ours, peer)
	}
	b.ReportMetric(r.Ratio, "ratio")
	b.ReportMetric(float64(r.A), "ours-ns")
	b.ReportMetric(float64(r.B), "peer-ns")
	b.ReportMetric(0, "ns/op")
}

// AtMost fails the test if ours takes more than limit times as long as peer, twice
// in a row. Set the limit with a margin of at least a tenth over what is measured.
func AtMost(t testing.TB, limit float64, ours, peer Op) {
	t.Helper()
	AtMostSlices(t, limit, ours, peer, slice, pairs)
}

// AtMostSlices is AtMost with the slices of MeasureSlices. It returns what it measured
// last.
func AtMostSlices(t testing.TB, limit float64, ours, peer Op, slice time.Duration, pairs int) Result {
	t.Helper()
	r := MeasureSlices(ours, peer, slice, pairs)
	if r.Ratio > limit {
		t.Logf("%v, again", r)
		r = MeasureSlices(ours, peer, slice, pairs)
	}
	if r.Ratio > limit {
		t.Errorf("ratio %v, expected at most %v", r, limit)
	} else {
		t.Logf("ratio %v, at most %v", r, limit)
	}
	return r
}
