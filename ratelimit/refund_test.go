package ratelimit_test

import (
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// What is given back from the middle of a queue can bring the word back to where another
// cancellation has just seen it, with a promise behind it that was not there before.
func TestCancellingAtTheSameTimeKeepsThePromiseBehind(t *testing.T) {
	for range 2000 {
		l := newLimiter(t, ratelimit.Per(1, time.Hour).Burst(10))
		first, err := l.Reserve(5, 0)
		require.NoError(t, err)
		second, err := l.Reserve(5, 0)
		require.NoError(t, err)
		var wg sync.WaitGroup
		wg.Go(func() { first.Cancel() })
		var third ratelimit.Reservation
		wg.Go(func() {
			third, err = l.Reserve(5, 10*time.Hour)
			second.Cancel()
		})
		wg.Wait()
		require.NoError(t, err)
		require.GreaterOrEqual(t, l.Peek(0).ResetAfter+time.Second, third.Delay()+5*time.Hour)
	}
}

// A key that has lost its slot after its debt was paid may come back with a clock that was
// read before: what others gave back meanwhile must not make it richer.
func TestARefundDoesNotHelpAKeyWithALateClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeyed[int](t, ratelimit.Per(1, time.Second).Burst(10), 1)
		start := time.Now()
		for key := range ratelimit.Ways - 2 {
			require.True(t, k.TakeAt(key, start.Add(4*time.Second), 10).Allowed)
		}
		require.True(t, k.TakeAt(100, start, 10).Allowed)
		var waiting []ratelimit.Reservation
		for _, n := range []int64{10, 5} {
			r, err := k.Reserve(200, n, time.Hour)
			require.NoError(t, err)
			waiting = append(waiting, r)
		}
		require.True(t, k.TakeAt(300, start.Add(11*time.Second), 1).Allowed) // in the slot of 100
		waiting[1].Cancel()
		waiting[0].Cancel()
		require.False(t, k.TakeAt(100, start.Add(9*time.Second), 10).Allowed, "20 in 9 seconds")
		require.True(t, k.TakeAt(100, start.Add(10*time.Second), 10).Allowed)
	})
}

func TestTheFirstReservationGivesBackTooThoughOthersOwe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeyed[int](t, ratelimit.Per(1, time.Hour).Burst(10), 1)
		require.True(t, k.Take(1, 10).Allowed)
		r, err := k.Reserve(2, 5, 0)
		require.NoError(t, err)
		r.Cancel()
		require.Equal(t, int64(10), k.Take(2, 0).Remaining)
	})
}

// A set is full before anything is reserved, and a key has lost its slot: what it owed is
// not above any word, and nothing that is given back goes below.
func TestWhatWasLostBeforeTheFirstReservationStaysLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeyed[int](t, ratelimit.Per(1, time.Hour).Burst(10), 1)
		for key := range ratelimit.Ways + 1 { // one key loses five units
			require.True(t, k.Take(key, 5).Allowed)
		}
		r, err := k.Reserve(3, 5, 0)
		require.NoError(t, err)
		r.Cancel()
		for key := range ratelimit.Ways + 1 {
			require.LessOrEqual(t, k.Peek(key, 0).Remaining, int64(5), "key %d", key)
		}
	})
}

// A promise under a smaller burst rests on more of what lies before it.
func TestARefundKeepsPromisesUnderAnotherLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := ratelimit.Per(1, time.Second).Burst(10)
		k, err := ratelimit.NewKeyedBy(func(int) ratelimit.Limit { return limit }, ratelimit.KeyedOptions{Capacity: 1})
		require.NoError(t, err)
		reserve := func(n int64, delay time.Duration) ratelimit.Reservation {
			r, err := k.Reserve(1, n, time.Hour)
			require.NoError(t, err)
			require.Equal(t, delay, r.Delay())
			return r
		}
		owed := func(seconds time.Duration) {
			t.Helper()
			require.Equal(t, seconds*time.Second, k.Peek(1, 0).ResetAfter)
		}
		r := reserve(10, 0)
		limit = limit.Burst(2)
		reserve(2, 10*time.Second)
		r.Cancel()
		owed(12) // 2 units that come after 10 seconds

		time.Sleep(12 * time.Second) // nobody waits any more
		limit = limit.Burst(10)
		r = reserve(10, 0)
		reserve(2, 2*time.Second)
		r.Cancel()
		owed(4)

		limit = limit.Burst(2)
		reserve(1, 3*time.Second)
		limit = limit.Burst(10)
		r = reserve(6, time.Second)
		reserve(1, 2*time.Second)
		r.Cancel()
		owed(11) // as if all had waited under the smaller burst: 1 is more than 2 - 1
	})
}

// The tolerance of those who wait goes with the key that loses the slot.
func TestANewKeyIsNotBoundByThePromisesOfTheOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, err := ratelimit.NewKeyedBy(func(key int) ratelimit.Limit {
			if key == 0 {
				return ratelimit.Per(1, time.Second).Burst(1)
			}
			return ratelimit.Per(1, time.Second).Burst(10)
		}, ratelimit.KeyedOptions{Capacity: 1})
		require.NoError(t, err)
		for range 2 {
			_, err := k.Reserve(0, 1, time.Hour)
			require.NoError(t, err)
		}
		for key := 1; key < ratelimit.Ways; key++ {
			require.True(t, k.Take(key, 10).Allowed)
		}
		r, err := k.Reserve(100, 8, 0) // takes over the slot of 0, and owes 2 more
		require.NoError(t, err)
		_, err = k.Reserve(100, 2, time.Hour)
		require.NoError(t, err)
		r.Cancel()
		require.Equal(t, 4*time.Second, k.Peek(100, 0).ResetAfter)
	})
}

// A time before a frame that cannot be moved is no time at which a key has a fresh burst.
func TestATimeBeforeTheFrameGrantsNothingToANewcomer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := ratelimit.Per(1023, 10*time.Hour).Burst(1023 * 60) // refills in 25 days
		_, _, burst := limit.Values()
		frame := limit.Frame()
		k := newKeyed[int](t, limit, 1)
		start := time.Now()
		time.Sleep(frame - time.Hour)
		r, err := k.Reserve(1, 1, 0)
		require.NoError(t, err)
		r.Settle(math.MaxInt64) // holds the frame
		before, within := start.Add(-frame*3/2), start.Add(-frame+time.Hour)
		require.Less(t, within.Sub(before), 20*day)
		require.False(t, k.TakeAt(2, before, burst).Allowed)
		require.False(t, ratelimit.AllAt(before, k.Want(2, burst)).Allowed)
		require.True(t, k.TakeAt(2, within, burst).Allowed)
	})
}

func TestTheTwoEndsOfTime(t *testing.T) {
	limit := ratelimit.Per(1, time.Second)
	for _, times := range [][2]int{{1, 2300}, {1700, 2300}, {1700, 9999}} {
		l, k := newLimiter(t, limit), newKeyed[int](t, limit, 1)
		for _, year := range times {
			at := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
			require.True(t, l.TakeAt(at, 1).Allowed, "%d", year)
			require.True(t, k.TakeAt(1, at, 1).Allowed, "%d", year)
			require.False(t, l.TakeAt(at, 1).Allowed)
			require.False(t, k.TakeAt(1, at, 1).Allowed)
		}
	}
}

func TestADebtIsShownWithItsLabel(t *testing.T) {
	k, err := ratelimit.NewKeyed[string](ratelimit.Per(1, time.Hour).Burst(10), ratelimit.KeyedOptions{Capacity: 1, Labels: 5})
	require.NoError(t, err)
	r, err := k.Reserve("ann", 0, 0)
	require.NoError(t, err)
	r.Settle(3) // takes the slot only now
	for label := range k.All() {
		require.Equal(t, "ann", label)
	}
	require.Equal(t, 1, k.Stats().Live)
}
