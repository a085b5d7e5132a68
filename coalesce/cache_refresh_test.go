package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// RFC 5861 by cases: for a value of a certain age, and a backend in a certain
// state, what is served, by what right, and what the backend is asked, at once
// and in the background. Section 3 is stale-while-revalidate, section 4
// stale-if-error.
func TestRFC5861(t *testing.T) {
	const (
		ttl   = 600 * time.Second // the figures of the RFC's example
		stale = 30 * time.Second
		ifErr = 1200 * time.Second
	)
	down := errors.New("503")
	swr, sie, both := [2]time.Duration{stale, 0}, [2]time.Duration{0, ifErr}, [2]time.Duration{stale, ifErr}
	const old, renewed = 7, 1
	cases := []struct {
		age     time.Duration
		windows [2]time.Duration // Stale, StaleIfError
		backend error

		want     int
		state    coalesce.EntryState
		err      error
		waits    bool // for the backend
		calls    int64
		thenPeek int // what is in memory afterwards; 0 for nothing that Peek shows
	}{
		{0, both, nil, old, coalesce.Fresh, nil, false, 0, old},
		{ttl - 1, both, nil, old, coalesce.Fresh, nil, false, 0, old},
		{ttl - 1, both, down, old, coalesce.Fresh, nil, false, 0, old},

		// Within stale-while-revalidate: "the cache MAY serve the response" and
		// "SHOULD attempt to revalidate it while still serving".
		{ttl, swr, nil, old, coalesce.Stale, nil, false, 1, renewed},
		{ttl + stale - 1, swr, nil, old, coalesce.Stale, nil, false, 1, renewed},
		{ttl, swr, down, old, coalesce.Stale, nil, false, 1, old},
		{ttl, both, down, old, coalesce.Stale, nil, false, 1, old},
		{ttl, swr, coalesce.ErrNotFound, old, coalesce.Stale, nil, false, 1, 0},

		// "If delta-seconds passes without the cached entity being revalidated,
		// the response MUST NOT continue to be served stale."
		{ttl + stale, swr, nil, renewed, coalesce.Fresh, nil, true, 1, renewed},
		{ttl + stale, swr, down, 0, coalesce.Fresh, down, true, 1, 0},

		// Without it nobody is served stale while the backend is up.
		{ttl, sie, nil, renewed, coalesce.Fresh, nil, true, 1, renewed},
		{ttl + ifErr - 1, sie, nil, renewed, coalesce.Fresh, nil, true, 1, renewed},

		// "When an error is encountered, a cached stale response MAY be used",
		// and only within the window. That there is no value is no error: the
		// RFC's errors are 500, 502, 503 and 504, not 404.
		{ttl, sie, down, old, coalesce.StaleError, nil, true, 1, 0},
		{ttl + ifErr - 2*time.Second, sie, down, old, coalesce.StaleError, nil, true, 1, 0},
		{ttl + stale, both, down, old, coalesce.StaleError, nil, true, 1, 0},
		{ttl + ifErr - time.Second, sie, down, 0, coalesce.Fresh, down, true, 1, 0}, // over when the error is there
		{ttl + ifErr, sie, down, 0, coalesce.Fresh, down, true, 1, 0},
		{ttl, sie, coalesce.ErrNotFound, 0, coalesce.Negative, coalesce.ErrNotFound, true, 1, 0},
		{ttl + stale, both, coalesce.ErrNotFound, 0, coalesce.Negative, coalesce.ErrNotFound, true, 1, 0},

		// Neither directive.
		{ttl, [2]time.Duration{}, nil, renewed, coalesce.Fresh, nil, true, 1, renewed},
		{ttl, [2]time.Duration{}, down, 0, coalesce.Fresh, down, true, 1, 0},
	}
	for i, x := range cases {
		t.Run(fmt.Sprintf("%d/age=%v/backend=%v", i, x.age, x.backend), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{takes: time.Second}
				b.fail(x.backend)
				c := newCache(t, stringOptions{Capacity: 10, TTL: ttl, Stale: x.windows[0], StaleIfError: x.windows[1]}, b.load)
				c.Set("k", old)
				time.Sleep(x.age)
				start := time.Now()
				e, err := c.Entry(t.Context(), "k")
				require.Equal(t, x.err, err)
				require.Equal(t, x.want, e.Value)
				require.Equal(t, x.state, e.State)
				if x.waits {
					require.Equal(t, time.Second, time.Since(start))
				} else {
					require.Zero(t, time.Since(start))
				}
				if x.want == old {
					require.Equal(t, x.age+time.Since(start), e.Age)
				}
				time.Sleep(time.Second + 1)
				synctest.Wait()
				require.Equal(t, x.calls, b.calls.Load())
				v, _ := c.Peek("k")
				require.Equal(t, x.thenPeek, v)
			})
		})
	}
}

type requestID struct{}

// Within Stale any number of readers set off one refresh. It has the values of
// the first, but not its end, and is bounded by Timeout.
func TestStaleReadersSetOffOneRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type seen struct {
			id       any
			deadline time.Duration
		}
		var loads []seen
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, Stale: time.Hour, Timeout: 30 * time.Second}, func(ctx context.Context, _ string) (int, error) {
			at, _ := ctx.Deadline()
			loads = append(loads, seen{ctx.Value(requestID{}), time.Until(at)})
			select {
			case <-time.After(10 * time.Second):
				return len(loads), nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		})
		c.Set("k", 100)
		time.Sleep(time.Minute)
		for i := range 100 {
			ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), requestID{}, i), time.Millisecond)
			v, err := c.Get(ctx, "k")
			cancel()
			require.NoError(t, err)
			require.Equal(t, 100, v)
			synctest.Wait()
		}
		require.Equal(t, []seen{{0, 30 * time.Second}}, loads)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, 1, get(t, c, "k"))
		s := c.Stats()
		require.EqualValues(t, 1, s.Refreshes)
		require.EqualValues(t, 100, s.StaleHits)
		require.EqualValues(t, 101, s.Hits)
	})
}

// Who comes past Stale joins the refresh that is under way, instead of loading
// a second time beside it.
func TestCallerPastStaleJoinsTheRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{takes: 10 * time.Second}
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, Stale: time.Second, StaleIfError: time.Hour}, b.load)
		c.Set("k", 100)
		time.Sleep(time.Minute + time.Second - 1)
		require.Equal(t, 100, get(t, c, "k"))
		start := time.Now()
		time.Sleep(2 * time.Second)
		require.Equal(t, 1, get(t, c, "k"))
		require.Equal(t, 10*time.Second, time.Since(start))
		require.EqualValues(t, 1, b.calls.Load())
	})
}

// A refresh that fails is tried again after 100 ms, 200, 400, … up to 10 s,
// however many readers there are; a success ends that.
func TestFailedRefreshesPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := new(backend)
		b.fail(io.EOF)
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, Stale: time.Hour}, b.load)
		c.Set("k", 100)
		time.Sleep(time.Minute)
		var at []time.Duration
		start, calls := time.Now(), int64(0)
		for time.Since(start) < 55*time.Second {
			require.Equal(t, 100, get(t, c, "k"))
			synctest.Wait()
			if n := b.calls.Load(); n > calls {
				require.Equal(t, calls+1, n)
				at, calls = append(at, time.Since(start)), n
			}
			time.Sleep(10 * time.Millisecond)
		}
		ms := time.Millisecond
		require.Equal(t, []time.Duration{0, 100 * ms, 300 * ms, 700 * ms, 1500 * ms, 3100 * ms, 6300 * ms, 12700 * ms, 22700 * ms, 32700 * ms, 42700 * ms, 52700 * ms}, at)
		s := c.Stats()
		require.EqualValues(t, 12, s.LoadErrors)
		require.EqualValues(t, 12, s.Refreshes)

		b.fail(nil)
		time.Sleep(10 * time.Second)
		get(t, c, "k")
		synctest.Wait()
		require.Equal(t, 13, get(t, c, "k"))
		b.fail(io.EOF)
		time.Sleep(time.Minute)
		for _, wait := range []time.Duration{0, 100 * ms} {
			time.Sleep(wait)
			get(t, c, "k")
			synctest.Wait()
		}
		require.EqualValues(t, 15, b.calls.Load(), "the pauses start anew")
	})
}

// While the backend is down, callers within StaleIfError do not even wait for
// an error, except one for each pause.
func TestBrokenBackendIsNotAskedByEveryCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{takes: 10 * time.Millisecond}
		b.fail(io.EOF)
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, StaleIfError: time.Hour}, b.load)
		c.Set("k", 100)
		time.Sleep(time.Minute)
		for range 1000 {
			e, err := c.Entry(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, coalesce.StaleError, e.State)
			require.Equal(t, 100, e.Value)
			time.Sleep(time.Millisecond)
		}
		require.EqualValues(t, 4, b.calls.Load(), "at 0, 0.1, 0.3 and 0.7 seconds, and a little")
		require.EqualValues(t, 1000, c.Stats().StaleErrors)
		require.EqualValues(t, 4, c.Stats().Misses)
	})
}

// A negative entry has a life of its own, and ends the value.
func TestNotFoundIsRememberedForNegativeTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := fmt.Errorf("no such row: %w", coalesce.ErrNotFound)
		b := new(backend)
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Hour, Stale: time.Hour, StaleIfError: time.Hour, Jitter: 1, Beta: 1, NegativeTTL: time.Minute}, b.load)
		c.Set("k", 100)
		b.fail(gone)
		_, err := c.Refresh(t.Context(), "k")
		require.Equal(t, gone, err)
		for range 3 {
			e, err := c.Entry(t.Context(), "k")
			require.Equal(t, gone, err)
			require.Equal(t, coalesce.Negative, e.State)
			_, err = c.Get(t.Context(), "k")
			require.Equal(t, gone, err)
		}
		time.Sleep(time.Minute - 1)
		b.fail(nil)
		e, err := c.Entry(t.Context(), "k")
		require.Equal(t, gone, err)
		require.Equal(t, coalesce.Entry[int]{Age: time.Minute - 1, State: coalesce.Negative}, e)
		require.EqualValues(t, 1, b.calls.Load())
		time.Sleep(time.Nanosecond)
		require.Equal(t, 2, get(t, c, "k"), "nobody serves the absence of a value as stale")
		require.Zero(t, c.Stats().LoadErrors)
		require.Zero(t, c.Stats().Refreshes)
	})
}

func TestNotFoundWithoutNegativeTTLRemovesTheValue(t *testing.T) {
	b := new(backend)
	c := newCache(t, stringOptions{Capacity: 10}, b.load)
	c.Set("k", 100)
	b.fail(coalesce.ErrNotFound)
	_, err := c.Refresh(t.Context(), "k")
	require.Equal(t, coalesce.ErrNotFound, err)
	require.Zero(t, c.Stats().Entries)
	_, err = c.Get(t.Context(), "k")
	require.Equal(t, coalesce.ErrNotFound, err)
	require.EqualValues(t, 2, b.calls.Load())
}

// Refresh loads although there is a fresh value, and never returns the old one.
func TestRefreshLoadsNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{takes: time.Second}
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Hour, Stale: time.Hour, StaleIfError: time.Hour}, b.load)
		for i := range 3 {
			v, err := c.Refresh(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, i+1, v)
			require.Equal(t, i+1, get(t, c, "k"))
		}
		b.fail(io.EOF)
		_, err := c.Refresh(t.Context(), "k")
		require.Equal(t, io.EOF, err)
		require.Equal(t, 3, get(t, c, "k"), "an error does not replace the value")
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err = c.Refresh(ctx, "k")
		require.Equal(t, context.DeadlineExceeded, err)
		require.EqualValues(t, 1, c.Stats().LoadErrors)
		require.Zero(t, c.Stats().Refreshes, "they count those in the background")

		b.fail(nil)
		results := make(chan int)
		for range 10 {
			go func() { v, _ := c.Refresh(context.Background(), "k"); results <- v }()
		}
		for range 10 {
			require.Equal(t, 6, <-results, "they share one load")
		}
	})
}

// seeded makes the draws repeatable. They are -ln(U), as the paper has it, where
// the cache draws from the same distribution more cheaply.
func seeded(c *stringCache, seed uint64) {
	r := rand.New(rand.NewPCG(seed, seed))
	c.Draw(func() float64 { return -math.Log(1 - r.Float64()) })
}

// The paper's rule, now - took*Beta*ln(U) >= expiry, lets a reader refresh with
// the probability exp(-gap/(Beta*took)), where gap is the time to the expiry.
// The count of refreshes among n readers of n keys is binomial. The draws are
// seeded, so the test always sees the same ones.
func TestEarlyRefreshesAreAsFrequentAsXFetchSays(t *testing.T) {
	const n = 1500
	for _, beta := range []float64{0.5, 1, 3} {
		for _, gap := range []time.Duration{10 * time.Second, 2 * time.Second, time.Second / 2, 1} {
			synctest.Test(t, func(t *testing.T) {
				const took = time.Second
				b := &backend{takes: took}
				c := newCache(t, stringOptions{Capacity: n, TTL: time.Minute, Beta: beta}, b.load)
				seeded(c, uint64(gap)+uint64(beta*10))
				keys := make([]string, n)
				for i := range keys {
					keys[i] = strconv.Itoa(i)
				}
				for _, r := range c.GetAll(t.Context(), keys) {
					require.NoError(t, r.Err)
				}
				time.Sleep(time.Minute - gap)
				for _, key := range keys {
					e, err := c.Entry(t.Context(), key)
					require.NoError(t, err)
					require.Equal(t, coalesce.Fresh, e.State)
				}
				p := math.Exp(-gap.Seconds() / (beta * took.Seconds()))
				got := float64(c.Stats().Refreshes)
				require.InDelta(t, n*p, got, 0.5+4*math.Sqrt(n*p*(1-p)), "beta %v, gap %v", beta, gap)
				time.Sleep(took)
				synctest.Wait()
				require.EqualValues(t, n+got, b.calls.Load())
			})
		}
	}
}

// An early refresh replaces the value before it expires, so with enough readers
// nobody ever waits and nobody gets an old value.
func TestEarlyRefreshKeepsABusyKeyFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{takes: time.Second}
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, Beta: 1}, b.load)
		seeded(c, 1)
		require.Equal(t, 1, get(t, c, "k"))
		for range 60_000 {
			e, err := c.Entry(t.Context(), "k")
			require.NoError(t, err)
			require.Less(t, e.Age, time.Minute)
			time.Sleep(10 * time.Millisecond)
		}
		s := c.Stats()
		require.EqualValues(t, 1, s.Misses)
		require.InDelta(t, 11, s.Refreshes, 2, "600 s of entries that live a little below 60")
	})
}

// What Set brings has the load time of the value before it, as the best guess.
func TestSetKeepsTheLoadTimeForEarlyRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{takes: time.Second}
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, Beta: 1}, b.load)
		get(t, c, "loaded")
		c.Set("loaded", 5)
		c.Set("never", 5)
		time.Sleep(time.Minute - 1)
		get(t, c, "loaded")
		get(t, c, "never")
		require.EqualValues(t, 1, c.Stats().Refreshes)
		require.EqualValues(t, 1, c.Stats().Misses)
	})
}

// A refresh that never ran does not stop those after it: here the reader is the
// work of a load of the same key, for which it cannot wait.
func TestRefreshThatCouldNotRunIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *stringCache
		loads := 0
		c = newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, Stale: time.Hour}, func(ctx context.Context, key string) (int, error) {
			if loads++; loads > 1 {
				return loads, nil
			}
			v, err := c.Get(ctx, key)
			require.NoError(t, err)
			require.Equal(t, 100, v)
			<-ctx.Done()
			return 0, ctx.Err()
		})
		c.Set("k", 100)
		time.Sleep(time.Minute)
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		_, err := c.Refresh(ctx, "k")
		require.Equal(t, context.DeadlineExceeded, err)
		synctest.Wait()
		require.EqualValues(t, 1, c.Stats().Refreshes)
		require.Equal(t, 100, get(t, c, "k"))
		synctest.Wait()
		require.Equal(t, 2, get(t, c, "k"))
	})
}

// A reader that has found a value which is then invalidated does not bring the
// key back by a refresh.
func TestRefreshIsNotForAKeyThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{takes: time.Second}
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, Beta: 1}, b.load)
		get(t, c, "k")
		c.Draw(func() float64 {
			c.Invalidate("k")
			return 1e9
		})
		time.Sleep(time.Minute - time.Nanosecond)
		require.Equal(t, 1, get(t, c, "k"))
		synctest.Wait()
		require.Zero(t, c.Stats().Refreshes)
		require.Zero(t, c.Stats().Entries)
	})
}

// The failure of a refresh that was overtaken by Set says nothing of the value
// that was set: its refreshes do not pause.
func TestFailureOfAnOvertakenRefreshIsNoReasonToPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{takes: 10 * time.Millisecond}
		b.fail(io.EOF)
		c := newCache(t, stringOptions{Capacity: 10, TTL: 50 * time.Millisecond, Stale: time.Hour}, b.load)
		c.Set("k", 100)
		time.Sleep(50 * time.Millisecond)
		get(t, c, "k")
		synctest.Wait()
		c.Set("k", 101)
		time.Sleep(50 * time.Millisecond)
		require.EqualValues(t, 1, c.Stats().LoadErrors)
		b.fail(nil)
		require.Equal(t, 101, get(t, c, "k"))
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, 2, get(t, c, "k"))

		// Nor is one that came just before.
		b.fail(io.EOF)
		_, err := c.Refresh(t.Context(), "k")
		require.Equal(t, io.EOF, err)
		c.Set("k", 102)
		time.Sleep(50 * time.Millisecond)
		b.fail(nil)
		require.Equal(t, 102, get(t, c, "k"))
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, 4, get(t, c, "k"))
	})
}
