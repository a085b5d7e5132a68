package coalesce_test

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

type (
	stringCache   = coalesce.Cache[string, int]
	stringOptions = coalesce.CacheOptions[string, int]
)

// newCache makes a cache whose goroutines have ended when the test has.
func newCache[K comparable, V any](t testing.TB, o coalesce.CacheOptions[K, V], load func(context.Context, K) (V, error)) *coalesce.Cache[K, V] {
	t.Helper()
	c, err := coalesce.NewCache(load, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close(context.Background())) })
	return c
}

// A backend counts its calls: the n-th load of all keys returns n.
type backend struct {
	calls atomic.Int64
	takes time.Duration
	fails atomic.Pointer[error]
}

func (b *backend) load(ctx context.Context, _ string) (int, error) {
	n := b.calls.Add(1)
	if b.takes > 0 {
		select {
		case <-time.After(b.takes):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	if err := b.fails.Load(); err != nil {
		return 0, *err
	}
	return int(n), nil
}

func (b *backend) fail(err error) {
	if err == nil {
		b.fails.Store(nil)
	} else {
		b.fails.Store(&err)
	}
}

func get(t testing.TB, c *stringCache, key string) int {
	t.Helper()
	v, err := c.Get(t.Context(), key)
	require.NoError(t, err)
	return v
}

func TestCacheOptionsThatMakeNoSenseAreRefusedByName(t *testing.T) {
	load := new(backend).load
	for want, o := range map[string]stringOptions{
		"Capacity is 0, expected at least 1":       {},
		"Capacity is -1, expected at least 1":      {Capacity: -1},
		"TTL is -1s, expected 0 or more":           {Capacity: 1, TTL: -time.Second},
		"Stale is -1s, expected 0 or more":         {Capacity: 1, TTL: 1, Stale: -time.Second},
		"StaleIfError is -1s, expected 0 or more":  {Capacity: 1, TTL: 1, StaleIfError: -time.Second},
		"NegativeTTL is -1s, expected 0 or more":   {Capacity: 1, NegativeTTL: -time.Second},
		"Timeout is -1s, expected 0 or more":       {Capacity: 1, Timeout: -time.Second},
		"Jitter is -0.1, expected 0 to 1":          {Capacity: 1, TTL: 1, Jitter: -0.1},
		"Jitter is 1.5, expected 0 to 1":           {Capacity: 1, TTL: 1, Jitter: 1.5},
		"Jitter is NaN, expected 0 to 1":           {Capacity: 1, TTL: 1, Jitter: math.NaN()},
		"Beta is -1, expected 0 (for off)":         {Capacity: 1, TTL: 1, Beta: -1},
		"Beta is NaN, expected 0 (for off)":        {Capacity: 1, TTL: 1, Beta: math.NaN()},
		"Beta is +Inf, expected 0 (for off)":       {Capacity: 1, TTL: 1, Beta: math.Inf(1)},
		"Stale is 1s with TTL 0, expected 0":       {Capacity: 1, Stale: time.Second},
		"StaleIfError is 1s with TTL 0, expected":  {Capacity: 1, StaleIfError: time.Second},
		"Jitter is 0.5 with TTL 0, expected 0":     {Capacity: 1, Jitter: 0.5},
		"Beta is 1 with TTL 0, expected 0: values": {Capacity: 1, Beta: 1},
	} {
		c, err := coalesce.NewCache(load, o)
		require.ErrorContains(t, err, "coalesce: CacheOptions."+want)
		require.Nil(t, c)
	}
	_, err := coalesce.NewCache[string, int](nil, stringOptions{Capacity: 1})
	require.ErrorContains(t, err, "load is nil")
}

func TestManyCallersShareOneLoadAndLaterOnesReadMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{takes: time.Second}
		c := newCache(t, stringOptions{Capacity: 10}, b.load)
		var callers sync.WaitGroup
		for range 100 {
			callers.Go(func() { require.Equal(t, 1, get(t, c, "k")) })
		}
		callers.Wait()
		time.Sleep(1000 * time.Hour) // without TTL it never expires
		require.Equal(t, 1, get(t, c, "k"))
		require.Equal(t, coalesce.CacheStats{Hits: 1, Misses: 100, Loads: 1, Entries: 1, Cost: 1}, c.Stats())
	})
}

func TestValueIsFreshBeforeItsTTLAndLoadedAgainAtIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{takes: time.Second}
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute}, b.load)
		require.Equal(t, 1, get(t, c, "k"))
		time.Sleep(time.Minute - 1)
		e, err := c.Entry(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, coalesce.Entry[int]{Value: 1, Age: time.Minute - 1, State: coalesce.Fresh}, e, "the age counts from the end of the load")
		require.Equal(t, 1, get(t, c, "k"))
		time.Sleep(time.Nanosecond)
		_, ok := c.Peek("k")
		require.False(t, ok)
		e, err = c.Entry(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, coalesce.Entry[int]{Value: 2}, e)
	})
}

// The TTL of each entry lies within [TTL*(1-Jitter), TTL], and they are spread
// over all of it.
func TestJitterSpreadsExpiryWithinItsBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, parts = 2000, 20
		c := newCache(t, stringOptions{Capacity: n, TTL: 100 * time.Second, Jitter: 0.2}, new(backend).load)
		for i := range n {
			c.Set(strconv.Itoa(i), i)
		}
		fresh := func() (sum int) {
			for range c.All() {
				sum++
			}
			return sum
		}
		time.Sleep(80*time.Second - 1)
		require.Equal(t, n, fresh(), "none before")
		time.Sleep(time.Nanosecond)
		for i := range parts {
			// A binomial count is within five standard deviations but for once
			// in two million times.
			p := 1 - float64(i)/parts
			require.InDelta(t, n*p, fresh(), 1+5*math.Sqrt(n*p*(1-p)))
			time.Sleep(20 * time.Second / parts)
		}
		require.Zero(t, fresh(), "none after")
	})
}

func TestPeekNeitherLoadsNorCountsNorRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := new(backend)
		c := newCache(t, stringOptions{Capacity: 2, TTL: time.Minute, Stale: time.Minute, Beta: 1e6, NegativeTTL: time.Hour}, b.load)
		_, ok := c.Peek("k")
		require.False(t, ok)
		c.Set("k", 7)
		for _, wait := range []time.Duration{0, time.Minute, time.Minute - 1} {
			time.Sleep(wait)
			v, ok := c.Peek("k")
			require.True(t, ok)
			require.Equal(t, 7, v)
		}
		time.Sleep(time.Nanosecond)
		_, ok = c.Peek("k")
		require.False(t, ok, "past Stale")
		b.fail(coalesce.ErrNotFound)
		_, err := c.Get(t.Context(), "none")
		require.Equal(t, coalesce.ErrNotFound, err)
		_, ok = c.Peek("none")
		require.False(t, ok, "there is no value")
		require.Equal(t, coalesce.CacheStats{Misses: 1, Loads: 1, Entries: 2, Cost: 2}, c.Stats())
	})
}

// Peek is no reason to keep an entry: of two, the one that was only peeked at
// goes.
func TestPeekDoesNotKeepAnEntry(t *testing.T) {
	c := newCache(t, stringOptions{Capacity: 20}, new(backend).load)
	for i := range 20 {
		c.Set(strconv.Itoa(i), i)
	}
	for range 5 {
		for i := range 10 {
			if i%2 == 0 {
				get(t, c, strconv.Itoa(i))
			} else {
				_, err := c.Entry(t.Context(), strconv.Itoa(i))
				require.NoError(t, err)
			}
			c.Peek(strconv.Itoa(i + 10))
		}
	}
	for i := range 10 {
		c.Set("new"+strconv.Itoa(i), i)
	}
	for i := range 10 {
		_, ok := c.Peek(strconv.Itoa(i))
		require.True(t, ok)
		_, ok = c.Peek(strconv.Itoa(i + 10))
		require.False(t, ok)
	}
}

func TestSetInvalidateAndClear(t *testing.T) {
	b := new(backend)
	c := newCache(t, stringOptions{Capacity: 1000}, b.load)
	c.Set("a", 100)
	c.Set("b", 200)
	require.Equal(t, 100, get(t, c, "a"))
	c.Set("a", 101)
	require.Equal(t, 101, get(t, c, "a"))
	require.Equal(t, map[string]int{"a": 101, "b": 200}, maps.Collect(c.All()))

	c.Invalidate("a")
	c.Invalidate("never there")
	require.Equal(t, map[string]int{"b": 200}, maps.Collect(c.All()))
	require.Equal(t, 1, get(t, c, "a"))

	c.Clear()
	require.Empty(t, maps.Collect(c.All()))
	require.Zero(t, c.Stats().Entries)
	require.Zero(t, c.Stats().Cost)
	require.Equal(t, 2, get(t, c, "a"))
	require.Equal(t, 3, get(t, c, "b"))
}

// The table grows under its readers' eyes: no key is lost and none comes twice.
func TestTableGrowsAndShrinks(t *testing.T) {
	const n = 20_000
	c := newCache(t, coalesce.CacheOptions[int, int]{Capacity: n}, func(context.Context, int) (int, error) { return 0, errors.New("not expected") })
	for i := range n {
		c.Set(i, -i)
	}
	for i := range n {
		v, err := c.Get(t.Context(), i)
		require.NoError(t, err)
		require.Equal(t, -i, v)
	}
	seen := map[int]int{}
	for k, v := range c.All() {
		seen[k]++
		require.Equal(t, -k, v)
	}
	require.Len(t, seen, n)
	for _, times := range seen {
		require.Equal(t, 1, times)
	}
	for i := range n {
		if i%3 != 0 {
			c.Invalidate(i)
		}
	}
	require.Equal(t, (n+2)/3, len(maps.Collect(c.All())))
	require.Equal(t, (n+2)/3, c.Stats().Entries)
	for range c.All() {
		break // a loop that ends early is no trouble
	}
}

func TestAllLetsTheLoopUseTheCache(t *testing.T) {
	c := newCache(t, stringOptions{Capacity: 100}, new(backend).load)
	for i := range 50 {
		c.Set(strconv.Itoa(i), i)
	}
	for k := range c.All() {
		c.Invalidate(k)
		c.Set(k+"'", 0)
		c.Invalidate(k + "'")
	}
	require.Zero(t, c.Stats().Entries)
}

// A key that is not equal to itself is never found. It must not break the
// table, nor stay longer than there is room.
func TestKeysThatAreNotEqualToThemselves(t *testing.T) {
	loads := 0
	c := newCache(t, coalesce.CacheOptions[float64, int]{Capacity: 3, TTL: time.Hour, Stale: time.Hour}, func(context.Context, float64) (int, error) { loads++; return loads, nil })
	for i := range 10 {
		v, err := c.Get(t.Context(), math.NaN())
		require.NoError(t, err)
		require.Equal(t, i+1, v)
		c.Set(math.NaN(), 0)
		c.Invalidate(math.NaN())
		_, err = c.Refresh(t.Context(), math.NaN())
		require.NoError(t, err)
		require.LessOrEqual(t, c.Stats().Entries, 3)
		loads = i + 1
	}
	require.Zero(t, c.Leases())
	c.Clear()
	require.Zero(t, c.Stats().Entries)
}

func TestHitIsServedAlthoughTheContextHasEnded(t *testing.T) {
	c := newCache(t, stringOptions{Capacity: 1}, new(backend).load)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Get(ctx, "k")
	require.Equal(t, context.Canceled, err)
	c.Set("k", 7)
	v, err := c.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, 7, v)
}

// The keys come in the order in which they were given, those in memory between
// those that are loaded, and those are loaded at the same time.
func TestGetAllYieldsInOrderAndLoadsAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		c := newCache(t, stringOptions{Capacity: 10, NegativeTTL: time.Hour}, func(_ context.Context, key string) (int, error) {
			time.Sleep(time.Second)
			switch key {
			case "none":
				return 0, coalesce.ErrNotFound
			case "bad":
				return 0, boom
			}
			return len(key), nil
		})
		c.Set("x", 100)
		keys := []string{"x", "a", "none", "x", "bb", "a", "bad", "x"}
		var got []string
		var errs []error
		start := time.Now()
		for k, r := range c.GetAll(t.Context(), keys) {
			got = append(got, k+"="+strconv.Itoa(r.Val))
			if r.Err != nil {
				errs = append(errs, r.Err)
			}
		}
		require.Equal(t, time.Second, time.Since(start))
		require.Equal(t, []string{"x=100", "a=1", "none=0", "x=100", "bb=2", "a=1", "bad=0", "x=100"}, got)
		require.Equal(t, []error{coalesce.ErrNotFound, boom}, errs)
		require.EqualValues(t, 4, c.Stats().Loads)

		// All but the bad one are in memory now.
		start = time.Now()
		n := 0
		for range c.GetAll(t.Context(), slices.DeleteFunc(keys, func(k string) bool { return k == "bad" })) {
			n++
		}
		require.Equal(t, 7, n)
		require.Zero(t, time.Since(start))
		for range c.GetAll(t.Context(), nil) {
			t.Error("nothing was asked for")
		}
	})
}

// Those that are there when the context ends are not lost.
func TestGetAllReturnsWhatIsThereWhenTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, stringOptions{Capacity: 10}, func(ctx context.Context, key string) (int, error) {
			if key == "slow" {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			return 1, nil
		})
		c.Set("held", 1)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for k, r := range c.GetAll(ctx, []string{"slow", "held", "quick", "slow"}) {
			if k == "slow" {
				require.Equal(t, context.DeadlineExceeded, r.Err)
			} else {
				require.NoError(t, r.Err)
				require.Equal(t, 1, r.Val)
			}
		}
		require.Equal(t, time.Second, time.Since(start))
		synctest.Wait()
		require.Zero(t, c.Leases(), "the load was ended")
		require.Zero(t, c.Stats().LoadErrors, "nobody wanted it: that is no failure")
		for range c.GetAll(t.Context(), []string{"held", "quick"}) {
			break // leaving early is no trouble
		}
	})
}
