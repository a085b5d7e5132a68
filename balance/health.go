package balance

import (
	"fmt"
	"math"
	"time"
)

// Health says how a [Balancer] treats backends that fail, and new ones. The zero
// value is right for most services. In every field 0 means the default; a negative
// value switches that part off.
//
// Its parts are those of Finagle's failure accrual (5 failures in a row), of
// Linkerd's breaker (a success rate of 0.8), of Envoy's outlier detection (a tenth
// of the backends, 30 seconds to 5 minutes) and slow start (from a tenth, in
// proportion to time), and of both Envoy's and Finagle's panic mode.
type Health struct {
	// Penalty is the time that a failure costs: it counts as a request under way that
	// takes about so long, whatever it took. A backend that fails at once then looks
	// slow, not fast, and one that fails sometimes gets so much less that its failures
	// stay few. LeastRequest and LeastLatency heed it. 0 means a second.
	Penalty time.Duration

	// Consecutive is the number of failures in a row that ejects a backend. 0 means 5.
	Consecutive int

	// SuccessRate ejects a backend when less than this part of its requests succeed,
	// counted over Interval and as soon as at least Volume have ended. 0 means 0.8, 10
	// seconds and 100. SuccessRate alone can be switched off.
	SuccessRate float64
	Interval    time.Duration
	Volume      int

	// MaxEjected is the largest part of the backends that may be ejected at a time,
	// though one always may. 0 means 0.1. If it is negative, none ever is. With 0.4 one of
	// three zones may crash and be left out before the resolver says so; the price is
	// that a fault which all share may eject so many.
	MaxEjected float64

	// Keep is the number of backends, the last ones, that are not ejected. 0 means 1.
	Keep int

	// BaseEjection is how long the first ejection of a backend lasts. Each that follows
	// lasts longer by that, up to MaxEjection, and every such time without one takes as
	// much off again. 0 means 30 seconds and 5 minutes. They cannot be switched off.
	BaseEjection, MaxEjection time.Duration

	// Panic is the part of the backends that must be left for ejections to be heeded.
	// With fewer, all are picked from: the trouble is elsewhere, or the few would be
	// overrun. 0 means 0.5.
	Panic float64

	// SlowStart is the time in which a backend that joins others, or returns from an
	// ejection, gets from a tenth of its share to the whole of it. 0 means 10 seconds.
	SlowStart time.Duration
}

// withDefaults replaces zeros, and checks. What is off is 0 afterwards, or what has
// no effect.
func (h Health) withDefaults() (Health, error) {
	for _, p := range []struct {
		field string
		value float64
	}{{"SuccessRate", h.SuccessRate}, {"MaxEjected", h.MaxEjected}, {"Panic", h.Panic}} {
		if !(p.value <= 1) || math.IsInf(p.value, -1) {
			return h, fmt.Errorf("balance: Health.%s is %v, expected at most 1", p.field, p.value)
		}
	}
	for _, d := range []struct {
		field string
		value float64
	}{
		{"Interval", float64(h.Interval)},
		{"Volume", float64(h.Volume)},
		{"BaseEjection", float64(h.BaseEjection)},
		{"MaxEjection", float64(h.MaxEjection)},
	} {
		if d.value < 0 {
			return h, fmt.Errorf("balance: Health.%s is negative, expected 0 (for the default) or more", d.field)
		}
	}
	orDefault(&h.Penalty, time.Second)
	orDefault(&h.Consecutive, 5)
	orDefault(&h.SuccessRate, 0.8)
	orDefault(&h.Interval, 10*time.Second)
	orDefault(&h.Volume, 100)
	if h.MaxEjected == 0 {
		h.MaxEjected = 0.1
	}
	orDefault(&h.Keep, 1)
	orDefault(&h.BaseEjection, 30*time.Second)
	orDefault(&h.MaxEjection, max(5*time.Minute, h.BaseEjection))
	if h.MaxEjection < h.BaseEjection {
		return h, fmt.Errorf("balance: Health.MaxEjection is %v, expected no less than BaseEjection, %v", h.MaxEjection, h.BaseEjection)
	}
	orDefault(&h.Panic, 0.5)
	orDefault(&h.SlowStart, 10*time.Second)
	for _, d := range []*time.Duration{&h.Penalty, &h.BaseEjection, &h.MaxEjection, &h.SlowStart} {
		*d = min(*d, forEver)
	}
	return h, nil
}

// forEver is what counts as that: sums of a few such times do not overflow.
const forEver = 30 * 365 * 24 * time.Hour

// orDefault replaces 0 by the default and what is negative by 0.
func orDefault[N int | float64 | time.Duration](field *N, value N) {
	if *field == 0 {
		*field = value
	}
	*field = max(*field, 0)
}

// maxEjected is how many of n backends may be ejected at a time.
func (h *Health) maxEjected(n int) int {
	if h.MaxEjected < 0 {
		return 0
	}
	most := int(h.MaxEjected * float64(n))
	if float64(most+1)/float64(n) <= h.MaxEjected {
		most++ // 0.57 of 100 is 56.99...
	}
	return min(max(1, most), max(0, n-h.Keep))
}

// leastWarmth is the part of its share that a backend begins with.
const leastWarmth = 0.1

// warmth is the part of its share that a backend gets that began at from.
func (h *Health) warmth(from, now time.Duration) float64 {
	return min(max(leastWarmth, float64(now-from)/float64(h.SlowStart)), 1)
}
