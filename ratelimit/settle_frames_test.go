package ratelimit_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

func TestSettlingWithoutEndStopsAtAFrame(t *testing.T) {
	for _, limit := range []ratelimit.Limit{
		ratelimit.Per(1023, 10*time.Hour).Burst(1023 * 60), ratelimit.Per(999_999_937, time.Second).Burst(1 << 49), ratelimit.Per(10, time.Second),
	} {
		eachKind(t, limit, func(t *testing.T, l one) {
			time.Sleep(min(limit.Frame(), 200*day) * 9 / 10)
			most := time.Duration(0)
			for range 5 {
				r, err := l.Reserve(0, 0)
				require.NoError(t, err)
				r.Settle(math.MaxInt64)
				d := l.Take(1)
				require.False(t, d.Allowed)
				require.Positive(t, d.RetryAfter)
				if most == 0 {
					most = d.ResetAfter
				}
				require.Equal(t, most, l.Take(0).ResetAfter, "no more than once")
			}
			_, err := l.Reserve(1, 1<<63-1)
			require.ErrorIs(t, err, ratelimit.ErrLimited)
			if most < 200*365*day {
				time.Sleep(most)
				_, _, burst := limit.Values()
				require.True(t, l.Take(burst).Allowed)
			}
		})
	}
}

func TestReserveThatMayNotWaitTakesWhatIsThere(t *testing.T) {
	eachKind(t, ratelimit.Per(10, time.Second), func(t *testing.T, l one) {
		_, err := l.Reserve(4, -time.Hour)
		require.NoError(t, err)
		_, err = l.Reserve(6, math.MinInt64)
		require.NoError(t, err)
		_, err = l.Reserve(1, -1)
		require.ErrorIs(t, err, ratelimit.ErrLimited)
	})
}

func TestPeekForNothingIsAllowedInAnyDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, k := newLimiter(t, ratelimit.Per(10, time.Second)), newKeyed[int](t, ratelimit.Per(10, time.Second), 1)
		for _, l := range []one{l, oneKey{k, 1}} {
			r, err := l.Reserve(1, 0)
			require.NoError(t, err)
			r.Settle(50)
		}
		require.True(t, l.Peek(0).Allowed)
		require.True(t, k.Peek(1, 0).Allowed)
		require.True(t, ratelimit.All(l.Want(0), k.Want(1, 0)).Allowed)
	})
}

func TestARateByKeyIsNeverRoundedUp(t *testing.T) {
	for _, n := range []int64{999_999_937, 15_000_001, 64_000_001, 3_333_333} {
		limit := ratelimit.Per(n, time.Second).Burst(2_000_000_000)
		k, err := ratelimit.NewKeyedBy(func(int) ratelimit.Limit { return limit }, ratelimit.KeyedOptions{Capacity: 1})
		require.NoError(t, err)
		require.True(t, k.TakeAt(1, origin, 2_000_000_000).Allowed)
		flown := k.TakeAt(1, origin.Add(time.Second), 0).Remaining
		require.LessOrEqual(t, flown, n)
		if n < 64_000_000 {
			require.Greater(t, flown, n-n/1000, "and down by less than 0.1 %%")
		}
	}
}

// After a change of limit what a reservation gives back is what nothing rested on, also if
// the frame has moved in between.
func TestCancellingFollowsFramesAndLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := ratelimit.Per(1023, 10*time.Hour).Burst(40)
		_, _, burst := limit.Values()
		l := newLimiter(t, limit)
		time.Sleep(limit.Frame() - time.Second)
		first, err := l.Reserve(4, 0)
		require.NoError(t, err)
		second, err := l.Reserve(4, 0)
		require.NoError(t, err)
		third, err := l.Reserve(4, 0)
		require.NoError(t, err)
		first.Cancel() // from the middle: counted
		time.Sleep(2 * time.Second)
		require.Equal(t, burst-8, l.Take(0).Remaining)
		require.Greater(t, l.Limit().Frame(), 5*time.Second) // the frame was left
		third.Cancel()
		require.Equal(t, burst-4, l.Take(0).Remaining, "the last one goes back as a whole")
		require.NoError(t, l.SetLimit(limit.Burst(50)))
		second.Cancel()
		require.Equal(t, burst, l.Take(0).Remaining, "what rested on it is gone")
	})
}

// A charge that had to wait and shrinks has waited for its whole size: what it gives back
// counts against those before it, also when it is the last.
func TestAShrunkPromiseKeepsItsTime(t *testing.T) {
	eachKind(t, ratelimit.Per(1, time.Second).Burst(10), func(t *testing.T, l one) {
		require.True(t, l.Take(10).Allowed)
		before, err := l.Reserve(5, time.Hour)
		require.NoError(t, err)
		last, err := l.Reserve(10, time.Hour)
		require.NoError(t, err)
		require.Equal(t, 15*time.Second, last.Delay())
		last.Settle(1)
		before.Cancel()
		require.Equal(t, 16*time.Second, l.Take(0).ResetAfter, "one unit that comes after 15 seconds")
	})
}
