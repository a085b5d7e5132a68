package ratelimit_test

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// origin is where the time of replays starts.
var origin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// drawStep draws a time that matters to the limit: around its interval and its
// burst, or far beyond.
func drawStep(t *rapid.T, limit ratelimit.Limit) time.Duration {
	_, _, burst := limit.Values()
	unit, _ := limit.Interval().Float64()
	span := rapid.SampledFrom([]float64{1, unit, 3 * unit, unit * float64(burst), 3 * unit * float64(burst)}).Draw(t, "span")
	return time.Duration(rapid.Int64Range(0, int64(min(span+1, 1<<60))).Draw(t, "step"))
}

// drawUnits draws how many units to take, sometimes impossible numbers.
func drawUnits(t *rapid.T, limit ratelimit.Limit) int64 {
	_, _, burst := limit.Values()
	return rapid.OneOf(
		rapid.Just(int64(1)),
		rapid.Int64Range(0, min(burst, 9)),
		rapid.Int64Range(1, burst),
		rapid.SampledFrom([]int64{burst, burst + 1, -1, math.MinInt64, math.MaxInt64}),
	).Draw(t, "n")
}

// decisionsAreThoseOfABucket is a property: every field of every decision equals
// what a token bucket in exact fractions says.
func decisionsAreThoseOfABucket(t *rapid.T) {
	limit := drawLimit(t)
	l, err := ratelimit.NewLimiter(limit)
	require.NoError(t, err)
	keyed, err := ratelimit.NewKeyed[string](limit, ratelimit.KeyedOptions{Capacity: 1})
	require.NoError(t, err)
	now := time.Now()
	model := newBucket(limit, now)
	for range rapid.IntRange(1, 30).Draw(t, "steps") {
		now = now.Add(drawStep(t, limit))
		n := drawUnits(t, limit)
		want := model.take(now, n)
		require.Equal(t, want, l.TakeAt(now, n), "%v: %d at %v", limit, n, now)
		require.Equal(t, want, keyed.TakeAt("key", now, n), "%v: %d at %v", limit, n, now)
	}
}

func TestDecisionsAreThoseOfABucket(t *testing.T) { rapid.Check(t, decisionsAreThoseOfABucket) }

func FuzzDecisionsAreThoseOfABucket(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz(decisionsAreThoseOfABucket))
}

func TestRetryAfterIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := drawLimit(t)
		_, _, burst := limit.Values()
		l, err := ratelimit.NewLimiter(limit)
		require.NoError(t, err)
		now := time.Now()
		for range 20 {
			now = now.Add(drawStep(t, limit))
			n := rapid.Int64Range(1, burst).Draw(t, "n")
			d := l.TakeAt(now, n)
			if d.Allowed {
				require.Zero(t, d.RetryAfter)
				continue
			}
			require.Positive(t, d.RetryAfter)
			require.False(t, l.TakeAt(now.Add(d.RetryAfter-1), n).Allowed, "one nanosecond less is too early")
			now = now.Add(d.RetryAfter)
			require.True(t, l.TakeAt(now, n).Allowed, "waiting exactly RetryAfter is enough")
		}
		full := l.TakeAt(now, 0)
		require.Equal(t, burst, l.TakeAt(now.Add(full.ResetAfter), 0).Remaining)
		if full.ResetAfter > 0 {
			require.Less(t, l.TakeAt(now.Add(full.ResetAfter-1), 0).Remaining, burst)
		}
	})
}

func TestNoWindowHoldsMoreThanTheBoundInAnyOrderOfTimes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := drawLimit(t)
		_, _, burst := limit.Values()
		l, err := ratelimit.NewLimiter(limit)
		require.NoError(t, err)
		start := time.Now()
		var grants []grant
		for range rapid.IntRange(1, 40).Draw(t, "calls") {
			// Each call has read its own clock; it may come late, or early.
			at := start.Add(drawStep(t, limit))
			n := rapid.OneOf(rapid.Just(int64(1)), rapid.Int64Range(1, burst)).Draw(t, "n")
			if l.TakeAt(at, n).Allowed {
				grants = append(grants, grant{at, n})
			}
		}
		requireBound(t, limit, grants)
	})
}

// x/time/rate admits all 2000 calls (golang/go#71360): each reading of an earlier
// time moves its clock back, and the way forward mints tokens again.
func TestAlternatingClocksMintNothing(t *testing.T) {
	l := newLimiter(t, ratelimit.Per(1, time.Second).Burst(10))
	admitted := 0
	for i := range 2000 {
		at := origin
		if i%2 == 0 {
			at = at.Add(10 * time.Second)
		}
		if l.TakeAt(at, 1).Allowed {
			admitted++
		}
	}
	require.Equal(t, 10, admitted)
}

// x/time/rate admits up to 1.5 times the bound here: the clock is read before the
// lock is taken, so under contention its time steps back again and again.
func TestContentionOnTheRealClockNeverExceedsTheBound(t *testing.T) {
	limit := ratelimit.Per(1_000_000, time.Second).Burst(1000)
	l := newLimiter(t, limit)
	var admitted atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for g := range 256 {
		wg.Go(func() {
			for i := range 300 {
				switch (g + i) % 4 {
				case 0:
					if l.TakeAt(time.Now(), 3).Allowed {
						admitted.Add(3)
					}
				case 1:
					if l.Take(2).Allowed {
						admitted.Add(2)
					}
				default:
					if l.Allow() {
						admitted.Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	window := time.Since(start)
	require.LessOrEqual(t, admitted.Load(), 1000+int64(window/time.Microsecond))
	require.GreaterOrEqual(t, admitted.Load(), int64(1000), "the burst itself was there")
}

func TestUnitsThatCanNeverBeHad(t *testing.T) {
	l := newLimiter(t, ratelimit.Per(5, time.Second))
	require.True(t, l.TakeAt(origin, 2).Allowed)
	want := ratelimit.Decision{Limit: 5, Remaining: 3, RetryAfter: -1, ResetAfter: 400 * time.Millisecond}
	for _, n := range []int64{-1, math.MinInt64, 6, math.MaxInt64} {
		require.Equal(t, want, l.TakeAt(origin, n), "n=%d", n)
	}
	want.Allowed, want.RetryAfter = true, 0
	require.Equal(t, want, l.TakeAt(origin, 0), "nothing is always there, and costs nothing")
	require.Equal(t, want, l.TakeAt(origin, 0))
}

func TestNothingIsAllowedEvenToADebtor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Per(1, time.Second))
		for range 5 {
			_, err := l.Reserve(1, time.Minute)
			require.NoError(t, err)
		}
		require.True(t, l.Take(0).Allowed)
		require.Equal(t, int64(0), l.Take(0).Remaining)
		require.Equal(t, 5*time.Second, l.Take(0).ResetAfter)
		require.Equal(t, 5*time.Second, l.Take(1).RetryAfter)
	})
}

func TestTheRealClockRefills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Per(10, time.Second))
		for range 10 {
			require.True(t, l.Allow())
		}
		require.False(t, l.Allow())
		require.Equal(t, 100*time.Millisecond, l.Take(1).RetryAfter)
		time.Sleep(100*time.Millisecond - 1)
		require.False(t, l.Allow())
		time.Sleep(time.Nanosecond)
		require.True(t, l.Allow())
		require.False(t, l.Allow())
	})
}

// A bubble has its own clock, decades away from the real one.
func TestALimiterFromOutsideABubbleWorksInside(t *testing.T) {
	for _, limit := range []ratelimit.Limit{ratelimit.Per(10, time.Second), ratelimit.Per(1023, time.Second).Burst(10)} {
		l := newLimiter(t, limit)
		k := newKeyed[string](t, limit, 10)
		synctest.Test(t, func(t *testing.T) {
			for range 10 {
				require.True(t, l.Allow())
				require.True(t, k.Allow("a"))
			}
			require.False(t, l.Allow())
			require.False(t, k.Allow("a"))
			time.Sleep(time.Second)
			require.True(t, l.Allow())
			require.True(t, k.Allow("a"))
		})
	}
}

// The finest ticks span only some days; a limiter must outlive them without a seam.
func TestALimiterOutlivesItsFrame(t *testing.T) {
	for _, limit := range []ratelimit.Limit{
		ratelimit.Per(1023, time.Second),
		ratelimit.Per(100, time.Second).Burst(200),
		ratelimit.Per(999_999_937, day).Burst(999_999_937), // refills in a day, with the finest ticks
	} {
		t.Run(limit.String(), func(t *testing.T) {
			_, _, burst := limit.Values()
			frame := limit.Frame()
			l := newLimiter(t, limit)
			k := newKeyed[int](t, limit, 20)
			now := time.Now()
			for range min(4, (1<<61)/int64(2*frame)) { // a time.Duration reaches 292 years
				// Half empty just before the end of the frame, asked right behind it.
				now = now.Add(frame - time.Millisecond)
				require.Equal(t, burst-burst/2, l.TakeAt(now, burst/2).Remaining)
				for key := range 10 {
					require.Equal(t, burst-burst/2, k.TakeAt(key, now, burst/2).Remaining)
				}
				model := newBucket(limit, now)
				model.take(now, burst/2)
				now = now.Add(2 * time.Millisecond)
				want := model.take(now, burst/2)
				require.Equal(t, want, l.TakeAt(now, burst/2))
				for key := range 10 {
					require.Equal(t, want, k.TakeAt(key, now, burst/2), "key %d", key)
				}
				require.True(t, l.TakeAt(now, 0).Allowed)
				now = now.Add(frame)
			}
		})
	}
}

func TestTimesFromElsewhere(t *testing.T) {
	limit := ratelimit.Per(1023, time.Second).Burst(10)
	for _, at := range []time.Time{
		{},
		time.Unix(0, 0), time.Unix(1<<40, 0), time.Date(1800, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(2009, 11, 10, 23, 0, 0, 0, time.UTC), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		t.Run(at.String(), func(t *testing.T) {
			l := newLimiter(t, limit)
			k := newKeyed[string](t, limit, 10)
			require.True(t, l.TakeAt(at, 10).Allowed)
			require.True(t, k.TakeAt("a", at, 10).Allowed)
			require.False(t, l.TakeAt(at, 1).Allowed)
			require.False(t, k.TakeAt("a", at, 1).Allowed)
			require.False(t, l.TakeAt(at.Add(-100*365*day), 1).Allowed, "long before: refused")
			require.False(t, k.TakeAt("a", at.Add(-100*365*day), 1).Allowed)
			for frames := range time.Duration(12) {
				at := at.Add(-frames * limit.Frame())
				require.False(t, l.TakeAt(at, 1).Allowed, "%d frames before: refused", frames)
				require.False(t, k.TakeAt("a", at, 1).Allowed)
			}
			if year := at.Year(); year < 1900 || year > 2100 {
				return // beyond what a time.Duration from now can reach, time stands still
			}
			require.True(t, l.TakeAt(at.Add(time.Second), 10).Allowed)
			require.True(t, k.TakeAt("a", at.Add(time.Second), 10).Allowed)
		})
	}
}

func TestAskingForNothingElsewhereLeavesALimiterFresh(t *testing.T) {
	limit := ratelimit.Per(1023, time.Second).Burst(10)
	l := newLimiter(t, limit)
	now := time.Now()
	require.True(t, l.TakeAt(now.Add(10*limit.Frame()), 0).Allowed)
	require.True(t, l.TakeAt(now, 10).Allowed)
}

func TestALeapForwardAndBackForgetsNothing(t *testing.T) {
	// The key that stays behind when the frame moves must not come back rich.
	limit := ratelimit.Per(1023, time.Second).Burst(10)
	k := newKeyed[string](t, limit, 10)
	now := time.Now()
	require.True(t, k.TakeAt("left behind", now, 10).Allowed)
	require.True(t, k.TakeAt("leaps", now.Add(10*limit.Frame()), 1).Allowed)
	require.False(t, k.TakeAt("left behind", now, 1).Allowed)
	require.True(t, k.TakeAt("left behind", now.Add(10*limit.Frame()), 10).Allowed)
}

func TestHotPathsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	l := newLimiter(t, plenty)
	empty := newLimiter(t, scarce)
	empty.Allow()
	users := newKeyed[string](t, plenty.Burst(1_000_000), 10)
	type pair struct {
		tenant string
		id     int
	}
	pairs := newKeyed[pair](t, scarce, 10)
	byKey, err := ratelimit.NewKeyedBy(func(string) ratelimit.Limit { return ratelimit.Per(1e6, time.Second) }, ratelimit.KeyedOptions{Capacity: 10, Labels: 20})
	require.NoError(t, err)
	now := time.Now()
	var sink ratelimit.Decision
	for name, op := range map[string]func(){
		"Allow":         func() { l.Allow() },
		"Allow refused": func() { empty.Allow() },
		"Take":          func() { sink = l.Take(2) },
		"Take refused":  func() { sink = empty.Take(1) },
		"TakeAt":        func() { sink = l.TakeAt(now, 2) },
		"Wait":          func() { _ = l.Wait(t.Context(), 1) },
		"Reserve": func() {
			r, _ := l.Reserve(3, time.Second)
			_ = r.Delay()
			r.Cancel()
		},
		"Limit":        func() { _ = l.Limit() },
		"SetLimit":     func() { _ = l.SetLimit(plenty) }, // as it is
		"Keyed.Allow":  func() { users.Allow("a key that is long enough not to be small") },
		"Keyed.Take":   func() { sink = users.Take("b", 2) },
		"Keyed.TakeAt": func() { sink = pairs.TakeAt(pair{"c", 1}, now, 2) },
		"Keyed.Stats":  func() { _ = users.Stats() },
		"Peek":         func() { sink = l.Peek(2) },
		"TakeUpTo":     func() { _, sink = l.TakeUpTo(2) },
		"Settle": func() {
			r, _ := l.Reserve(3, 0)
			r.Settle(4)
		},
		"Keyed.Settle": func() {
			r, _ := users.Reserve("c", 3, 0)
			r.Settle(2)
		},
		"Keyed.Peek":     func() { sink = users.Peek("b", 2) },
		"Keyed.TakeUpTo": func() { _, sink = users.TakeUpTo("b", 2) },
		"Keyed.Wait":     func() { _ = users.Wait(t.Context(), "b", 1) },
		"by key":         func() { byKey.Allow("b") },
		"All":            func() { sink = ratelimit.All(l.Want(1).Named("all"), users.Want("b", 1), byKey.Want("b", 1)) },
		"All refused":    func() { sink = ratelimit.All(l.Want(1), empty.Want(1)) },
	} {
		require.Zero(t, testing.AllocsPerRun(100, op), name)
	}
	_ = sink
}
