package ratelimit_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

func TestALimiterThatNobodyMadePanicsBeforeAllHoldsAnything(t *testing.T) {
	k := newKeyed[int](t, ratelimit.Per(10, time.Second), 1)
	for _, l := range []*ratelimit.Limiter{nil, {}} {
		require.Panics(t, func() { ratelimit.All(k.Want(1, 1), l.Want(1)) })
		require.True(t, k.Allow(1))
	}
}

// One table cannot follow to a time, the other can.
func TestAllMovesEveryFrameThatCanBeMoved(t *testing.T) {
	limit := ratelimit.Per(1023, 10*time.Hour).Burst(4)
	stuck, free := newKeyed[int](t, limit, 1), newKeyed[int](t, limit, 1)
	at := time.Now().Add(-5 * limit.Frame())
	require.True(t, stuck.TakeAt(1, at.Add(25*limit.Frame()), 4).Allowed)
	require.True(t, free.TakeAt(1, at.Add(-3*limit.Frame()), 4).Allowed)
	require.False(t, ratelimit.AllAt(at, stuck.Want(1, 1), free.Want(1, 1)).Allowed)
	d := ratelimit.AllAt(at, stuck.Want(1, 0), free.Want(1, 1))
	require.True(t, d.Allowed)
	require.Equal(t, int64(3), free.TakeAt(1, at, 0).Remaining)
}

func TestRetryAfterOfAllIsExactHoweverDeepTheDebt(t *testing.T) {
	for _, limit := range []ratelimit.Limit{
		ratelimit.Per(10, time.Second), ratelimit.Per(1023, time.Hour), ratelimit.Per(999_999_937, time.Second).Burst(1 << 49),
	} {
		synctest.Test(t, func(t *testing.T) {
			_, _, burst := limit.Values()
			l, k := newLimiter(t, limit), newKeyed[int](t, limit, 1)
			r, err := l.Reserve(1, 0)
			require.NoError(t, err)
			r.Settle(math.MaxInt64)
			r, err = k.Reserve(1, 1, 0)
			require.NoError(t, err)
			r.Settle(math.MaxInt64)
			half := burst / 2
			ask := func() ratelimit.Decision {
				return ratelimit.All(l.Want(half), k.Want(1, half), k.Want(1, half), l.Want(half))
			}
			d := ask()
			require.False(t, d.Allowed)
			if d.RetryAfter > 200*365*day {
				return
			}
			time.Sleep(d.RetryAfter - 1)
			require.False(t, ask().Allowed)
			time.Sleep(time.Nanosecond)
			require.True(t, ask().Allowed)
		})
	}
}

func TestAllOfHugeWantsOverflowsNothing(t *testing.T) {
	for _, limit := range []ratelimit.Limit{
		ratelimit.Per(1, 1).Burst(1 << 58), ratelimit.Per(1_000_000_000, time.Second).Burst(1 << 60),
		ratelimit.Per(999_999_937, time.Second).Burst(1 << 59), ratelimit.Per(1, 36*365*day), ratelimit.Per(1, day).Burst(200),
	} {
		_, _, burst := limit.Values()
		l, k := newLimiter(t, limit), newKeyed[int](t, limit, 1)
		var wants []ratelimit.Want
		for range 50 {
			wants = append(wants, l.Want(burst), k.Want(1, burst), l.Want(math.MaxInt64), k.Want(2, burst-1))
		}
		for _, at := range []time.Time{origin, origin.Add(-30 * 365 * day), origin.Add(100 * 365 * day), origin} {
			d := ratelimit.AllAt(at, wants...)
			require.False(t, d.Allowed)
			require.Negative(t, d.RetryAfter)
			require.GreaterOrEqual(t, d.ResetAfter, time.Duration(0))
			require.Equal(t, burst, l.TakeAt(at, 0).Remaining)
			require.Equal(t, burst, k.TakeAt(1, at, 0).Remaining)
		}
		require.True(t, ratelimit.AllAt(origin, k.Want(1, burst), l.Want(burst)).Allowed)
		require.False(t, l.TakeAt(origin, 1).Allowed)
		require.False(t, k.TakeAt(1, origin, 1).Allowed)
	}
}

// call is one step of a history at a clock that stands still: the units that it wants of
// each of three limits, and what came of it.
type call struct {
	kind    string
	units   [3]int64
	allowed bool
	left    int64
}

// explains reports whether some order of the calls that keeps the order of each goroutine
// explains all results.
func explains(left [3]int64, histories [][]call) bool {
	done := true
	for g, h := range histories {
		if len(h) == 0 {
			continue
		}
		done = false
		c, after := h[0], left
		which := slices.IndexFunc(c.units[:], func(n int64) bool { return n > 0 })
		fits := true
		for i, n := range c.units {
			fits = fits && n <= left[i]
		}
		if fits {
			for i, n := range c.units {
				after[i] -= n
			}
		}
		ok := fits == c.allowed && (c.kind == "all" || c.left == after[which])
		rest := slices.Clone(histories)
		rest[g] = h[1:]
		if ok && explains(after, rest) {
			return true
		}
	}
	return done
}

// Small histories of All and Take by three goroutines have an order in which one
// after the other would have had the same results.
func TestAllIsLinearizable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		burst := rapid.Int64Range(1, 6).Draw(t, "burst")
		limit := ratelimit.Per(1, 1000*time.Hour).Burst(burst)
		a, err := ratelimit.NewLimiter(limit)
		require.NoError(t, err)
		b, err := ratelimit.NewLimiter(limit)
		require.NoError(t, err)
		k, err := ratelimit.NewKeyed[int](limit, ratelimit.KeyedOptions{Capacity: 1})
		require.NoError(t, err)
		histories := make([][]call, 3)
		for g := range histories {
			for range 3 {
				c := call{kind: rapid.SampledFrom([]string{"all", "all", "take"}).Draw(t, "kind")}
				if c.kind == "all" {
					for i := range c.units {
						c.units[i] = rapid.Int64Range(0, 2).Draw(t, "n")
					}
				} else {
					c.units[rapid.IntRange(0, 2).Draw(t, "which")] = rapid.Int64Range(1, 3).Draw(t, "n")
				}
				histories[g] = append(histories[g], c)
			}
		}
		var wg sync.WaitGroup
		start := make(chan struct{})
		for g := range histories {
			wg.Go(func() {
				<-start
				for i := range histories[g] {
					c := &histories[g][i]
					which := slices.IndexFunc(c.units[:], func(n int64) bool { return n > 0 })
					var d ratelimit.Decision
					switch {
					case c.kind == "all" && g%2 == 0:
						d = ratelimit.AllAt(origin, a.Want(c.units[0]), b.Want(c.units[1]), k.Want(1, c.units[2]))
					case c.kind == "all":
						d = ratelimit.AllAt(origin, k.Want(1, c.units[2]), b.Want(c.units[1]), a.Want(c.units[0]))
					case c.kind == "take" && which == 2:
						d = k.TakeAt(1, origin, c.units[2])
					default:
						d = []*ratelimit.Limiter{a, b}[which].TakeAt(origin, c.units[which])
					}
					c.allowed, c.left = d.Allowed, d.Remaining
				}
			})
		}
		close(start)
		wg.Wait()
		require.True(t, explains([3]int64{burst, burst, burst}, histories), fmt.Sprint(burst, histories))
	})
}

// Keys of different sets, in any order: All charges what Take sees.
func TestAllFindsKeysInEverySet(t *testing.T) {
	const keys, burst = 60, 10
	k, err := ratelimit.NewKeyed[int](ratelimit.Per(1, time.Hour).Burst(burst), ratelimit.KeyedOptions{Capacity: 200, Labels: 3})
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		now := time.Now()
		left := map[int]int64{}
		for range 10 {
			var wants []ratelimit.Want
			sums := map[int]int64{}
			for range rapid.IntRange(1, 8).Draw(t, "wants") {
				key, n := rapid.IntRange(0, keys-1).Draw(t, "key"), rapid.Int64Range(0, 4).Draw(t, "n")
				if _, ok := left[key]; !ok {
					left[key] = k.TakeAt(key, now, 0).Remaining
				}
				wants = append(wants, k.Want(key, n))
				sums[key] += n
			}
			want := true
			for key, n := range sums {
				want = want && n <= left[key]
			}
			require.Equal(t, want, ratelimit.AllAt(now, wants...).Allowed)
			for key, n := range sums {
				if want {
					left[key] -= n
				}
				require.Equal(t, left[key], k.TakeAt(key, now, 0).Remaining)
			}
		}
	})
	for label := range k.All() {
		require.Regexp(t, "^[0-9]{1,2}$", label)
	}
}

// A want that is far above what can be counted is not mistaken for one below.
func TestAllOfManyBurstsIsRefused(t *testing.T) {
	for _, limit := range []ratelimit.Limit{ratelimit.Per(1, 1).Burst(1 << 58), ratelimit.Per(999_999_937, time.Second).Burst(1 << 59)} {
		_, _, burst := limit.Values()
		l, k := newLimiter(t, limit), newKeyed[int](t, limit, 1)
		for many := 2; many < 70; many++ {
			var ofOne, ofKey []ratelimit.Want
			for range many {
				ofOne, ofKey = append(ofOne, l.Want(burst)), append(ofKey, k.Want(1, burst))
			}
			for _, wants := range [][]ratelimit.Want{ofOne, ofKey} {
				d := ratelimit.AllAt(origin, wants...)
				require.False(t, d.Allowed)
				require.Negative(t, d.RetryAfter)
			}
		}
		require.Equal(t, burst, l.TakeAt(origin, 0).Remaining)
		require.Equal(t, burst, k.TakeAt(1, origin, 0).Remaining)
	}
}

func TestAllTellsOfTheLimitWithTheSmallestPartLeft(t *testing.T) {
	small, large := newLimiter(t, ratelimit.Per(4, time.Hour)), newLimiter(t, ratelimit.Per(1000, time.Hour))
	d := ratelimit.AllAt(origin, small.Want(1).Named("3 of 4"), large.Want(990).Named("10 of 1000"))
	require.Equal(t, "10 of 1000", d.Name)
	require.Equal(t, int64(10), d.Remaining)
}

func TestStatsCountTheWantsThatDecide(t *testing.T) {
	k := newKeyed[int](t, ratelimit.Per(1, time.Hour).Burst(2), 1)
	l := newLimiter(t, ratelimit.Per(1, time.Hour))
	require.True(t, ratelimit.All(k.Want(1, 1), k.Want(2, 1), l.Want(1)).Allowed)
	require.Equal(t, ratelimit.Stats{Capacity: 7, Resident: 2, Live: 2, Allowed: 2}, k.Stats())
	require.False(t, ratelimit.All(k.Want(1, 2), k.Want(2, 1)).Allowed)
	require.Equal(t, ratelimit.Stats{Capacity: 7, Resident: 2, Live: 2, Allowed: 2, Denied: 1}, k.Stats(), "the one that refused")
	require.False(t, ratelimit.All(k.Want(1, 1), l.Want(1)).Allowed)
	require.Equal(t, ratelimit.Stats{Capacity: 7, Resident: 2, Live: 2, Allowed: 2, Denied: 1}, k.Stats(), "a limit elsewhere refused")
	for key := 3; key <= 7; key++ {
		require.True(t, k.Allow(key))
	}
	require.True(t, ratelimit.All(k.Want(8, 1)).Allowed)
	require.Equal(t, uint64(1), k.Stats().Inherited)
}

// A want of nothing takes no slot: who has it keeps the label, and what is reserved.
func TestAWantOfNothingTakesNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, err := ratelimit.NewKeyed[string](ratelimit.Per(1, time.Hour).Burst(9), ratelimit.KeyedOptions{Capacity: 1, Labels: 3})
		require.NoError(t, err)
		r, err := k.Reserve("ann", 1, 0)
		require.NoError(t, err)
		for _, other := range []string{"b", "c", "d", "e", "f", "g"} {
			require.True(t, k.Take(other, 5).Allowed)
		}
		require.True(t, ratelimit.All(k.Want("new", 0)).Allowed)
		require.False(t, ratelimit.All(k.Want("new", 8), k.Want("b", 9)).Allowed)
		labels := maps.Collect(k.All())
		require.Equal(t, time.Hour, labels["ann"])
		require.NotContains(t, labels, "new")
		r.Cancel()
		require.Equal(t, int64(9), k.Peek("ann", 0).Remaining)
	})
}

// Everything at once, with frames that move: nothing blocks for good, and nobody panics.
func TestAllNeverDeadlocks(t *testing.T) {
	limit := ratelimit.Per(1023, 10*time.Hour).Burst(50)
	a, b := newLimiter(t, limit), newLimiter(t, limit)
	k, j := newKeyed[int](t, limit, 8), newKeyed[int](t, limit, 8)
	now := time.Now()
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			for i := range 300 {
				switch (i + g) % 6 {
				case 0:
					ratelimit.All(a.Want(1), j.Want(i, 1), k.Want(i, 1), b.Want(1), k.Want(i+1, 1), a.Want(1))
				case 1:
					at := now.Add(time.Duration(i%7-3) * limit.Frame())
					ratelimit.AllAt(at, b.Want(1), k.Want(i, 1), a.Want(1), j.Want(i, 1))
				case 2:
					_ = a.SetLimit(limit.Burst(int64(50 + i%2)))
					a.TakeAt(now.Add(time.Duration(i%5-2)*limit.Frame()), 1)
				case 3:
					if r, err := a.Reserve(1, time.Hour); err == nil {
						r.Settle(int64(i % 3))
					}
				case 4:
					if r, err := k.Reserve(i, 1, time.Hour); err == nil {
						r.Settle(int64(i % 3))
					}
				case 5:
					k.TakeAt(i, now.Add(time.Duration(i%5-2)*limit.Frame()), 1)
					k.Peek(i, 1)
					k.Stats()
				}
			}
		})
	}
	wg.Wait()
}
