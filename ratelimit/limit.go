package ratelimit

import (
	"fmt"
	"math/bits"
	"time"
)

// Limit is how much may pass: a rate, as n units per period, and a burst, the
// most that may pass at once after a pause. Build it with [Per] or [ParseLimit].
//
// A limiter with a limit of n units per d and a burst of b admits, in any window
// of time of length w, at most b + w*n/d units.
//
// The rate is a fraction and is never rounded up. It is kept exactly when n/d in
// units per nanosecond, in lowest terms, has a numerator of at most 1024 (every
// whole number up to 1024 a second, and every rounder number above), and when the
// burst refills within 12 days. Any other rate is kept a little too slow: if the burst
// refills within 12 days, by less than one part in a million up to a million units a
// second and by less than one part in a thousand at a thousand million. A longer refill
// costs precision: a unit takes up to one nanosecond longer.
//
// A Limit can be compared with ==. The zero value is not a valid limit: the
// constructors refuse it, because neither "nothing" nor "everything" is a safe
// guess at what was meant.
type Limit struct {
	n     int64
	per   time.Duration
	burst int64
}

// Per returns the limit of n units per d, with a burst of n. Per(100,
// time.Minute) lets 100 units pass at once, and then one every 600 ms.
//
// Per does not check its arguments; what takes the limit does. Valid are n of 1
// and more, d of one nanosecond and more, rates of at most one unit a nanosecond,
// and bursts that refill within 2^60 nanoseconds (36 years).
func Per(n int64, d time.Duration) Limit { return Limit{n: n, per: d, burst: n} }

// Burst returns the limit with a burst of n units instead. A burst of 1 spaces
// the units evenly.
func (l Limit) Burst(n int64) Limit {
	l.burst = n
	return l
}

// Values takes the limit apart: n units per d, and the burst.
func (l Limit) Values() (n int64, d time.Duration, burst int64) { return l.n, l.per, l.burst }

// check says what makes l unusable.
func (l Limit) check() error {
	switch {
	case l == Limit{}:
		return fmt.Errorf("%w: the zero Limit, expected one from Per or ParseLimit", ErrInvalidLimit)
	case l.n < 1:
		return fmt.Errorf("%w: n is %d, expected at least 1", ErrInvalidLimit, l.n)
	case l.per < 1:
		return fmt.Errorf("%w: d is %v, expected at least 1ns", ErrInvalidLimit, l.per)
	case l.n > int64(l.per):
		return fmt.Errorf("%w: the rate is %d per %v, expected at most one unit a nanosecond", ErrInvalidLimit, l.n, l.per)
	case l.burst < 1:
		return fmt.Errorf("%w: burst is %d, expected at least 1", ErrInvalidLimit, l.burst)
	case !l.refillsWithin(budgetBits):
		return fmt.Errorf("%w: burst is %d, expected one that refills in less than %v", ErrInvalidLimit, l.burst, time.Duration(budget))
	}
	return nil
}

// refillsWithin reports whether burst units flow in within 2^k nanoseconds, that
// is burst*per/n <= 2^k, in 128 bits.
func (l Limit) refillsWithin(k uint) bool {
	needHi, needLo := bits.Mul64(uint64(l.burst), uint64(l.per))
	haveHi, haveLo := bits.Mul64(uint64(l.n), 1<<k)
	return needHi < haveHi || needHi == haveHi && needLo <= haveLo
}
