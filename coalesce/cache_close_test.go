package coalesce_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

func TestClosedCacheServesWhatItHasAndLoadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := new(backend)
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, Stale: time.Minute, StaleIfError: time.Hour}, b.load)
		c.Set("k", 5)
		require.NoError(t, c.Close(t.Context()))
		require.NoError(t, c.Close(t.Context()), "again")
		require.Equal(t, 5, get(t, c, "k"))
		_, err := c.Get(t.Context(), "other")
		require.Equal(t, coalesce.ErrClosed, err)
		_, err = c.Refresh(t.Context(), "k")
		require.Equal(t, coalesce.ErrClosed, err)
		for _, r := range c.GetAll(t.Context(), []string{"other", "k", "another"}) {
			if r.Val != 5 {
				require.Equal(t, coalesce.ErrClosed, r.Err)
			}
		}
		for _, state := range []coalesce.EntryState{coalesce.Stale, coalesce.StaleError} {
			time.Sleep(time.Minute)
			e, err := c.Entry(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, state, e.State)
			require.Equal(t, 5, e.Value)
		}
		time.Sleep(time.Hour)
		_, err = c.Get(t.Context(), "k")
		require.Equal(t, coalesce.ErrClosed, err)
		require.Zero(t, b.calls.Load())
	})
}

func TestCloseWaitsForRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{takes: 10 * time.Second}
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, Stale: time.Hour}, b.load)
		c.Set("a", 5)
		c.Set("b", 5)
		time.Sleep(time.Minute)
		get(t, c, "a")
		time.Sleep(time.Second)
		get(t, c, "b")
		start := time.Now()
		closed := make(chan error)
		for range 2 {
			go func() { closed <- c.Close(t.Context()) }()
		}
		require.NoError(t, <-closed)
		require.NoError(t, <-closed)
		require.Equal(t, 10*time.Second, time.Since(start))
		require.NotEqual(t, 5, get(t, c, "a"), "the refresh was not in vain")
	})
}

// When the patience of Close ends, the refreshes are cancelled, and Close
// returns at once. Who waits for the same load is not harmed.
func TestCloseCancelsRefreshesWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ends []error
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, Stale: time.Second}, func(ctx context.Context, _ string) (int, error) {
			select {
			case <-ctx.Done():
				ends = append(ends, context.Cause(ctx))
				return 0, ctx.Err()
			case <-time.After(time.Hour):
				return 9, nil
			}
		})
		c.Set("alone", 5)
		c.Set("joined", 5)
		time.Sleep(time.Minute)
		get(t, c, "alone")
		get(t, c, "joined")
		time.Sleep(time.Second)
		joiner := observe(func() (r coalesce.Result[int]) { r.Val, r.Err = c.Get(t.Context(), "joined"); return r })
		synctest.Wait()

		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Equal(t, context.DeadlineExceeded, c.Close(ctx))
		require.Equal(t, time.Second, time.Since(start))
		synctest.Wait()
		require.Equal(t, []error{coalesce.ErrAbandoned}, ends)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, coalesce.Result[int]{Val: 9}, joiner.result)
		require.Zero(t, c.Stats().LoadErrors)
	})
}

// A refresh that another caller's Set has made needless counts until it ends.
func TestCloseWaitsForARefreshThatWasOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{takes: 10 * time.Second}
		b.fail(io.EOF)
		c := newCache(t, stringOptions{Capacity: 10, TTL: time.Minute, Stale: time.Hour}, b.load)
		c.Set("k", 5)
		time.Sleep(time.Minute)
		get(t, c, "k")
		synctest.Wait()
		c.Set("k", 6)
		start := time.Now()
		require.NoError(t, c.Close(t.Context()))
		require.Equal(t, 10*time.Second, time.Since(start))
		require.Equal(t, 6, get(t, c, "k"))
	})
}
