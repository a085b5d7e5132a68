package benchmarks

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/stretchr/testify/require"
	"github.com/viccon/sturdyc"

	"github.com/evenkeel-go/evenkeel/benchmarks/ratio"
	"github.com/evenkeel-go/evenkeel/coalesce"
)

// warm runs an operation until it finds all keys in its cache.
func warm(op ratio.Op) ratio.Op {
	op(2 * len(keys))
	return op
}

// Hits in a loading cache whose entries expire, one goroutine, 1000 keys. Nothing
// expires meanwhile.

func cacheGet(t testing.TB, ctx context.Context) ratio.Op {
	c, err := coalesce.NewCache(func(context.Context, string) (int, error) { return 42, nil },
		coalesce.CacheOptions[string, int]{Capacity: 100_000, TTL: time.Hour})
	require.NoError(t, err)
	return warm(func(n int) {
		for i := range n {
			if _, err := c.Get(ctx, keys[i%len(keys)]); err != nil {
				panic(err)
			}
		}
	})
}

func otterGet(ctx context.Context) ratio.Op {
	c := otter.Must(&otter.Options[string, int]{MaximumSize: 100_000, ExpiryCalculator: otter.ExpiryWriting[string, int](time.Hour)})
	load := otter.LoaderFunc[string, int](func(context.Context, string) (int, error) { return 42, nil })
	return warm(func(n int) {
		for i := range n {
			if _, err := c.Get(ctx, keys[i%len(keys)], load); err != nil {
				panic(err)
			}
		}
	})
}

func sturdycGet(ctx context.Context) ratio.Op {
	c := sturdyc.New[int](100_000, 64, time.Hour, 10)
	load := func(context.Context) (int, error) { return 42, nil }
	return warm(func(n int) {
		for i := range n {
			if _, err := c.GetOrFetch(ctx, keys[i%len(keys)], load); err != nil {
				panic(err)
			}
		}
	})
}

// hitFloor is what a hit cannot do without: a map and the clock.
func hitFloor() ratio.Op {
	m := map[string]int{}
	for _, k := range keys {
		m[k] = 42
	}
	start := time.Now()
	return func(n int) {
		for i := range n {
			if m[keys[i%len(keys)]] != 42 || time.Since(start) > 24*time.Hour {
				panic("not found")
			}
		}
	}
}

func BenchmarkCacheHit(b *testing.B) {
	for name, op := range map[string]ratio.Op{
		"floor":    hitFloor(),
		"evenkeel": cacheGet(b, b.Context()),
		"otter":    otterGet(b.Context()),
		"sturdyc":  sturdycGet(b.Context()),
	} {
		b.Run(fmt.Sprintf("impl=%s", name), run(op))
	}
}

func TestRatioCache(t *testing.T) {
	t.Run("hit against otter", func(t *testing.T) { ratio.AtMost(t, 1.2, cacheGet(t, t.Context()), otterGet(t.Context())) })
	t.Run("hit against sturdyc", func(t *testing.T) { ratio.AtMost(t, 0.7, cacheGet(t, t.Context()), sturdycGet(t.Context())) })
	t.Run("hit against a map and the clock", func(t *testing.T) { ratio.AtMost(t, 2.5, cacheGet(t, t.Context()), hitFloor()) })
}
