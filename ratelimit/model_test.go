package ratelimit_test

import (
	"math/big"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// bucket is the naive model: a token bucket in exact fractions, for times that do
// not go back. It knows nothing of arrival times.
type bucket struct {
	interval *big.Rat // nanoseconds a token
	burst    *big.Rat
	tokens   *big.Rat // below zero while somebody waits
	last     time.Time
}

func newBucket(limit ratelimit.Limit, now time.Time) *bucket {
	_, _, burst := limit.Values()
	b := &bucket{interval: limit.Interval(), burst: new(big.Rat).SetInt64(burst), last: now}
	b.tokens = new(big.Rat).Set(b.burst)
	return b
}

func (b *bucket) advance(now time.Time) {
	flown := new(big.Rat).SetInt64(int64(now.Sub(b.last)))
	b.tokens.Add(b.tokens, flown.Quo(flown, b.interval))
	if b.tokens.Cmp(b.burst) > 0 {
		b.tokens.Set(b.burst)
	}
	b.last = now
}

// until returns the time until there are want tokens, rounded up to a nanosecond.
func (b *bucket) until(want *big.Rat) time.Duration {
	lack := new(big.Rat).Sub(want, b.tokens)
	if lack.Sign() <= 0 {
		return 0
	}
	return time.Duration(ceil(lack.Mul(lack, b.interval)).Int64())
}

func ceil(r *big.Rat) *big.Int {
	q, m := new(big.Int).DivMod(r.Num(), r.Denom(), new(big.Int))
	if m.Sign() > 0 {
		q.Add(q, big.NewInt(1))
	}
	return q
}

func floorInt(r *big.Rat) int64 { return new(big.Int).Div(r.Num(), r.Denom()).Int64() }

// take is what Take must answer.
func (b *bucket) take(now time.Time, n int64) ratelimit.Decision {
	b.advance(now)
	want := new(big.Rat).SetInt64(n)
	d := ratelimit.Decision{Limit: b.burst.Num().Int64()}
	switch {
	case n == 0:
		d.Allowed = true
	case n < 0 || want.Cmp(b.burst) > 0:
		d.RetryAfter = -1
	case b.tokens.Cmp(want) >= 0:
		d.Allowed = true
		b.tokens.Sub(b.tokens, want)
	default:
		d.RetryAfter = b.until(want)
	}
	d.Remaining = max(0, floorInt(b.tokens))
	d.ResetAfter = b.until(b.burst)
	return d
}

// grant is n units admitted at a time.
type grant struct {
	at time.Time
	n  int64
}

// requireBound checks the theorem: in every window from one grant to another, both
// included, at most burst + rate * length units were granted. The rate is the one
// that the limit names, not the one that is kept.
func requireBound(t require.TestingT, limit ratelimit.Limit, grants []grant) {
	n, d, burst := limit.Values()
	rate := big.NewRat(n, int64(d))
	grants = slices.Clone(grants)
	slices.SortStableFunc(grants, func(a, b grant) int { return a.at.Compare(b.at) })
	for i := range grants {
		sum := int64(0)
		for j := i; j < len(grants); j++ {
			sum += grants[j].n
			window := grants[j].at.Sub(grants[i].at)
			bound := new(big.Rat).SetInt64(int64(window))
			bound.Mul(bound, rate).Add(bound, new(big.Rat).SetInt64(burst))
			if new(big.Rat).SetInt64(sum).Cmp(bound) > 0 {
				require.Failf(t, "the limit was exceeded", "%v admitted %d in %v, at most %v", limit, sum, window, bound.FloatString(3))
			}
		}
	}
}
