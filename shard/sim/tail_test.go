package sim_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

const (
	slowChance = 0.01
	slowTime   = 500 * time.Millisecond
	hedgeAfter = 12 * time.Millisecond // later than 98 % of the calls
)

// tail is how long the queries over some shards took.
type tail struct {
	slow, theory, hedged float64
	p50, p99             time.Duration
}

// scatterTail asks n shards so many times, in a synctest bubble.
func scatterTail(t testing.TB, n, queries int, hedge *gather.Hedge) tail {
	m := evenMap(t, n)
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	answer := func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if rng.Float64() < slowChance {
			return slowTime
		}
		return time.Duration((3 + 2*rng.ExpFloat64()) * float64(time.Millisecond)) // 5 ms on average
	}
	took := make([]time.Duration, queries)
	for i := range took {
		started := time.Now()
		_, err := gather.Scatter(context.Background(), m.All(), func(ctx context.Context, _ *shard.Shard) (struct{}, error) {
			select {
			case <-time.After(answer()):
				return struct{}{}, nil
			case <-ctx.Done():
				return struct{}{}, ctx.Err()
			}
		}, gather.Options{Concurrency: n, Hedge: hedge})
		require.NoError(t, err)
		took[i] = time.Since(started)
	}
	slices.Sort(took)
	slow := queries - slices.IndexFunc(append(took, slowTime), func(d time.Duration) bool { return d >= slowTime })
	r := tail{
		slow:   float64(slow) / float64(queries),
		theory: 1 - math.Pow(1-slowChance, float64(n)),
		p50:    took[queries/2],
		p99:    took[queries*99/100],
	}
	if hedge != nil {
		r.hedged = float64(hedge.Stats().Hedges) / float64(hedge.Stats().Calls)
	}
	return r
}

func evenMap(t testing.TB, n int) *shard.Map {
	ranges, err := shard.EvenRanges(n)
	require.NoError(t, err)
	shards := make([]shard.Shard, n)
	for i, r := range ranges {
		shards[i] = shard.Shard{Range: r, Node: fmt.Sprint("node", i%16)}
	}
	m, err := shard.NewMap(1, shards...)
	require.NoError(t, err)
	return m
}

func newHedge(hedged bool) *gather.Hedge {
	if !hedged {
		return nil
	}
	return &gather.Hedge{After: hedgeAfter}
}

func BenchmarkTail(b *testing.B) {
	for _, n := range []int{1, 4, 16, 64, 100, 256} {
		for _, hedged := range []bool{false, true} {
			b.Run(fmt.Sprintf("shards=%d/hedged=%t", n, hedged), func(b *testing.B) {
				var r tail
				for b.Loop() {
					// A bubble needs a test. This runs one, with the flags of this process.
					ok := testing.RunTests(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{{
						Name: b.Name(), F: func(t *testing.T) {
							synctest.Test(t, func(t *testing.T) { r = scatterTail(t, n, min(2000, 100_000/n), newHedge(hedged)) })
						},
					}})
					require.True(b, ok)
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(100*r.slow, "slow%")
				b.ReportMetric(100*r.theory, "theory%")
				b.ReportMetric(float64(r.p50.Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(r.p99.Microseconds())/1000, "p99-ms")
				if hedged {
					b.ReportMetric(100*r.hedged, "hedged%")
				}
			})
		}
	}
}

// The tail is what theory says, and hedges cut it within their budget.
func TestTheTailIsThatOfTheSlowestShard(t *testing.T) {
	const queries = 1000
	for _, n := range []int{2, 10, 100} {
		synctest.Test(t, func(t *testing.T) {
			plain, hedged := scatterTail(t, n, queries, nil), scatterTail(t, n, queries, newHedge(true))
			t.Logf("%d shards: %+v, hedged %+v", n, plain, hedged)
			deviation := math.Sqrt(plain.theory * (1 - plain.theory) / queries)
			require.InDelta(t, plain.theory, plain.slow, 4*deviation)
			require.Less(t, hedged.slow, plain.slow/3)
			require.LessOrEqual(t, hedged.hedged, 0.05)
		})
	}
}
