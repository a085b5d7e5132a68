package ratelimit_test

import (
	"context"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

func TestReservationsQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Per(10, time.Second).Burst(2))
		var rs []ratelimit.Reservation
		for i, want := range []time.Duration{0, 0, 100, 200, 300} {
			r, err := l.Reserve(1, time.Second)
			require.NoError(t, err)
			require.Equal(t, want*time.Millisecond, r.Delay(), "reservation %d", i)
			rs = append(rs, r)
		}
		require.False(t, l.Allow(), "nothing overtakes the queue")
		time.Sleep(250 * time.Millisecond)
		require.Equal(t, 50*time.Millisecond, rs[4].Delay(), "Delay counts from now")
		require.Zero(t, rs[3].Delay())
		require.False(t, l.Allow())
		time.Sleep(150 * time.Millisecond)
		require.True(t, l.Allow(), "the unit after those that were promised")
		require.False(t, l.Allow())
	})
}

func TestReserveRefusesWithoutCharging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := ratelimit.Per(10, time.Second)
		l := newLimiter(t, limit)
		require.True(t, l.Take(8).Allowed)
		before := l.Take(0)
		for _, tc := range []struct {
			n       int64
			maxWait time.Duration
			err     error
			retry   time.Duration
		}{
			{5, 0, ratelimit.ErrLimited, 300 * time.Millisecond},
			{5, -time.Second, ratelimit.ErrLimited, 300 * time.Millisecond},
			{5, 300*time.Millisecond - 1, ratelimit.ErrLimited, 300 * time.Millisecond},
			{11, time.Hour, ratelimit.ErrExceedsBurst, -1},
			{1 << 62, time.Hour, ratelimit.ErrExceedsBurst, -1},
			{-1, time.Hour, ratelimit.ErrNegative, -1},
		} {
			r, err := l.Reserve(tc.n, tc.maxWait)
			require.ErrorIs(t, err, tc.err)
			var limited *ratelimit.LimitError
			require.ErrorAs(t, err, &limited)
			require.Equal(t, ratelimit.LimitError{N: tc.n, Limit: limit, RetryAfter: tc.retry, Err: tc.err}, *limited)
			require.Zero(t, r)
			require.Equal(t, before, l.Take(0), "nothing was charged")
		}
		r, err := l.Reserve(0, 0)
		require.NoError(t, err, "nothing is always there")
		require.Zero(t, r.Delay())
		r.Cancel()
		_, err = l.Reserve(5, 300*time.Millisecond)
		require.NoError(t, err, "exactly maxWait is accepted")
	})
}

func TestAReservationIsNeverWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, limit := range []ratelimit.Limit{ratelimit.Per(1, 50*day), ratelimit.Per(1023, time.Hour)} {
			l := newLimiter(t, limit)
			n, _, _ := limit.Values()
			var err error
			var last ratelimit.Reservation
			for range 10_000 {
				var r ratelimit.Reservation
				if r, err = l.Reserve(n, 1<<63-1); err != nil {
					break
				}
				require.GreaterOrEqual(t, r.Delay(), last.Delay())
				last = r
			}
			require.ErrorIs(t, err, ratelimit.ErrLimited)
			require.Greater(t, last.Delay(), 12*day)
			require.False(t, l.Allow())
		}
	})
}

func TestTheZeroReservationIsHarmless(t *testing.T) {
	var r ratelimit.Reservation
	require.Zero(t, r.Delay())
	r.Cancel()
}

func TestCancelGivesBackEverythingWhenNothingFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Per(10, time.Second))
		r, err := l.Reserve(5, 0)
		require.NoError(t, err)
		time.Sleep(time.Nanosecond) // x/time/rate gives nothing back from here on
		r.Cancel()
		require.Equal(t, int64(10), l.Take(0).Remaining)
		r.Cancel()
		require.Equal(t, int64(10), l.Take(0).Remaining)

		// A queue that is left from its end is as if it had never been.
		l.Take(10)
		before := l.Take(0)
		var queue []ratelimit.Reservation
		for n := range int64(10) {
			r, err := l.Reserve(n+1, time.Hour)
			require.NoError(t, err)
			queue = append(queue, r)
		}
		for i := len(queue) - 1; i >= 0; i-- {
			queue[i].Cancel()
			queue[i].Cancel()
			require.Zero(t, queue[i].Delay())
		}
		require.Equal(t, before, l.Take(0))
	})
}

func TestCancelInTheMiddleGivesBackWhatNothingRestsOn(t *testing.T) {
	for _, tc := range []struct {
		name   string
		burst  int64
		before int64 // taken before
		n      int64 // reserved, then cancelled
		behind []int64
		pause  time.Duration
		back   int64
	}{
		// x/time/rate gives nothing back here.
		{name: "half a burst before half a burst", burst: 10, before: 10, n: 5, behind: []int64{5}, back: 5},
		{name: "a burst before a unit", burst: 10, before: 10, n: 10, behind: []int64{1}, back: 9},
		{name: "a unit before a burst", burst: 10, before: 10, n: 1, behind: []int64{10}, back: 0},
		{name: "no burst to speak of", burst: 1, before: 1, n: 1, behind: []int64{1}, back: 0},
		{name: "several behind", burst: 10, before: 10, n: 5, behind: []int64{3, 3}, back: 4},
		{name: "without delay", burst: 10, before: 0, n: 4, behind: []int64{4}, back: 4},
		{name: "partly drained", burst: 10, before: 0, n: 4, behind: []int64{4}, pause: 300 * time.Millisecond, back: 1},
		{name: "all drained", burst: 10, before: 0, n: 4, behind: []int64{4}, pause: 400 * time.Millisecond, back: 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLimiter(t, ratelimit.Per(10, time.Second).Burst(tc.burst))
				require.True(t, l.Take(tc.before).Allowed)
				r, err := l.Reserve(tc.n, time.Hour)
				require.NoError(t, err)
				time.Sleep(tc.pause)
				for _, n := range tc.behind {
					_, err := l.Reserve(n, time.Hour)
					require.NoError(t, err)
				}
				before := l.Take(0).ResetAfter
				r.Cancel()
				require.Equal(t, time.Duration(tc.back)*100*time.Millisecond, before-l.Take(0).ResetAfter)
				r.Cancel()
				require.Equal(t, time.Duration(tc.back)*100*time.Millisecond, before-l.Take(0).ResetAfter)
			})
		})
	}
}

func TestCancelAfterAChangeOfLimit(t *testing.T) {
	const second = time.Second
	for _, tc := range []struct {
		name   string
		from   ratelimit.Limit
		to     []ratelimit.Limit
		follow bool // something is reserved behind it before the change
		free   int64
		owed   time.Duration
	}{
		{"the last charge, burst raised", ratelimit.Per(10, second), []ratelimit.Limit{ratelimit.Per(10, second).Burst(20)}, false, 8, 1200 * time.Millisecond},
		{"the last charge, rate lowered", ratelimit.Per(10, second), []ratelimit.Limit{ratelimit.Per(1, second).Burst(10)}, false, 8, 2 * second},
		{"the last charge, burst lowered below n", ratelimit.Per(10, second), []ratelimit.Limit{ratelimit.Per(10, second).Burst(3)}, false, 3, 0},
		{"two changes", ratelimit.Per(10, second), []ratelimit.Limit{ratelimit.Per(1, second).Burst(30), ratelimit.Per(10, second).Burst(10)}, false, 8, 200 * time.Millisecond},
		{"not the last charge", ratelimit.Per(10, second), []ratelimit.Limit{ratelimit.Per(10, second).Burst(20)}, true, 2, 1800 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLimiter(t, tc.from)
				require.True(t, l.Take(2).Allowed)
				r, err := l.Reserve(5, second)
				require.NoError(t, err)
				if tc.follow {
					_, err := l.Reserve(1, second)
					require.NoError(t, err)
				}
				for _, limit := range tc.to {
					require.NoError(t, l.SetLimit(limit))
				}
				r.Cancel()
				require.Equal(t, tc.free, l.Take(0).Remaining)
				require.Equal(t, tc.owed, l.Take(0).ResetAfter)
			})
		})
	}
}

func TestCancelAcrossAFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := ratelimit.Per(1023, 10*time.Hour).Burst(4) // needs fine ticks
		l := newLimiter(t, limit)
		time.Sleep(limit.Frame() - time.Second)
		earlier, err := l.Reserve(1, 0)
		require.NoError(t, err)
		require.True(t, l.Take(1).Allowed)
		earlier.Cancel()

		r, err := l.Reserve(2, 0)
		require.NoError(t, err)
		require.True(t, l.Take(1).Allowed)
		const slept = 40 * time.Second
		time.Sleep(slept)
		owed := func(units int64) time.Duration {
			sum := new(big.Rat).Mul(limit.Interval(), big.NewRat(units, 1))
			return time.Duration(ceil(sum).Int64())
		}
		require.Equal(t, owed(4)-slept, l.Take(0).ResetAfter)
		r.Cancel() // what has not drained of it goes back; the unit behind it is still owed
		require.Equal(t, owed(1), l.Take(0).ResetAfter)
	})
}

// Units given back from the middle of a queue and taken again bring the word back to
// where a reservation left it, though something rests on that reservation.
func TestCancelIsNotFooledByAWordThatCameBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Per(1, time.Second).Burst(10))
		first, err := l.Reserve(4, 0)
		require.NoError(t, err)
		second, err := l.Reserve(6, 0)
		require.NoError(t, err)
		time.Sleep(3 * time.Second)
		first.Cancel() // gives back the one unit that had not drained
		require.Equal(t, 6*time.Second, l.Take(0).ResetAfter)
		time.Sleep(2 * time.Second)
		require.True(t, l.Take(1).Allowed)
		require.Equal(t, 5*time.Second, l.Take(0).ResetAfter, "as right after the second reservation")
		second.Cancel()
		// Of all this only the last unit was used. What is owed may be more than
		// that unit, never less.
		require.GreaterOrEqual(t, l.Take(0).ResetAfter, time.Second)
		require.LessOrEqual(t, l.Take(0).Remaining, int64(9))
	})
}

// ledger is the state machine's model: every charge with the time that it was
// promised, and whether it was cancelled.
type ledger struct {
	interval time.Duration
	charges  []charge
}

type charge struct {
	at        time.Time
	n         int64
	cancelled bool
	token     ratelimit.Reservation
}

// arrival is the theoretical arrival time over what was not cancelled, from the
// definition: the latest, over all charges, of its time plus all that was charged
// from it on.
func (m *ledger) arrival() (latest time.Time) {
	sum := time.Duration(0)
	for i := len(m.charges) - 1; i >= 0; i-- {
		c := m.charges[i]
		if c.cancelled {
			continue
		}
		sum += time.Duration(c.n) * m.interval
		if t := c.at.Add(sum); t.After(latest) {
			latest = t
		}
	}
	return latest
}

// actions are those of every state machine with a ledger: time passes, units are taken, and
// what is owed is compared. What is owed is exact as long as inOrder holds.
func (m *ledger) actions(l one, burst int64, inOrder *bool) map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"advance": func(t *rapid.T) {
			time.Sleep(time.Duration(rapid.Int64Range(1, int64(m.interval)*burst*2).Draw(t, "by")))
		},
		"take": func(t *rapid.T) {
			n := rapid.Int64Range(1, burst).Draw(t, "n")
			if l.Take(n).Allowed {
				m.charges = append(m.charges, charge{at: time.Now(), n: n})
			}
		},
		"": func(t *rapid.T) {
			owed := max(0, time.Until(m.arrival()))
			got := l.Take(0).ResetAfter
			require.GreaterOrEqual(t, got, owed, "more was given back than was free")
			if *inOrder {
				require.Equal(t, owed, got, "less was given back than was free")
			}
		},
	}
}

func TestReservationsAgainstALedger(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, reservationsAgainstALedger) })
}

func reservationsAgainstALedger(t *rapid.T) {
	interval := rapid.SampledFrom([]time.Duration{1, time.Millisecond, 100 * time.Millisecond}).Draw(t, "interval")
	burst := rapid.Int64Range(1, 8).Draw(t, "burst")
	limit := ratelimit.Per(1, interval).Burst(burst)
	require.Equal(t, big.NewRat(int64(interval), 1), limit.Interval())
	l, err := ratelimit.NewLimiter(limit)
	require.NoError(t, err)
	m := &ledger{interval: interval}
	inOrder := true // only the last charge was ever cancelled
	n := rapid.Int64Range(1, burst)
	cancel := func(i int) {
		m.charges[i].token.Cancel()
		m.charges[i].cancelled = true
	}
	actions := m.actions(l, burst, &inOrder)
	actions["reserve"] = func(t *rapid.T) {
		n := n.Draw(t, "n")
		maxWait := interval * time.Duration(rapid.Int64Range(0, 4*burst).Draw(t, "maxWait"))
		before := l.Take(0).ResetAfter
		want := max(0, before+time.Duration(n-burst)*interval)
		r, err := l.Reserve(n, maxWait)
		if want > maxWait {
			require.ErrorIs(t, err, ratelimit.ErrLimited)
			return
		}
		require.NoError(t, err)
		require.Equal(t, want, r.Delay())
		m.charges = append(m.charges, charge{at: time.Now().Add(want), n: n, token: r})
	}
	actions["cancel the last"] = func(t *rapid.T) {
		for i := len(m.charges) - 1; i >= 0; i-- {
			if c := m.charges[i]; !c.cancelled {
				if c.token.Delay() > 0 {
					cancel(i)
				}
				return
			}
		}
	}
	actions["cancel any"] = func(t *rapid.T) {
		if len(m.charges) == 0 {
			return
		}
		i := rapid.IntRange(0, len(m.charges)-1).Draw(t, "which")
		c := m.charges[i]
		if c.cancelled || c.token == (ratelimit.Reservation{}) {
			return
		}
		for _, later := range m.charges[i+1:] {
			inOrder = inOrder && later.cancelled
		}
		cancel(i)
	}
	t.Repeat(actions)
	var grants []grant
	for _, c := range m.charges {
		if !c.cancelled {
			grants = append(grants, grant{c.at, c.n})
		}
	}
	requireBound(t, limit, grants)
}

func TestWaitServesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Per(10, time.Second).Burst(5))
		require.True(t, l.Take(5).Allowed)
		start := time.Now()
		type wake struct {
			who   int
			after time.Duration
		}
		var mu sync.Mutex
		var woken []wake
		for who, n := range []int64{5, 1, 1, 3} {
			go func() {
				require.NoError(t, l.Wait(t.Context(), n))
				mu.Lock()
				defer mu.Unlock()
				woken = append(woken, wake{who, time.Since(start)})
			}()
			synctest.Wait() // asleep, so that the order of asking is certain
			require.False(t, l.Allow())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		const ms = time.Millisecond
		require.Equal(t, []wake{{0, 500 * ms}, {1, 600 * ms}, {2, 700 * ms}, {3, 1000 * ms}}, woken, "a large n does not starve")
	})
}

func TestWaitLooksAtTheContextBeforeItCharges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Per(1, time.Second))
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.Equal(t, context.Canceled, l.Wait(ended, 1))
		require.True(t, l.Allow(), "nothing was charged")

		for _, tc := range []struct {
			timeout time.Duration
			ok      bool
		}{{time.Second - 1, false}, {time.Second, false}, {time.Second + 1, true}} {
			ctx, cancel := context.WithTimeout(t.Context(), tc.timeout)
			asked := time.Now()
			err := l.Wait(ctx, 1)
			if tc.ok {
				require.NoError(t, err)
				require.Equal(t, time.Second, time.Since(asked))
			} else {
				require.ErrorIs(t, err, ratelimit.ErrLimited)
				require.Zero(t, time.Since(asked), "refused at once")
				require.Equal(t, time.Second, l.Take(1).RetryAfter, "nothing was charged")
			}
			cancel()
		}

		for n, want := range map[int64]error{-1: ratelimit.ErrNegative, 2: ratelimit.ErrExceedsBurst, 0: nil} {
			require.ErrorIs(t, l.Wait(t.Context(), n), want)
		}
		require.Equal(t, context.Canceled, l.Wait(ended, 2))
	})
}

func TestWaitGivesBackWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Per(1, time.Second))
		require.True(t, l.Allow())
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- l.Wait(ctx, 1) }()
		synctest.Wait()
		require.Equal(t, 2*time.Second, l.Take(0).ResetAfter)
		time.Sleep(500 * time.Millisecond)
		cancel()
		require.Equal(t, context.Canceled, <-result)
		require.Equal(t, 500*time.Millisecond, l.Take(1).RetryAfter)
	})
}

// A context that ends in the very moment of the promise has one outcome: the units
// are used, or they are given back.
func TestWaitHasOneOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 100 {
			l := newLimiter(t, ratelimit.Per(1, time.Second))
			require.True(t, l.Allow())
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			err := l.Wait(ctx, 1)
			if err == nil {
				require.Equal(t, time.Second, l.Take(1).RetryAfter)
			} else {
				require.Equal(t, context.Canceled, err)
				require.True(t, l.Allow())
			}
			cancel()
		}
	})
}

// Reservations, their cancellations and plain takes on the real clock: what was
// used never exceeds the bound.
func TestCancellingUnderContentionKeepsTheBound(t *testing.T) {
	limit := ratelimit.Per(100_000, time.Second).Burst(100)
	l := newLimiter(t, limit)
	var used atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for g := range 16 {
		wg.Go(func() {
			for i := range 2000 {
				n := int64(1 + (g+i)%20)
				if r, err := l.Reserve(n, 0); err == nil {
					if i%3 == 0 {
						used.Add(n)
					} else {
						r.Cancel()
					}
				}
				if l.Take(n).Allowed {
					used.Add(n)
				}
			}
		})
	}
	wg.Wait()
	window := time.Since(start)
	require.LessOrEqual(t, used.Load(), 100+int64(window/(10*time.Microsecond)))
	require.GreaterOrEqual(t, used.Load(), int64(80))
}
