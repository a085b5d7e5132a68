package coalesce_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// A hit allocates nothing, whether the value is fresh, stale while a refresh is
// under way, or known not to be there.
func TestHitsAllocateNothing(t *testing.T) {
	skipUnderRace(t)
	synctest.Test(t, func(t *testing.T) {
		down := make(chan struct{})
		c := newCache(t, stringOptions{Capacity: 1000, TTL: time.Minute, Stale: time.Minute, StaleIfError: time.Hour, NegativeTTL: time.Hour, Beta: 1}, func(_ context.Context, key string) (int, error) {
			switch key {
			case "none":
				return 0, coalesce.ErrNotFound
			case "stale":
				<-down
			}
			return 7, errWork
		})
		nothing := func(key string, want error) {
			t.Helper()
			ctx := t.Context()
			require.Zero(t, testing.AllocsPerRun(1000, func() {
				v, err := c.Get(ctx, key)
				e, _ := c.Entry(ctx, key)
				if err != want || e.Value != v {
					t.Error(v, err)
				}
				c.Peek(key)
			}), key)
		}
		c.Set("fresh", 5)
		nothing("fresh", nil)
		_, err := c.Get(t.Context(), "none")
		require.Equal(t, coalesce.ErrNotFound, err)
		nothing("none", coalesce.ErrNotFound)
		c.Set("stale", 5)
		c.Set("failed", 5)
		time.Sleep(time.Minute)
		get(t, c, "stale")
		nothing("stale", nil)
		time.Sleep(time.Minute)
		require.Equal(t, 5, get(t, c, "failed"))
		nothing("failed", nil)
		close(down)
	})
}

// Structs, and interfaces that hold something small, hash without allocating
// too.
func TestHitsAllocateNothingForOtherKeys(t *testing.T) {
	skipUnderRace(t)
	type pair struct{ tenant, channel string }
	c := newCache(t, coalesce.CacheOptions[pair, []byte]{Capacity: 10}, func(context.Context, pair) ([]byte, error) { return nil, nil })
	c.Set(pair{"a", "b"}, []byte("x"))
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if v, err := c.Get(context.Background(), pair{"a", "b"}); len(v) != 1 || err != nil {
			t.Error(v, err)
		}
	}))
}
