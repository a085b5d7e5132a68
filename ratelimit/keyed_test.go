package ratelimit_test

import (
	"cmp"
	"math"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

func TestKeysHaveTheirOwnLimits(t *testing.T) {
	k := newKeyed[string](t, ratelimit.Per(2, time.Second), 100)
	require.Equal(t, ratelimit.Per(2, time.Second), k.Limit())
	for _, key := range []string{"a", "b", ""} {
		require.True(t, k.TakeAt(key, origin, 2).Allowed)
		require.False(t, k.TakeAt(key, origin, 1).Allowed)
	}
	require.True(t, k.TakeAt("a", origin.Add(time.Second), 2).Allowed)
	require.True(t, k.Allow("c"))
	require.Equal(t, int64(0), k.Take("c", 1).Remaining)
}

func TestCapacityOutOfRangeIsRefused(t *testing.T) {
	for _, capacity := range []int{-1, math.MinInt, math.MaxInt, 1<<30 + 1} {
		_, err := ratelimit.NewKeyed[string](ratelimit.Per(1, time.Second), ratelimit.KeyedOptions{Capacity: capacity})
		require.ErrorIs(t, err, ratelimit.ErrInvalidCapacity)
		require.ErrorContains(t, err, strconv.Itoa(capacity))
	}
}

func TestMemoryIsWhatTheDocumentationSays(t *testing.T) {
	require.Equal(t, uintptr(128), ratelimit.SetSize, "two cache lines")
	for _, tc := range []struct{ capacity, slots int }{{1, 7}, {3, 7}, {4, 14}, {7, 14}, {1000, 2002}, {0, 131075}} {
		k := newKeyed[string](t, ratelimit.Per(1, time.Second), tc.capacity)
		require.Equal(t, tc.slots, k.Stats().Capacity, "capacity %d", tc.capacity)
	}
	perKey := 2 * float64(ratelimit.SetSize) / ratelimit.Ways
	require.Less(t, perKey, 37.0)

	// The whole of it is there from the start.
	k := newKeyed[string](t, ratelimit.Per(1, time.Second), 1000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range 100_000 {
		k.TakeAt(strconv.Itoa(i%10), origin, 1)
	}
	runtime.ReadMemStats(&after)
	if !raceEnabled {
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(100_000))
	}
}

func TestFewKeysShareWithinTheCapacity(t *testing.T) {
	// The documentation says one in eighty. The hash is random, so is the count.
	const capacity = 10_000
	k := newKeyed[int](t, ratelimit.Per(1, time.Hour).Burst(2), capacity)
	for key := range capacity {
		k.TakeAt(key, origin, 1)
	}
	st := k.Stats()
	require.Less(t, st.Inherited, uint64(capacity/40))
	require.Greater(t, st.Resident, capacity*95/100)

	half := newKeyed[int](t, ratelimit.Per(1, time.Hour).Burst(2), capacity)
	for key := range capacity / 2 {
		half.TakeAt(key, origin, 1)
	}
	require.Less(t, half.Stats().Inherited, uint64(capacity/2/200))
}

func TestStatsCount(t *testing.T) {
	k := newKeyed[int](t, ratelimit.Per(1, time.Hour).Burst(2), 1) // one set of seven slots
	for key := range 7 {
		require.True(t, k.Allow(key))
		require.True(t, k.Allow(key))
		require.False(t, k.Allow(key))
	}
	require.Equal(t, ratelimit.Stats{Capacity: 7, Resident: 7, Live: 7, Allowed: 14, Denied: 7}, k.Stats())
	require.False(t, k.Allow(7))
	require.Equal(t, ratelimit.Stats{Capacity: 7, Resident: 7, Live: 7, Allowed: 14, Denied: 8, Inherited: 1}, k.Stats())
}

func TestStatsDoNotWrap(t *testing.T) {
	const many = 1<<17 + 5
	k := newKeyed[int](t, ratelimit.Per(1, time.Hour).Burst(many), 1)
	for key := range 7 {
		k.TakeAt(key, origin, many)
	}
	for range many {
		k.TakeAt(7, origin, 1)
	}
	st := k.Stats()
	require.Equal(t, uint64(many), st.Denied)
	require.Equal(t, uint64(many), st.Inherited)

	k = newKeyed[int](t, ratelimit.Per(1, time.Hour).Burst(many), 1)
	for range many {
		k.TakeAt(7, origin, 1)
	}
	require.Equal(t, uint64(many), k.Stats().Allowed)
}

func TestAKeyWhoseDebtIsPaidMakesRoom(t *testing.T) {
	k := newKeyed[int](t, ratelimit.Per(1, time.Second), 1)
	now := time.Now()
	for key := range 1000 {
		require.True(t, k.TakeAt(key, now, 1).Allowed)
		now = now.Add(time.Second / 7) // so that the oldest of seven owes nothing
		if key%7 == 6 {
			now = now.Add(time.Second)
		}
	}
	require.Zero(t, k.Stats().Inherited)
}

// throttled's LRU of 1000 admits 200 at a limit of 10 when 1001 other keys come
// between: the key is evicted, and comes back with a full burst.
func TestSprayingKeysBuysNothing(t *testing.T) {
	k := newKeyed[int](t, ratelimit.Per(10, time.Hour), 1000)
	victim, admitted := -1, 0
	for round := range 20 {
		for range 10 {
			if k.TakeAt(victim, origin, 1).Allowed {
				admitted++
			}
		}
		for i := range 5000 {
			k.TakeAt(round*5000+i, origin, 1)
		}
	}
	require.LessOrEqual(t, admitted, 10)
}

func TestNoKeyExceedsItsBoundHoweverKeysAndTimesAreMixed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := drawLimit(t)
		_, _, burst := limit.Values()
		capacity := rapid.IntRange(1, 5).Draw(t, "capacity") // one or two sets
		k, err := ratelimit.NewKeyed[int](limit, ratelimit.KeyedOptions{Capacity: capacity})
		require.NoError(t, err)
		grants := map[int][]grant{}
		start := time.Now()
		key := rapid.IntRange(0, rapid.IntRange(1, 20).Draw(t, "keys"))
		n := rapid.OneOf(rapid.Just(int64(1)), rapid.Just(burst), rapid.Int64Range(1, burst))
		for range rapid.IntRange(1, 150).Draw(t, "calls") {
			key, n := key.Draw(t, "key"), n.Draw(t, "n")
			at := start.Add(drawStep(t, limit))
			d := k.TakeAt(key, at, n)
			if d.Allowed {
				grants[key] = append(grants[key], grant{at, n})
			} else if d.RetryAfter < time.Hour*24*365 { // alone, the answer is exact also for those who share
				require.Positive(t, d.RetryAfter)
			}
		}
		for _, of := range grants {
			requireBound(t, limit, of)
		}
		st := k.Stats()
		require.LessOrEqual(t, st.Resident, st.Capacity)
		require.LessOrEqual(t, st.Live, st.Resident)
	})
}

func TestSharersAreToldTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := ratelimit.Per(10, time.Second)
		k, err := ratelimit.NewKeyed[int](limit, ratelimit.KeyedOptions{Capacity: 1})
		require.NoError(t, err)
		now := origin
		for range 60 {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(200*time.Millisecond)).Draw(t, "step")))
			key, n := rapid.IntRange(0, 12).Draw(t, "key"), rapid.Int64Range(1, 10).Draw(t, "n")
			d := k.TakeAt(key, now, n)
			if d.Allowed {
				continue
			}
			require.Equal(t, d.Remaining, k.TakeAt(key, now, 0).Remaining)
			require.False(t, k.TakeAt(key, now.Add(d.RetryAfter-1), n).Allowed)
			now = now.Add(d.RetryAfter)
			require.True(t, k.TakeAt(key, now, n).Allowed, "waiting exactly RetryAfter is enough")
		}
	})
}

// The look-up and the charge must be one critical section. Here a newcomer gets
// every chance to take over the slot of a key between the two. If it can, the
// key's charge lands on the newcomer, and the key comes back owing too little.
func TestNoChargeIsLostBetweenLookUpAndCharge(t *testing.T) {
	const burst, victim, newcomer = 20, 0, 100
	k := newKeyed[int](t, ratelimit.Per(1, 1000*time.Hour).Burst(burst), 1)
	for key := range ratelimit.Ways { // the set is full, and all owe one unit
		require.True(t, k.TakeAt(key, origin, 1).Allowed)
	}
	admitted := 1 // of the victim, which holds the first slot: the next to be taken over

	done, overtaken := make(chan struct{}), false
	var once atomic.Bool
	k.OnLookedUp(func(uint64) {
		if !once.CompareAndSwap(false, true) {
			return
		}
		go func() {
			defer close(done)
			k.TakeAt(newcomer, origin, 1)
		}()
		for range 1000 { // it either gets through, or waits for the set
			select {
			case <-done:
				overtaken = true
				return
			default:
				runtime.Gosched()
			}
		}
	})
	for range 2 * burst {
		if k.TakeAt(victim, origin, 1).Allowed {
			admitted++
		}
	}
	<-done
	require.Equal(t, burst, admitted)
	require.False(t, overtaken, "nobody may enter the set between look-up and charge")
}

// The same without a schedule: many goroutines, few slots, a clock that stands still.
func TestContendedKeysNeverExceedTheirBound(t *testing.T) {
	const burst, keys = 50, 30
	k := newKeyed[int](t, ratelimit.Per(1, 1000*time.Hour).Burst(burst), 5)
	var admitted [keys]atomic.Int64
	k.OnLookedUp(func(tag uint64) {
		if tag&7 == 0 {
			runtime.Gosched()
		}
	})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 3000 {
				key := (i*(g+1) + i/7) % keys
				if k.TakeAt(key, origin, 1).Allowed {
					admitted[key].Add(1)
				}
			}
		})
	}
	wg.Wait()
	for key := range admitted {
		require.LessOrEqual(t, admitted[key].Load(), int64(burst), "key %d", key)
	}
	st := k.Stats()
	require.Equal(t, uint64(8*3000), st.Allowed+st.Denied, "every decision is counted")
}

func TestReframingUnderContentionLosesNothing(t *testing.T) {
	// Goroutines on both sides of the end of a frame.
	limit := ratelimit.Per(1023, 10*time.Hour).Burst(100)
	k := newKeyed[int](t, limit, 10)
	l := newLimiter(t, limit)
	end := time.Now().Add(limit.Frame())
	var admitted [4]atomic.Int64
	var single atomic.Int64
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				at := end.Add(time.Duration(g-2)*time.Second + time.Duration(i))
				if k.TakeAt(i%4, at, 1).Allowed {
					admitted[i%4].Add(1)
				}
				if l.TakeAt(at, 1).Allowed {
					single.Add(1)
				}
			}
		})
	}
	wg.Wait()
	for key := range admitted {
		require.Equal(t, int64(100), admitted[key].Load(), "three seconds are less than one interval")
	}
	require.Equal(t, int64(100), single.Load())
}

func TestKeysOfAnyComparableType(t *testing.T) {
	type pair struct {
		tenant string
		id     int
	}
	k := newKeyed[pair](t, ratelimit.Per(1, time.Hour), 10)
	require.True(t, k.Allow(pair{"a", 1}))
	require.True(t, k.Allow(pair{"a", 2}))
	require.False(t, k.Allow(pair{"a", 1}))

	a := newKeyed[any](t, ratelimit.Per(1, time.Hour), 10)
	require.True(t, a.Allow("a"))
	require.True(t, a.Allow(1))
	require.False(t, a.Allow("a"))
	require.Panics(t, func() { a.Allow([]int{1}) }, "as a map does")
	require.False(t, a.Allow(1), "and goes on")
}

func TestHashesAreSeeded(t *testing.T) {
	// Two tables must not share the keys that collide.
	a := newKeyed[string](t, ratelimit.Per(1, time.Hour), 10)
	b := newKeyed[string](t, ratelimit.Per(1, time.Hour), 10)
	require.NotEqual(t, a.Tag("key"), b.Tag("key"))
	keys := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	order := func(k *ratelimit.Keyed[string]) []string {
		return slices.SortedFunc(slices.Values(keys), func(x, y string) int { return cmp.Compare(k.Tag(x), k.Tag(y)) })
	}
	require.NotEqual(t, order(a), order(b))
}
