package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

type stringBatcher = coalesce.Batcher[string, int]

func newBatchCache(t testing.TB, b *stringBatcher, o stringOptions) *stringCache {
	t.Helper()
	c, err := coalesce.NewBatchCache(b, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close(context.Background())) })
	return c
}

// A table answers for the keys that it has, and keeps what it was asked.
type table struct {
	rows  map[string]int
	asked [][]string
	takes time.Duration
	err   error
}

func (x *table) fetch(_ context.Context, keys []string) (map[string]int, error) {
	keys = slices.Sorted(slices.Values(keys))
	x.asked = append(x.asked, keys)
	time.Sleep(x.takes)
	return x.rows, x.err
}

func lines(seq func(func(string, coalesce.Result[int]) bool)) (got []string) {
	for k, r := range seq {
		if r.Err != nil {
			got = append(got, fmt.Sprintf("%s: %v", k, r.Err))
		} else {
			got = append(got, fmt.Sprintf("%s=%d", k, r.Val))
		}
	}
	return got
}

func TestNewBatchCacheRefusesWhatMakesNoSense(t *testing.T) {
	fetch := new(table).fetch
	used := &stringBatcher{Fetch: fetch}
	_, _ = used.Load(t.Context(), "k")
	for want, x := range map[string]struct {
		b *stringBatcher
		o stringOptions
	}{
		"the Batcher is nil":                      {nil, stringOptions{Capacity: 1}},
		"Batcher.Fetch is nil":                    {new(stringBatcher), stringOptions{Capacity: 1}},
		"has been used":                           {used, stringOptions{Capacity: 1}},
		"Timeout is 1s, expected 0":               {&stringBatcher{Fetch: fetch}, stringOptions{Capacity: 1, Timeout: time.Second}},
		"Trace is set, expected nil":              {&stringBatcher{Fetch: fetch}, stringOptions{Capacity: 1, Trace: new(coalesce.Trace[string])}},
		"CacheOptions.Capacity is 0, expected at": {&stringBatcher{Fetch: fetch}, stringOptions{}},
	} {
		_, err := coalesce.NewBatchCache(x.b, x.o)
		require.ErrorContains(t, err, want)
	}
}

// The keys that are not in memory are fetched by one call, and each has its own
// value, its own error, or none.
func TestGetAllFetchesWhatIsMissingTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &table{rows: map[string]int{"a": 1, "b": 2, "unasked": 9}, takes: time.Second, err: coalesce.Errors[string]{"bad": io.EOF}}
		c := newBatchCache(t, &stringBatcher{Fetch: x.fetch}, stringOptions{Capacity: 10, NegativeTTL: time.Hour})
		c.Set("held", 5)
		keys := []string{"b", "held", "none", "bad", "a", "b"}
		want := []string{"b=2", "held=5", "none: " + coalesce.ErrNotFound.Error(), "bad: EOF", "a=1", "b=2"}
		require.Equal(t, want, lines(c.GetAll(t.Context(), keys)))
		require.Equal(t, [][]string{{"a", "b", "bad", "none"}}, x.asked)

		require.Equal(t, want, lines(c.GetAll(t.Context(), keys)), "an error is not kept, all else is")
		require.Equal(t, []string{"bad"}, x.asked[1])
		require.Equal(t, map[string]int{"a": 1, "b": 2, "held": 5}, maps.Collect(c.All()))
		s := c.Stats()
		require.EqualValues(t, 5, s.Loads)
		require.EqualValues(t, 2, s.LoadErrors)
		require.Zero(t, c.Leases())
	})
}

// Every way in which a fetch can end reaches everybody who waits for one of its
// keys, and nothing of it stays behind.
func TestEveryEndOfAFetchReachesEveryReader(t *testing.T) {
	for end, e := range endings() {
		for name, read := range readers {
			for _, mode := range []string{"inline", "detached"} {
				t.Run(strings.Join([]string{end, name, mode}, "/"), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						fetches := 0
						b := &stringBatcher{Fetch: func(ctx context.Context, keys []string) (map[string]int, error) {
							time.Sleep(time.Second)
							if fetches++; fetches > 1 {
								return map[string]int{"k": 8}, nil
							}
							v, err := e.load(ctx, keys[0])
							return map[string]int{"k": v}, err
						}}
						c := newBatchCache(t, b, stringOptions{Capacity: 10, TTL: time.Hour})
						ctx := context.Background()
						if mode == "detached" {
							ctx = t.Context()
						}
						first := observe(func() coalesce.Result[int] { return read(c, ctx) })
						synctest.Wait()
						second := observe(func() coalesce.Result[int] { return read(c, t.Context()) })
						time.Sleep(time.Second)
						synctest.Wait()
						require.True(t, first.over)
						require.Nil(t, first.panicked)
						if end == "Goexit" && mode == "inline" {
							require.False(t, first.returned)
						} else {
							e.check(t, first.result)
						}
						require.True(t, second.returned)
						e.check(t, second.result)
						require.Zero(t, c.Leases())
						require.Equal(t, 1, fetches)
						if e.err != nil {
							require.EqualValues(t, 1, c.Stats().LoadErrors)
							require.Equal(t, 8, get(t, c, "k"), "the key is free")
						}
					})
				})
			}
		}
	}
}

// In the background too, and the next refresh finds the way free.
func TestEveryEndOfABackgroundFetch(t *testing.T) {
	for end, e := range endings() {
		t.Run(end, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &stringBatcher{Fetch: func(ctx context.Context, keys []string) (map[string]int, error) {
					v, err := e.load(ctx, keys[0])
					return map[string]int{"k": v}, err
				}}
				c := newBatchCache(t, b, stringOptions{Capacity: 10, TTL: time.Minute, Stale: time.Hour})
				c.Set("k", 5)
				for range 2 {
					time.Sleep(time.Minute)
					get(t, c, "k")
					synctest.Wait()
				}
				v, ok := c.Peek("k")
				require.True(t, ok)
				s := c.Stats()
				require.EqualValues(t, 2, s.Refreshes)
				if e.err == nil {
					require.Equal(t, e.val, v)
				} else {
					require.Equal(t, 5, v)
					require.EqualValues(t, 2, s.LoadErrors)
				}
			})
		})
	}
}

// Keys whose values came while their caller was on the way to the Batcher are
// not fetched again; the rest of the batch is. The map that Fetch returned is
// left as it is.
func TestLateCallerDoesNotFetchAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &table{rows: map[string]int{"a": 1, "b": 2}}
		c := newBatchCache(t, &stringBatcher{Fetch: x.fetch}, stringOptions{Capacity: 10, TTL: time.Hour, NegativeTTL: time.Hour})
		gone := fmt.Errorf("dropped: %w", coalesce.ErrNotFound)
		meanwhile := func() {
			c.Set("set", 7)
			x.err = coalesce.Errors[string]{"gone": gone}
			_, err := c.Get(context.Background(), "gone")
			require.Equal(t, gone, err)
			x.err = nil
			require.Equal(t, 1, get(t, c, "a"))
		}
		ctx := &slowContext{Context: t.Context(), wait: meanwhile}
		require.Equal(t, []string{"a=1", "set=7", "b=2", "gone: " + coalesce.ErrNotFound.Error()}, lines(c.GetAll(ctx, []string{"a", "set", "b", "gone"})))
		require.Equal(t, [][]string{{"gone"}, {"a"}, {"b"}}, x.asked)
		require.Equal(t, map[string]int{"a": 1, "b": 2}, x.rows)

		// Not even a fetch is left if all are known.
		c.Clear()
		x.asked = nil
		ctx = &slowContext{Context: t.Context(), wait: meanwhile}
		_, err := c.Get(ctx, "gone")
		require.Equal(t, gone, err)
		require.Equal(t, [][]string{{"gone"}, {"a"}}, x.asked)
		ctx = &slowContext{Context: t.Context(), wait: func() { c.Set("new", 3) }}
		e, err := c.Entry(ctx, "new")
		require.NoError(t, err)
		require.Equal(t, coalesce.Entry[int]{Value: 3}, e)
		require.Len(t, x.asked, 2)
	})
}

// Refreshes of many keys that come due together share fetches: the first goes
// at once, those that come during it together.
func TestRefreshesShareFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows := map[string]int{"a": 10, "b": 20, "c": 30, "d": 40}
		x := &table{rows: rows, takes: time.Second}
		c := newBatchCache(t, &stringBatcher{Fetch: x.fetch}, stringOptions{Capacity: 10, TTL: time.Minute, Stale: time.Minute})
		keys := slices.Sorted(maps.Keys(rows))
		for i, key := range keys {
			c.Set(key, i)
		}
		time.Sleep(time.Minute)
		require.Equal(t, []string{"a=0", "b=1", "c=2", "d=3"}, lines(c.GetAll(t.Context(), keys)))
		time.Sleep(3 * time.Second)
		require.Equal(t, []string{"a=10", "b=20", "c=30", "d=40"}, lines(c.GetAll(t.Context(), keys)))
		require.Len(t, x.asked, 2)
		require.ElementsMatch(t, keys, slices.Concat(x.asked...))
		require.EqualValues(t, 4, c.Stats().Refreshes)
	})
}

// Also a key that its own refresh has to wait for in the queue is loaded once.
func TestRefreshOverABatcherLoadsNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		b := &stringBatcher{Fetch: func(_ context.Context, keys []string) (map[string]int, error) {
			time.Sleep(time.Second)
			n++
			return map[string]int{keys[0]: n}, nil
		}}
		c := newBatchCache(t, b, stringOptions{Capacity: 10, TTL: time.Hour})
		for want := range 3 {
			v, err := c.Refresh(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, want+1, v)
			require.Equal(t, v, get(t, c, "k"))
		}
	})
}

// A refresh may join a fetch that had found the key in memory and left it out:
// that is no load, and it goes on to one.
func TestRefreshIsNotContentWithAFetchThatLeftItsKeyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &table{rows: map[string]int{"k": 1, "other": 2}, takes: time.Second}
		c := newBatchCache(t, &stringBatcher{Fetch: x.fetch}, stringOptions{Capacity: 10})
		ctx := &slowContext{Context: t.Context(), wait: func() { c.Set("k", 100) }}
		go func() {
			for range c.GetAll(ctx, []string{"k", "other"}) {
			}
		}()
		synctest.Wait()
		start := time.Now()
		v, err := c.Refresh(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, 1, v)
		require.Equal(t, 2*time.Second, time.Since(start))
		require.Equal(t, [][]string{{"other"}, {"k"}}, x.asked)
	})
}

// A value that was set during a fetch is better than what the fetch brings, but
// not when it has expired meanwhile.
func TestFetchThatOutlivesAValueThatWasSet(t *testing.T) {
	for takes, want := range map[time.Duration]int{time.Minute: 100, 2 * time.Minute: 1} {
		synctest.Test(t, func(t *testing.T) {
			x := &table{rows: map[string]int{"k": 1}, takes: takes}
			c := newBatchCache(t, &stringBatcher{Fetch: x.fetch}, stringOptions{Capacity: 10, TTL: 90 * time.Second})
			r := observe(func() (r coalesce.Result[int]) { r.Val, r.Err = c.Get(t.Context(), "k"); return r })
			synctest.Wait()
			c.Set("k", 100)
			time.Sleep(takes)
			synctest.Wait()
			require.Equal(t, coalesce.Result[int]{Val: want}, r.result)
		})
	}
}

// Who loads past the cache fills it, and a panic is one for that caller.
func TestLoadOfTheBatcherItselfIsStored(t *testing.T) {
	x := &table{rows: map[string]int{"a": 1}}
	b := &stringBatcher{Fetch: func(ctx context.Context, keys []string) (map[string]int, error) {
		if keys[0] == "bad" {
			panic(io.EOF)
		}
		return x.fetch(ctx, keys)
	}}
	c := newBatchCache(t, b, stringOptions{Capacity: 10})
	v, err := b.Load(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, 1, v)
	require.Equal(t, 1, get(t, c, "a"))
	require.Len(t, x.asked, 1)
	require.Panics(t, func() { _, _ = b.Load(t.Context(), "bad") })
}

func TestPanicOfCostInABatch(t *testing.T) {
	x := &table{rows: map[string]int{"a": 1, "b": 2}}
	c := newBatchCache(t, &stringBatcher{Fetch: x.fetch}, stringOptions{Capacity: 10, Cost: func(string, int) int { panic(io.EOF) }})
	for _, r := range c.GetAll(t.Context(), []string{"a", "b"}) {
		require.ErrorIs(t, r.Err, io.EOF)
		require.IsType(t, (*coalesce.PanicError)(nil), r.Err)
	}
	require.Zero(t, c.Leases())
	require.EqualValues(t, 2, c.Stats().LoadErrors)
}

// Close closes the Batcher, and cancels what is under way when it has to.
func TestCloseOfABatchCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cause error
		b := &stringBatcher{Fetch: func(ctx context.Context, _ []string) (map[string]int, error) {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return nil, ctx.Err()
		}}
		c, err := coalesce.NewBatchCache(b, stringOptions{Capacity: 10, TTL: time.Minute, Stale: time.Hour})
		require.NoError(t, err)
		c.Set("k", 5)
		time.Sleep(time.Minute)
		require.Equal(t, 5, get(t, c, "k"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Equal(t, context.DeadlineExceeded, c.Close(ctx))
		synctest.Wait()
		require.Equal(t, coalesce.ErrAbandoned, cause)
		require.Zero(t, c.Stats().LoadErrors)
		_, err = b.Load(t.Context(), "k")
		require.Equal(t, coalesce.ErrClosed, err)
		_, err = c.Get(t.Context(), "other")
		require.Equal(t, coalesce.ErrClosed, err)
		for _, r := range c.GetAll(t.Context(), []string{"other"}) {
			require.True(t, errors.Is(r.Err, coalesce.ErrClosed))
		}
		require.Equal(t, 5, get(t, c, "k"))
	})
}
