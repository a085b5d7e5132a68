package ratelimit_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

func TestSetLimitCarriesWhatIsFree(t *testing.T) {
	const second = time.Second
	for _, tc := range []struct {
		name     string
		from     ratelimit.Limit
		take     int64
		to       ratelimit.Limit
		free     int64         // right after the change
		refill   time.Duration // to the new burst
		nextUnit time.Duration
	}{
		{"a higher burst fills up", ratelimit.Per(10, second), 4, ratelimit.Per(10, second).Burst(100), 6, 9400 * time.Millisecond, 0},
		{"a lower burst caps", ratelimit.Per(10, second), 4, ratelimit.Per(10, second).Burst(3), 3, 0, 0},
		{"a lower burst below what is free", ratelimit.Per(10, second), 8, ratelimit.Per(10, second).Burst(3), 2, 100 * time.Millisecond, 0},
		{"a faster rate", ratelimit.Per(10, second), 10, ratelimit.Per(1000, second).Burst(10), 0, 10 * time.Millisecond, time.Millisecond},
		{"a slower rate", ratelimit.Per(1000, second), 1000, ratelimit.Per(1, time.Minute).Burst(5), 0, 5 * time.Minute, time.Minute},
		{"finer ticks", ratelimit.Per(10, second), 9, ratelimit.Per(1023, second).Burst(10), 1, 8797654 * time.Nanosecond, 0},
		{"coarser ticks", ratelimit.Per(1023, second).Burst(10), 9, ratelimit.Per(10, second), 1, 900 * time.Millisecond, 0},
		{"the same rate in other words", ratelimit.Per(60, time.Minute).Burst(3), 2, ratelimit.Per(1, second).Burst(3), 1, 2 * second, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLimiter(t, tc.from)
				require.True(t, l.Take(tc.take).Allowed)
				require.NoError(t, l.SetLimit(tc.to))
				require.Equal(t, tc.to, l.Limit())
				d := l.Take(0)
				require.Equal(t, tc.free, d.Remaining)
				require.Equal(t, tc.refill, d.ResetAfter)
				if tc.free == 0 {
					require.Equal(t, tc.nextUnit, l.Take(1).RetryAfter)
				}
				time.Sleep(tc.refill)
				_, _, burst := tc.to.Values()
				require.Equal(t, burst, l.Take(0).Remaining)
				require.False(t, l.Take(burst+1).Allowed)
				require.True(t, l.Take(burst).Allowed)
			})
		})
	}
}

func TestSetLimitOnAFreshLimiterGivesTheNewBurst(t *testing.T) {
	l := newLimiter(t, ratelimit.Per(10, time.Second))
	require.NoError(t, l.SetLimit(ratelimit.Per(1023, time.Second)))
	require.Equal(t, int64(1023), l.Take(0).Remaining)
}

func TestSetLimitCarriesDebtAndPromises(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Per(10, time.Second).Burst(1))
		require.True(t, l.Allow())
		first, err := l.Reserve(1, time.Second)
		require.NoError(t, err)
		second, err := l.Reserve(1, time.Second)
		require.NoError(t, err)

		// Two units are owed: at one a second, the third comes after three.
		require.NoError(t, l.SetLimit(ratelimit.Per(1, time.Second)))
		require.Equal(t, 100*time.Millisecond, first.Delay(), "what was promised stands")
		require.Equal(t, 200*time.Millisecond, second.Delay())
		require.InDelta(t, 3*time.Second, l.Take(1).RetryAfter, 1)
		require.GreaterOrEqual(t, l.Take(1).RetryAfter, 3*time.Second)
	})
}

func TestSettingTheSameLimitChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := ratelimit.Per(1023, time.Second).Burst(7)
		l := newLimiter(t, limit)
		l.Take(5)
		before := l.Take(0)
		for range 1000 {
			require.NoError(t, l.SetLimit(limit))
		}
		require.Equal(t, before, l.Take(0))
	})
}

// Setting limits back and forth in a loop must not pump units out of rounding.
func TestChangingLimitsMintsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := []ratelimit.Limit{
			ratelimit.Per(7, time.Hour).Burst(10),
			ratelimit.Per(1023, time.Second).Burst(10),
			ratelimit.Per(999_999_937, day).Burst(10),
			ratelimit.Per(1, day).Burst(10),
		}
		l := newLimiter(t, limits[3])
		require.True(t, l.Take(10).Allowed)
		for i := range 10_000 {
			require.NoError(t, l.SetLimit(limits[i%len(limits)]))
			require.False(t, l.Allow())
		}
	})
}

func TestChangingLimitsForgivesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := ratelimit.Per(1023, time.Second).Burst(10)
		l := newLimiter(t, one)
		for range 5 {
			_, err := l.Reserve(7, time.Hour)
			require.NoError(t, err)
		}
		time.Sleep(777)
		before := l.Take(0).ResetAfter
		for range 10_000 {
			require.NoError(t, l.SetLimit(ratelimit.Per(1_000_000_000, time.Second).Burst(10)))
			require.NoError(t, l.SetLimit(one))
		}
		after := l.Take(0).ResetAfter
		require.GreaterOrEqual(t, after, before)
		require.Less(t, after, before+2*time.Millisecond, "and the rounding against the caller stays small")
	})
}

func TestSetLimitRefusesNobodyInPassing(t *testing.T) {
	l := newLimiter(t, plenty)
	var wg sync.WaitGroup
	var taking atomic.Int64
	for range 3 {
		taking.Add(1)
		wg.Go(func() {
			defer taking.Add(-1)
			for range 10_000 {
				if !l.Allow() || !l.Take(1).Allowed || l.Wait(t.Context(), 1) != nil {
					t.Error("refused though there was plenty")
					return
				}
			}
		})
	}
	for i := int64(1); taking.Load() > 0; i++ {
		if err := l.SetLimit(plenty.Burst(1<<40 - i%2)); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

func TestSetLimitUnderContentionKeepsTheBound(t *testing.T) {
	fast := ratelimit.Per(1_000_000, time.Second).Burst(1000)
	slow := ratelimit.Per(1023, time.Second).Burst(10)
	l := newLimiter(t, fast)
	var admitted atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				if l.Allow() {
					admitted.Add(1)
				}
				if r, err := l.Reserve(1, 0); err == nil {
					r.Cancel()
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 1000 {
			if i%2 == 0 {
				_ = l.SetLimit(slow)
			} else {
				_ = l.SetLimit(fast)
			}
		}
	})
	wg.Wait()
	window := time.Since(start)
	require.LessOrEqual(t, admitted.Load(), 1000+int64(window/time.Microsecond), "not more than the faster of both")
}
