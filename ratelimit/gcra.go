package ratelimit

import (
	"fmt"
	"math"
	"math/bits"
	"time"
)

// The generic cell rate algorithm (ITU-T I.371, appendix on the virtual
// scheduling algorithm) keeps one number, the theoretical arrival time (TAT): the
// moment at which everything granted so far has flowed in again. A grant of n
// units moves it by n emission intervals, starting from now if it lies in the
// past, and is refused if it would then lie more than a burst ahead.
//
// Here the number is an int64 of ticks. A tick is 1/scale of a nanosecond, and
// the scale is chosen for each limit so that an emission interval is a whole
// number of ticks. Ticks count from the base of a frame: a span of time around it
// in which nothing below can overflow. The budget of the 63 bits:
//
//	now            -1*budget … 1*budget, or past if it lies before the frame
//	tolerance      below 2*budget
//	wait           at most 1*budget
//	a word         -1*budget … 4*budget; frozen lies above, unused below
const (
	budgetBits = 60
	budget     = int64(1) << budgetBits

	// maxScale makes the emission interval of the fastest rate (1 ns) at most
	// 0.1 % too long, and a frame of the finest ticks 13 days long each way.
	maxScaleBits = 10

	// lowest is the least word that a charge can leave.
	lowest = -budget

	// past stands for a time before the frame. It is so early that any word of
	// lowest or more refuses: what it was then is no longer known.
	past = lowest - 2*budget

	// unused is the word of a limiter that was never charged. It is earlier than
	// any time, so that it needs no case of its own.
	unused = math.MinInt64

	// frozen is the word of a state that has a successor, or that All has hold of. It
	// refuses every charge, so that only the refusing path has to look for it.
	frozen = 4*budget + 1
)

// core is a Limit compiled to ticks. It is immutable.
type core struct {
	scale int64 // ticks a nanosecond
	cost  int64 // ticks a unit: the emission interval
	tol   int64 // burst units in ticks: how far ahead a word may lie after a charge
	span  int64 // nanoseconds from the base of a frame to either end
	burst int64
}

// compile checks l and chooses its scale.
func (l Limit) compile() (core, error) {
	if err := l.check(); err != nil {
		return core{}, err
	}
	g := gcd(l.n, int64(l.per))
	n, per := l.n/g, int64(l.per)/g

	// The finest scale that leaves the tolerance in its budget.
	k := uint(maxScaleBits)
	for k > 0 && !l.refillsWithin(budgetBits-k) {
		k--
	}
	c := core{burst: l.burst}
	if n <= 1<<k {
		c.scale, c.cost = n, per // exact
	} else {
		c.scale, c.cost = roundUp(per, n, 1<<k)
	}
	c.tol = c.burst * c.cost
	c.span = budget / c.scale
	return c, nil
}

// keyScaleBits is the scale of limits by key, whose words share a table: a rate of up to
// 60 million units a second is kept at most 0.1 % too slow, and bursts may take 208 days.
const keyScaleBits = 6

// compileByKey checks l and compiles it to the scale of all limits by key.
func (l Limit) compileByKey() (core, error) {
	if err := l.check(); err != nil {
		return core{}, err
	}
	const most = budget >> keyScaleBits
	if !l.refillsWithin(budgetBits - keyScaleBits) {
		return core{}, fmt.Errorf("%w: burst is %d, expected one that refills in less than %v, as a limit by key", ErrInvalidLimit, l.burst, time.Duration(most))
	}
	hi, lo := bits.Mul64(uint64(l.per), 1<<keyScaleBits)
	q, r := bits.Div64(hi, lo, uint64(l.n)) // below per*64/n <= 2^60: one unit is in the burst
	if r > 0 {
		q++
	}
	return core{scale: 1 << keyScaleBits, cost: int64(q), tol: l.burst * int64(q), span: most, burst: l.burst}, nil
}

// roundUp returns the least fraction cost/scale that is at least per/n and whose
// scale is at most maxScale. It tries them all, which is easy to trust, and runs
// once a limit.
func roundUp(per, n, maxScale int64) (scale, cost int64) {
	for s := int64(1); s <= maxScale; s++ {
		hi, lo := bits.Mul64(uint64(per), uint64(s))
		q, r := bits.Div64(hi, lo, uint64(n)) // hi < n: s <= maxScale < n, and per fits in 63 bits
		if r > 0 {
			q++
		}
		c := int64(q)
		if scale == 0 || lessProduct(c, scale, cost, s) {
			scale, cost = s, c
		}
	}
	return scale, cost
}

// lessProduct reports a*b < c*d for non-negative numbers.
func lessProduct(a, b, c, d int64) bool {
	aHi, aLo := bits.Mul64(uint64(a), uint64(b))
	cHi, cLo := bits.Mul64(uint64(c), uint64(d))
	return aHi < cHi || aHi == cHi && aLo < cLo
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// inFrame reports whether ns, in nanoseconds from the base, can be counted in
// ticks.
func (c *core) inFrame(ns int64) bool { return uint64(ns+c.span) <= uint64(2*c.span) }

// admits reports whether n units, 0 <= n <= burst, may be charged to a word at
// the time now, and the word that the charge leaves.
func (c *core) admits(word, now, n int64) (next int64, ok bool) {
	start, cost := max(word, now), n*c.cost
	return start + cost, start-now <= c.tol-cost
}

// possible reports whether n is a number of units that can ever be granted.
func (c *core) possible(n int64) bool { return uint64(n) <= uint64(c.burst) }

// decide describes the outcome of asking for n units of word at the time now. It
// writes to d: a Decision has too many fields for the compiler to keep it in
// registers, and each copy through memory would cost as much as the decision.
func (c *core) decide(d *Decision, word, now, n int64, allowed bool) {
	ahead := max(word, now) - now
	d.Allowed, d.Limit = allowed, c.burst
	switch {
	case allowed:
		ahead += n * c.cost
	case !c.possible(n):
		d.RetryAfter = never
	default:
		d.RetryAfter = c.duration(ahead + n*c.cost - c.tol)
	}
	d.Remaining, d.ResetAfter = c.rest(ahead)
}

// rest returns what remains and when all is back, if the word lies so far ahead of now.
func (c *core) rest(ahead int64) (remaining int64, resetAfter time.Duration) {
	if free := c.tol - ahead; free > 0 {
		remaining = free / c.cost
	}
	return remaining, c.duration(ahead)
}

// book returns the word that a charge of n units leaves which may be used after a delay
// of at most most, and the delay; an error says why it cannot be, with the delay that
// it would take, or never.
func (c *core) book(word, now, n int64, most time.Duration) (next int64, delay time.Duration, err error) {
	switch {
	case n == 0:
		return word, 0, nil
	case n < 0:
		return word, never, ErrNegative
	case n > c.burst:
		return word, never, ErrExceedsBurst
	}
	next = max(word, now) + n*c.cost
	wait := max(0, next-now-c.tol)
	delay = c.duration(wait)
	if wait > budget || delay > 0 && delay > most {
		return word, delay, ErrLimited
	}
	return next, delay, nil
}

// owing returns the word after a charge of n units that asks nobody, up to a budget of
// debt.
func (c *core) owing(word, now, n int64) int64 {
	start := max(word, now)
	room := now + c.tol + budget - start
	if room <= 0 {
		return word
	}
	return start + min(mulDiv(n, c.cost, 1), room)
}

// free returns the number of whole units that could be charged to word at the time now.
func (c *core) free(word, now int64) int64 {
	if left := c.tol - (max(word, now) - now); left > 0 {
		return left / c.cost
	}
	return 0
}

// foresee describes the outcome of asking for n units, none of which are charged.
func (c *core) foresee(d *Decision, word, now, n int64) {
	ok := n == 0
	if !ok && c.possible(n) {
		_, ok = c.admits(word, now, n)
	}
	if !ok {
		c.decide(d, word, now, n, false)
		return
	}
	c.decide(d, word, now, 0, true)
}

// duration rounds ticks up to nanoseconds.
func (c *core) duration(ticks int64) time.Duration {
	if c.scale == 1 {
		return time.Duration(ticks)
	}
	return time.Duration((ticks + c.scale - 1) / c.scale)
}

// shift carries a word into a frame whose base lies d nanoseconds later. A word
// that would fall below the new frame is raised to its lower end, which can only
// refuse; ok is false if the word would rise above what can be counted.
func (c *core) shift(word, d int64) (moved int64, ok bool) {
	if word == unused {
		return unused, true
	}
	by := mulDiv(max(d, -d), c.scale, 1)
	if d >= 0 {
		return word - min(by, word-lowest), true
	}
	if by >= frozen-word {
		return 0, false
	}
	return word + by, true
}

// convert carries a word at the time now to another limit at the time nextNow,
// so that as many units are free after as before, or the new burst if that is
// less; a debt is carried too. What is rounded is rounded against the caller.
func (c *core) convert(word, now int64, next *core, nextNow int64) int64 {
	if word == unused {
		return unused // nothing was ever taken: there is nothing to carry
	}
	free := c.tol - (max(word, now) - now)
	if free >= 0 {
		return nextNow + next.tol - min(mulDiv(free, next.cost, c.cost), next.tol)
	}
	// A debt is what was promised to those who wait: at most one budget.
	owed := mulDiv(-free, next.cost, c.cost)
	if owed < budget && lessProduct(owed, c.cost, -free, next.cost) {
		owed++
	}
	return nextNow + next.tol + min(owed, budget)
}

// mulDiv returns a*b/c rounded down, or MaxInt64 if that is more.
func mulDiv(a, b, c int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi >= uint64(c) {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int64(min(q, math.MaxInt64))
}
