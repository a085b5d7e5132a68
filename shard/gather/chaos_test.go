package gather_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// Scatters of every kind that share a bulkhead and a hedge, and end in every way: nothing
// is left taken, nothing waits for ever, and what a stream yields is in order.
func TestScattersOfEveryKindLeaveTheBulkheadEmpty(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(rand.Uint64(), 1))
	m := nodeMap(t, 24, "a", "b", "c")
	for round := range 100 {
		b := &gather.Bulkhead{PerNode: 8 + rnd.IntN(3)}
		h := &gather.Hedge{After: time.Duration(1 + rnd.IntN(200_000)), Budget: 1}
		var wg sync.WaitGroup
		for range 12 {
			s := rnd.Uint64()
			wg.Go(func() {
				defer func() {
					if v := recover(); v != nil {
						if _, ok := v.(*gather.PanicError); !ok && v != "body" {
							panic(v)
						}
					}
				}()
				r := rand.New(rand.NewPCG(s, 2))
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(3_000_000)))
				defer cancel()
				chaos := func(ctx context.Context, x int64) error {
					switch x % 40 {
					case 0:
						panic("x")
					case 1:
						runtime.Goexit()
					case 2, 3:
						return errors.New("no")
					case 4, 5, 6:
						<-ctx.Done()
						return ctx.Err()
					case 7, 8, 9, 10, 11, 12:
						<-time.After(time.Duration(x % 400_000))
					}
					return nil
				}
				o := gather.Options{Bulkhead: b, Concurrency: 1 + r.IntN(9)}
				if r.IntN(2) == 0 {
					o.ShardTimeout = time.Duration(1 + r.IntN(1_000_000))
				}
				if r.IntN(2) == 0 {
					o.MinFraction = 0.25
				}
				base := r.Int64()
				mix := func(s *shard.Shard, a int) int64 {
					return int64((uint64(s.Range.Start)*0x9E3779B97F4A7C15+uint64(base)*uint64(a+1))>>8) & math.MaxInt64
				}
				switch r.IntN(4) {
				case 0:
					if r.IntN(2) == 0 {
						o.MinFraction, o.Quorum = 0, 5
					}
					o.Hedge = h
					_, _ = gather.Scatter(ctx, m.All(), func(ctx context.Context, s *shard.Shard) (int, error) {
						return 0, chaos(ctx, mix(s, gather.Attempt(ctx)))
					}, o)
				case 1:
					o.Hedge = h
					_, _ = gather.ScatterNodes(ctx, m.ByNode(), func(ctx context.Context, n string, s []*shard.Shard) (int, error) {
						return 0, chaos(ctx, mix(s[0], gather.Attempt(ctx)))
					}, o)
				default:
					if r.IntN(3) == 0 {
						o.Limit = 1 + r.IntN(100)
					}
					stop := r.IntN(2000)
					n := 0
					prev := -1
					for v, err := range gather.Stream(ctx, m.All(), cmp.Compare[int], func(ctx context.Context, s *shard.Shard) iter.Seq2[int, error] {
						return func(yield func(int, error) bool) {
							for i := range 200 {
								if i%67 == 3 {
									if err := chaos(ctx, mix(s, i)); err != nil {
										yield(0, err)
										return
									}
								}
								if !yield(i, nil) {
									return
								}
							}
						}
					}, o) {
						if err == nil && v < prev {
							panic(fmt.Sprint("disorder ", v, prev))
						}
						prev = v
						if n++; n == stop {
							if stop%5 == 0 {
								panic("body")
							}
							break
						}
					}
				}
			})
		}
		wg.Wait()
		require.Empty(t, b.Stats(), "round %d", round)
	}
}
