package benchmarks

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/stretchr/testify/require"
	"go.uber.org/ratelimit"
	"golang.org/x/time/rate"

	"github.com/evenkeel-go/evenkeel/benchmarks/ratio"
	ours "github.com/evenkeel-go/evenkeel/ratelimit"
)

const perSecond = 500_000_000 // so that everything is admitted, and nothing waits

func allow(t testing.TB) ratio.Op {
	l, err := ours.NewLimiter(ours.Per(perSecond, time.Second))
	require.NoError(t, err)
	return func(n int) {
		for range n {
			l.Allow()
		}
	}
}

func xtimeAllow() ratio.Op {
	l := rate.NewLimiter(perSecond, perSecond)
	return func(n int) {
		for range n {
			l.Allow()
		}
	}
}

func uberTake() ratio.Op {
	l := ratelimit.New(perSecond)
	return func(n int) {
		for range n {
			l.Take()
		}
	}
}

// clock is the floor: a look at the monotonic clock.
func clock() ratio.Op {
	epoch := time.Now()
	return func(n int) {
		for range n {
			sink += uint64(time.Since(epoch))
		}
	}
}

func keyedAllow(t testing.TB, keys []string) ratio.Op {
	l, err := ours.NewKeyed[string](ours.Per(1_000_000, time.Second), ours.KeyedOptions{Capacity: 4 * len(keys)})
	require.NoError(t, err)
	return func(n int) {
		for i := range n {
			l.Allow(keys[i%len(keys)])
		}
	}
}

func sethvargoTake(t testing.TB, keys []string) ratio.Op {
	s, err := memorystore.New(&memorystore.Config{Tokens: 1_000_000, Interval: time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return func(n int) {
		for i := range n {
			if _, _, _, _, err := s.Take(context.Background(), keys[i%len(keys)]); err != nil {
				panic(err)
			}
		}
	}
}

func BenchmarkRateLimitAllow(b *testing.B) {
	for name, op := range map[string]ratio.Op{"floor": clock(), "evenkeel": allow(b), "xtime": xtimeAllow(), "uber": uberTake()} {
		b.Run(fmt.Sprintf("impl=%s", name), run(op))
	}
}

func BenchmarkRateLimitKeyed(b *testing.B) {
	for _, n := range []int{1, 4096} {
		for name, op := range map[string]ratio.Op{"floor": clock(), "evenkeel": keyedAllow(b, keys[:n]), "sethvargo": sethvargoTake(b, keys[:n])} {
			b.Run(fmt.Sprintf("impl=%s/keys=%d", name, n), run(op))
		}
	}
}

func TestRatioRateLimit(t *testing.T) {
	t.Run("allow against the clock", func(t *testing.T) { ratio.AtMost(t, 2, allow(t), clock()) })
	t.Run("allow against x/time", func(t *testing.T) { ratio.AtMost(t, 0.7, allow(t), xtimeAllow()) })
	t.Run("allow against uber", func(t *testing.T) { ratio.AtMost(t, 1.1, allow(t), uberTake()) })
	t.Run("one hot key against sethvargo", func(t *testing.T) {
		ratio.AtMost(t, 1, keyedAllow(t, keys[:1]), sethvargoTake(t, keys[:1]))
	})
}
