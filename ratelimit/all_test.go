package ratelimit_test

import (
	"math/big"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

func TestAllIsAllOrNothing(t *testing.T) {
	second := newLimiter(t, ratelimit.Per(2, time.Second))
	hour := newLimiter(t, ratelimit.Per(3, time.Hour))
	users := newKeyed[string](t, ratelimit.Per(5, time.Minute), 100)
	ask := func(user string) ratelimit.Decision {
		return ratelimit.AllAt(origin, second.Want(1).Named("second"), users.Want(user, 2).Named("user"), hour.Want(1).Named("hour"))
	}
	d := ask("ann")
	require.Equal(t, ratelimit.Decision{Allowed: true, Limit: 2, Remaining: 1, ResetAfter: 500 * time.Millisecond, Name: "second"}, d, "half is the least")
	d = ask("ann")
	require.True(t, d.Allowed)
	require.Equal(t, "second", d.Name, "none is left")

	d = ask("ann")
	require.False(t, d.Allowed)
	require.Equal(t, "user", d.Name, "it refuses for longer than the second")
	require.Equal(t, 12*time.Second, d.RetryAfter)
	require.Equal(t, int64(1), hour.TakeAt(origin, 0).Remaining, "the limit that would have granted was not charged")
	require.Equal(t, int64(1), users.TakeAt("ann", origin, 0).Remaining)

	later := origin.Add(12 * time.Second)
	d = ratelimit.AllAt(later, second.Want(1), users.Want("ann", 1), hour.Want(1).Named("hour"))
	require.True(t, d.Allowed, "after RetryAfter")
	require.Equal(t, "hour", d.Name)
	d = ratelimit.AllAt(later, second.Want(1), users.Want("ann", 6).Named("user"), hour.Want(1).Named("hour"))
	require.Equal(t, "user", d.Name, "never is longer than an hour")
	require.Negative(t, d.RetryAfter)
	require.Equal(t, int64(5), d.Limit)
}

func TestAllOfNothingIsGranted(t *testing.T) {
	require.Equal(t, ratelimit.Decision{Allowed: true}, ratelimit.All())
	require.Equal(t, ratelimit.Decision{Allowed: true}, ratelimit.AllAt(origin, ratelimit.Want{}, ratelimit.Want{}.Named("x")))
	l := newLimiter(t, ratelimit.Per(1, time.Hour))
	require.True(t, ratelimit.All(ratelimit.Want{}, l.Want(1)).Allowed)
	require.False(t, ratelimit.All(l.Want(1), ratelimit.Want{}).Allowed)
	require.True(t, ratelimit.All(l.Want(0)).Allowed)
	require.Equal(t, time.Duration(-1), ratelimit.All(l.Want(-1)).RetryAfter)
}

func TestAllCountsALimitThatIsWantedTwice(t *testing.T) {
	l := newLimiter(t, ratelimit.Per(10, 10*time.Second))
	k := newKeyed[int](t, ratelimit.Per(10, 10*time.Second), 1) // all keys in one set
	require.True(t, ratelimit.AllAt(origin, l.Want(4), k.Want(1, 4), l.Want(4), k.Want(1, 4)).Allowed)
	require.Equal(t, int64(2), l.TakeAt(origin, 0).Remaining)
	require.Equal(t, int64(2), k.TakeAt(1, origin, 0).Remaining)

	for _, wants := range [][]ratelimit.Want{{l.Want(2), l.Want(2)}, {k.Want(1, 2), k.Want(2, 1), k.Want(1, 2)}} {
		d := ratelimit.AllAt(origin, wants...)
		require.False(t, d.Allowed)
		require.Equal(t, 2*time.Second, d.RetryAfter, "until four are there")
	}
	require.Equal(t, int64(2), l.TakeAt(origin, 0).Remaining)
	require.Equal(t, int64(2), k.TakeAt(1, origin, 0).Remaining)
	require.Equal(t, int64(10), k.TakeAt(2, origin, 0).Remaining, "the newcomer has no debt")
	require.Equal(t, 1, k.Stats().Resident, "nor a slot")
}

func TestAllOfManyLimits(t *testing.T) {
	var wants []ratelimit.Want
	var limiters []*ratelimit.Limiter
	for i := range 30 {
		l := newLimiter(t, ratelimit.Per(100, time.Second))
		limiters = append(limiters, l)
		wants = append(wants, l.Want(int64(i)).Named(strconv.Itoa(i)))
	}
	require.Equal(t, "29", ratelimit.AllAt(origin, wants...).Name)
	for i, l := range limiters {
		require.Equal(t, int64(100-i), l.TakeAt(origin, 0).Remaining)
	}
}

// Every limit is a bucket in exact fractions: All grants if each of them has enough, and
// charges each, or none.
func TestAllAgainstBuckets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const keys = 5 // fewer than the slots of a set: nobody inherits
		now := origin
		var limiters []*ratelimit.Limiter
		var tables []*ratelimit.Keyed[int]
		var models [][]*bucket // of each limiter one, of each table one a key
		for i := range 4 {
			limit := ratelimit.Per(rapid.Int64Range(1, 20).Draw(t, "n"), time.Duration(rapid.Int64Range(20, 1e10).Draw(t, "d"))).
				Burst(rapid.Int64Range(1, 10).Draw(t, "burst"))
			var of []*bucket
			for range keys {
				of = append(of, newBucket(limit, now))
			}
			if i < 2 {
				l, err := ratelimit.NewLimiter(limit)
				require.NoError(t, err)
				limiters = append(limiters, l)
				of = of[:1]
			} else {
				k, err := ratelimit.NewKeyed[int](limit, ratelimit.KeyedOptions{Capacity: 1})
				require.NoError(t, err)
				tables = append(tables, k)
			}
			models = append(models, of)
		}
		for range rapid.IntRange(1, 40).Draw(t, "calls") {
			now = now.Add(time.Duration(rapid.Int64Range(0, 3e9).Draw(t, "step")))
			var wants []ratelimit.Want
			sums := map[*bucket]int64{}
			for range rapid.IntRange(1, 5).Draw(t, "wants") {
				which, n := rapid.IntRange(0, 3).Draw(t, "which"), rapid.Int64Range(0, 11).Draw(t, "n")
				var w ratelimit.Want
				var b *bucket
				if which < 2 {
					w, b = limiters[which].Want(n), models[which][0]
				} else {
					key := rapid.IntRange(0, keys-1).Draw(t, "key")
					w, b = tables[which-2].Want(key, n), models[which][key]
				}
				wants = append(wants, w)
				sums[b] += n
			}
			want := true
			retry := time.Duration(0)
			for b, sum := range sums {
				b.advance(now)
				need := new(big.Rat).SetInt64(sum)
				if sum > 0 && b.tokens.Cmp(need) < 0 {
					want = false
					if need.Cmp(b.burst) > 0 {
						retry = -1
					} else if retry >= 0 {
						retry = max(retry, b.until(need))
					}
				}
			}
			d := ratelimit.AllAt(now, wants...)
			require.Equal(t, want, d.Allowed)
			if want {
				for b, sum := range sums {
					b.tokens.Sub(b.tokens, new(big.Rat).SetInt64(sum))
				}
			} else {
				require.Equal(t, retry, d.RetryAfter)
			}
			for i, l := range limiters {
				require.Equal(t, models[i][0].take(now, 0), l.TakeAt(now, 0))
			}
			for i, k := range tables {
				for key, b := range models[i+2] {
					require.Equal(t, b.take(now, 0), k.TakeAt(key, now, 0))
				}
			}
		}
	})
}

// At a clock that stands still every unit is there once: All in any order, single takes
// and changes of the limit together give out what there is, and never block each other
// for good.
func TestAllIsAtomicUnderContention(t *testing.T) {
	const burst = 3000
	limit := ratelimit.Per(1, 100*time.Hour).Burst(burst)
	a, b := newLimiter(t, limit), newLimiter(t, limit)
	k := newKeyed[int](t, limit, 1)
	var fromA, fromB, fromK, fromKey2 atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				switch (i + g) % 5 {
				case 0:
					if ratelimit.AllAt(origin, a.Want(1), b.Want(1)).Allowed {
						fromA.Add(1)
						fromB.Add(1)
					}
				case 1:
					if ratelimit.AllAt(origin, b.Want(2), k.Want(1, 1), a.Want(1)).Allowed {
						fromA.Add(1)
						fromB.Add(2)
						fromK.Add(1)
					}
				case 2:
					if ratelimit.AllAt(origin, k.Want(2, 1), k.Want(1, 1)).Allowed {
						fromK.Add(1)
						fromKey2.Add(1)
					}
				case 3:
					if a.TakeAt(origin, 1).Allowed {
						fromA.Add(1)
					}
				case 4:
					if k.TakeAt(1, origin, 1).Allowed {
						fromK.Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, tc := range []struct {
		name string
		got  int64
		left ratelimit.Decision
	}{
		{"a", fromA.Load(), a.TakeAt(origin, 0)},
		{"b", fromB.Load(), b.TakeAt(origin, 0)},
		{"key 1", fromK.Load(), k.TakeAt(1, origin, 0)},
		{"key 2", fromKey2.Load(), k.TakeAt(2, origin, 0)},
	} {
		require.Equal(t, int64(burst), tc.got+tc.left.Remaining, tc.name)
	}
}

// Nobody sees a charge that is taken back: while one limit refuses every time, the other
// one is always whole.
func TestAllLetsNobodySeeWhatItTakesBack(t *testing.T) {
	full := newLimiter(t, ratelimit.Per(1, 1000*time.Hour).Burst(1))
	free := newLimiter(t, ratelimit.Per(1, 1000*time.Hour).Burst(1))
	keys := newKeyed[int](t, ratelimit.Per(1, 1000*time.Hour).Burst(1), 1)
	require.True(t, full.TakeAt(origin, 1).Allowed)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 2000 {
				if ratelimit.AllAt(origin, free.Want(1), keys.Want(1, 1), full.Want(1)).Allowed {
					t.Error("granted")
				}
			}
		})
	}
	for range 2000 {
		if free.TakeAt(origin, 0).Remaining != 1 || keys.TakeAt(1, origin, 0).Remaining != 1 {
			t.Error("a charge was seen that was taken back")
			break
		}
		runtime.Gosched()
	}
	wg.Wait()
}

func TestAllMeetsAChangeOfLimit(t *testing.T) {
	l := newLimiter(t, ratelimit.Per(1_000_000, time.Hour))
	other := newLimiter(t, ratelimit.Per(1_000_000, time.Hour))
	stop := make(chan struct{})
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if ratelimit.All(l.Want(1), other.Want(1)).Allowed {
						admitted.Add(1)
					}
				}
			}
		})
	}
	for i := range 2000 {
		require.NoError(t, l.SetLimit(ratelimit.Per(1_000_000, time.Hour+time.Duration(i))))
	}
	close(stop)
	wg.Wait()
	taken := 1_000_000 - other.Take(0).Remaining
	require.InDelta(t, admitted.Load(), taken, 2000, "what flowed in meanwhile")
	require.InDelta(t, 1_000_000-l.Take(0).Remaining, taken, 4000, "as much from the one as from the other")
}

func TestAllReachesBeyondTheFrame(t *testing.T) {
	limit := ratelimit.Per(1023, 10*time.Hour).Burst(4)
	l, k := newLimiter(t, limit), newKeyed[int](t, limit, 1)
	now := time.Now()
	for range 5 {
		require.True(t, ratelimit.AllAt(now, k.Want(1, 4), l.Want(4)).Allowed)
		require.False(t, ratelimit.AllAt(now, k.Want(1, 1), l.Want(1)).Allowed)
		now = now.Add(2 * limit.Frame())
	}
}

func TestAllReserves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := ratelimit.Per(10, 10*time.Second)
		l, k := newLimiter(t, limit), newKeyed[int](t, limit, 1)
		var a, b, twice ratelimit.Reservation
		left := func() [2]int64 { return [2]int64{l.Peek(0).Remaining, k.Peek(1, 0).Remaining} }

		require.True(t, ratelimit.All(l.Want(3).Reserving(&a), k.Want(1, 4).Reserving(&b)).Allowed)
		require.Equal(t, [2]int64{7, 6}, left())
		a.Settle(1)
		b.Settle(6)
		require.Equal(t, [2]int64{9, 4}, left())

		require.True(t, ratelimit.All(l.Want(2).Reserving(&a), l.Want(3).Reserving(&twice), k.Want(1, 1).Reserving(&b)).Allowed)
		twice.Cancel()
		a.Cancel()
		b.Cancel()
		require.Equal(t, [2]int64{9, 4}, left())

		require.False(t, ratelimit.All(l.Want(2).Reserving(&a), k.Want(1, 5).Reserving(&b)).Allowed)
		require.Zero(t, a)
		require.Zero(t, b)
		a.Settle(5)
		require.Equal(t, [2]int64{9, 4}, left())

		for key := range ratelimit.Ways { // a newcomer that takes a slot over
			k.Take(10+key, 1)
		}
		require.True(t, ratelimit.All(k.Want(2, 1).Reserving(&b)).Allowed)
		require.Equal(t, 2*time.Second, k.Take(2, 0).ResetAfter)
		b.Cancel()
		require.Equal(t, time.Second, k.Take(2, 0).ResetAfter, "what it inherited stays")
	})
}
