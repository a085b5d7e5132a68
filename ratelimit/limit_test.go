package ratelimit_test

import (
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// day is the longest unit of the text form.
const day = 24 * time.Hour

func TestInvalidLimitsAreRefusedByName(t *testing.T) {
	for _, tc := range []struct {
		name  string
		limit ratelimit.Limit
		want  []string
	}{
		{"zero value", ratelimit.Limit{}, []string{"zero Limit", "expected one from Per"}},
		{"n zero", ratelimit.Per(0, time.Second), []string{"n is 0", "expected at least 1"}},
		{"n negative", ratelimit.Per(-3, time.Second), []string{"n is -3", "expected at least 1"}},
		{"d zero", ratelimit.Per(1, 0), []string{"d is 0s", "expected at least 1ns"}},
		{"d negative", ratelimit.Per(1, -time.Second), []string{"d is -1s", "expected at least 1ns"}},
		{"burst zero", ratelimit.Per(1, time.Second).Burst(0), []string{"burst is 0", "expected at least 1"}},
		{"burst negative", ratelimit.Per(1, time.Second).Burst(-1), []string{"burst is -1", "expected at least 1"}},
		{"too fast", ratelimit.Per(1_000_000_001, time.Second), []string{"1000000001 per 1s", "one unit a nanosecond"}},
		{"refills too slowly", ratelimit.Per(1, day).Burst(20_000), []string{"burst is 20000", "refills in less than"}},
		{"burst without end", ratelimit.Per(1, day).Burst(math.MaxInt64), []string{"burst is 9223372036854775807"}},
		{"period without end", ratelimit.Per(1, math.MaxInt64), []string{"burst is 1", "refills in less than"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, newErr := ratelimit.NewLimiter(tc.limit)
			_, keyedErr := ratelimit.NewKeyed[string](tc.limit, ratelimit.KeyedOptions{})
			l := newLimiter(t, ratelimit.Per(1, time.Second))
			setErr := l.SetLimit(tc.limit)
			_, textErr := tc.limit.MarshalText()
			for _, err := range []error{newErr, keyedErr, setErr, textErr} {
				require.ErrorIs(t, err, ratelimit.ErrInvalidLimit)
				for _, want := range tc.want {
					require.ErrorContains(t, err, want)
				}
			}
			require.Equal(t, ratelimit.Per(1, time.Second), l.Limit(), "a refused limit changes nothing")
		})
	}
}

func TestExtremeLimitsAreKept(t *testing.T) {
	for _, limit := range []ratelimit.Limit{
		ratelimit.Per(1, day),
		ratelimit.Per(1, day).Burst(13_343),
		ratelimit.Per(1, 30*365*day),
		ratelimit.Per(1_000_000_000, time.Second).Burst(1 << 60),
		ratelimit.Per(999_999_937, time.Second).Burst(1 << 59),
		ratelimit.Per(700_000_000, time.Second),
		ratelimit.Per(math.MaxInt64, math.MaxInt64).Burst(1),
		ratelimit.Per(math.MaxInt64-1, math.MaxInt64).Burst(1 << 59),
		ratelimit.Per(1, 1),
	} {
		t.Run(limit.String(), func(t *testing.T) {
			_, _, burst := limit.Values()
			l := newLimiter(t, limit)
			now := time.Now()
			d := l.TakeAt(now, burst)
			require.True(t, d.Allowed, "a new limiter has its whole burst")
			require.Equal(t, int64(0), d.Remaining)
			d = l.TakeAt(now, burst)
			require.False(t, d.Allowed)
			require.Positive(t, d.RetryAfter)
			require.False(t, l.TakeAt(now.Add(d.RetryAfter-1), burst).Allowed)
			require.True(t, l.TakeAt(now.Add(d.RetryAfter), burst).Allowed)
		})
	}
}

// drawLimit draws valid limits of all sizes, from one a day to one a nanosecond.
func drawLimit(t *rapid.T) ratelimit.Limit {
	d := rapid.OneOf(
		rapid.SampledFrom([]time.Duration{1, time.Microsecond, time.Millisecond, time.Second, time.Minute, time.Hour, day}),
		rapid.Custom(func(t *rapid.T) time.Duration { return time.Duration(rapid.Int64Range(1, int64(2*day)).Draw(t, "ns")) }),
	).Draw(t, "d")
	n := rapid.OneOf(
		rapid.Int64Range(1, min(100, int64(d))),
		rapid.Int64Range(1, int64(d)),
	).Draw(t, "n")
	// The burst refills within 2^59 ns.
	most := new(big.Int).Mul(big.NewInt(n), big.NewInt(1<<59))
	most.Div(most, big.NewInt(int64(d)))
	limit := int64(1 << 59)
	if most.IsInt64() {
		limit = min(limit, most.Int64())
	}
	burst := rapid.OneOf(
		rapid.Int64Range(1, min(50, limit)),
		rapid.Int64Range(1, limit),
	).Draw(t, "burst")
	return ratelimit.Per(n, d).Burst(burst)
}

// interval is what a unit takes by the words of the limit, in nanoseconds.
func interval(l ratelimit.Limit) *big.Rat {
	n, d, _ := l.Values()
	return big.NewRat(int64(d), n)
}

func TestRateIsNeverRoundedUpAndHardlyDown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := drawLimit(t)
		_, _, burst := limit.Values()
		nominal, kept := interval(limit), limit.Interval()
		require.GreaterOrEqual(t, kept.Cmp(nominal), 0, "a unit may not take less than nominal")

		refill := new(big.Rat).Mul(nominal, new(big.Rat).SetInt64(burst))
		if refill.Cmp(new(big.Rat).SetInt64(int64(12*day))) > 0 {
			return
		}
		if nominal.Denom().Cmp(big.NewInt(1024)) <= 0 {
			require.Zero(t, kept.Cmp(nominal), "the rate is exact: %v", kept)
			return
		}
		// Too long by less than 1/1024 ns.
		off := new(big.Rat).Sub(kept, nominal)
		require.Negative(t, off.Cmp(big.NewRat(1, 1024)), "off by %v ns", off)
	})
}

func TestRatesThatPeersRoundAreExact(t *testing.T) {
	// Each of these is over- or under-admitted by a limiter that keeps whole
	// nanoseconds: 700 million a second by 43 % (1 ns instead of 10/7).
	for _, n := range []int64{3, 7, 11, 99, 999, 1023, 600_000, 3_000_000, 44_100, 700_000_000, 999_000_000} {
		limit := ratelimit.Per(n, time.Second)
		require.Zero(t, limit.Interval().Cmp(interval(limit)), "%v", limit)
	}
}
