package gather_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// attempt is what one attempt at a call does, unless its context ends first.
type attempt struct {
	after time.Duration
	err   error
}

func (a attempt) run(ctx context.Context) (int, error) {
	select {
	case <-time.After(a.after):
		return gather.Attempt(ctx), a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func TestHedgeTakesTheFirstAnswer(t *testing.T) {
	t.Parallel()
	errFirst, errSecond := errors.New("first"), errors.New("second")
	const s = time.Second
	for name, c := range map[string]struct {
		first, second attempt
		timeout       time.Duration
		value         int // which attempt answered
		took          time.Duration
		is            []error
		stats         gather.HedgeStats
	}{
		"in time":                 {first: attempt{s, nil}, took: s, stats: gather.HedgeStats{Calls: 1}},
		"fails in time":           {first: attempt{s, errFirst}, took: s, is: []error{errFirst}, stats: gather.HedgeStats{Calls: 1}},
		"the second wins":         {first: attempt{9 * s, nil}, second: attempt{s, nil}, value: 1, took: 3 * s, stats: gather.HedgeStats{Calls: 1, Hedges: 1, Wins: 1}},
		"the first wins late":     {first: attempt{3 * s, nil}, second: attempt{9 * s, nil}, took: 3 * s, stats: gather.HedgeStats{Calls: 1, Hedges: 1}},
		"the first fails late":    {first: attempt{3 * s, errFirst}, second: attempt{9 * s, nil}, value: 1, took: 11 * s, stats: gather.HedgeStats{Calls: 1, Hedges: 1, Wins: 1}},
		"the second fails":        {first: attempt{9 * s, nil}, second: attempt{s, errSecond}, took: 9 * s, stats: gather.HedgeStats{Calls: 1, Hedges: 1}},
		"both fail":               {first: attempt{9 * s, errFirst}, second: attempt{s, errSecond}, took: 9 * s, is: []error{errFirst, errSecond}, stats: gather.HedgeStats{Calls: 1, Hedges: 1}},
		"a timeout ends both":     {first: attempt{9 * s, nil}, second: attempt{9 * s, nil}, timeout: 5 * s, took: 5 * s, is: []error{context.DeadlineExceeded}, stats: gather.HedgeStats{Calls: 1, Hedges: 1}},
		"a timeout before it":     {first: attempt{9 * s, nil}, second: attempt{s, nil}, timeout: s, took: s, is: []error{context.DeadlineExceeded}, stats: gather.HedgeStats{Calls: 1}},
		"the second of two fails": {first: attempt{3 * s, errFirst}, second: attempt{5 * s, errSecond}, took: 7 * s, is: []error{errFirst, errSecond}, stats: gather.HedgeStats{Calls: 1, Hedges: 1}},
	} {
		synctest.Test(t, func(t *testing.T) {
			hedge := &gather.Hedge{After: 2 * s, Budget: 1}
			started := time.Now()
			var live atomic.Int64
			g, err := gather.Scatter(t.Context(), evenMap(t, 1).All(), func(ctx context.Context, _ *shard.Shard) (int, error) {
				live.Add(1)
				defer live.Add(-1)
				return []attempt{c.first, c.second}[gather.Attempt(ctx)].run(ctx)
			}, gather.Options{Hedge: hedge, ShardTimeout: c.timeout})
			require.Zero(t, live.Load(), "%s: the loser has returned", name)
			require.Equal(t, c.took, time.Since(started), name)
			require.Equal(t, c.stats, hedge.Stats(), name)
			if c.is == nil {
				require.NoError(t, err, name)
				require.Equal(t, c.value, g.Results[0].Value, name)
				return
			}
			for _, target := range c.is {
				require.ErrorIs(t, err, target, name)
			}
			require.NotErrorIs(t, err, context.Canceled, name)
		})
	}
}

// An attempt that ignores the end of its context and answers all the same has lost.
func TestHedgeDiscardsTheLosersAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for loser := range 2 {
			g, err := gather.Scatter(t.Context(), evenMap(t, 1).All(), func(ctx context.Context, _ *shard.Shard) (int, error) {
				if n := gather.Attempt(ctx); n != loser {
					return attempt{after: 3 * time.Second}.run(ctx)
				}
				<-ctx.Done()
				time.Sleep(time.Second)
				return loser, nil
			}, gather.Options{Hedge: &gather.Hedge{After: time.Second, Budget: 1}})
			require.NoError(t, err)
			require.Equal(t, 1-loser, g.Results[0].Value)
		}
	})
}

// Whichever of two that answer at the same time wins, there is one answer.
func TestHedgeTies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hedge := &gather.Hedge{After: time.Second, Budget: 1}
		for _, first := range []attempt{{after: time.Second}, {after: 3 * time.Second}} {
			started := time.Now()
			g, err := gather.Scatter(t.Context(), evenMap(t, 50).All(), func(ctx context.Context, _ *shard.Shard) (int, error) {
				return []attempt{first, {after: 2 * time.Second}}[gather.Attempt(ctx)].run(ctx)
			}, gather.Options{Hedge: hedge, Concurrency: 50})
			require.NoError(t, err)
			require.Len(t, g.Results, 50)
			require.Equal(t, first.after, time.Since(started), "the loser ends with it, also one that had not begun")
		}
		stats := hedge.Stats()
		require.LessOrEqual(t, stats.Wins, stats.Hedges)
		require.Equal(t, uint64(100), stats.Calls)
	})
}

// As above, of a first attempt that panics in the moment in which the second is due.
func TestHedgeTiesWithAPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for range 100 {
			started := time.Now()
			require.Panics(t, func() {
				_, _ = gather.Scatter(t.Context(), evenMap(t, 1).All(), func(ctx context.Context, _ *shard.Shard) (int, error) {
					if gather.Attempt(ctx) == 1 {
						return attempt{after: time.Second}.run(ctx)
					}
					time.Sleep(time.Second)
					panic(errBoom)
				}, gather.Options{Hedge: &gather.Hedge{After: time.Second, Budget: 1}})
			})
			require.Equal(t, time.Second, time.Since(started))
		}
	})
}

// Of n calls at most n times the budget are repeated, whenever one looks.
func TestHedgeKeepsToItsBudget(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			budget := rapid.SampledFrom([]float64{0, 0.05, 0.3, 1}).Draw(t, "budget")
			hedge := &gather.Hedge{After: time.Second, Budget: budget}
			if budget == 0 {
				budget = 0.05
			}
			tokens := 0.0 // the model: a bucket of ten
			for range rapid.IntRange(1, 6).Draw(t, "scatters") {
				n := rapid.IntRange(1, 60).Draw(t, "shards")
				slow := rapid.IntRange(0, n).Draw(t, "slow")
				before := hedge.Stats()
				_, err := gather.Scatter(t.Context(), evenMap(t, n).All(), func(ctx context.Context, s *shard.Shard) (int, error) {
					if gather.Attempt(ctx) == 0 && index(s) < slow {
						return attempt{after: 5 * time.Second}.run(ctx)
					}
					return 0, nil
				}, gather.Options{Hedge: hedge, Concurrency: 60})
				require.NoError(t, err)
				stats := hedge.Stats()
				tokens = min(10, tokens+float64(n)*budget)
				hedges := stats.Hedges - before.Hedges
				require.LessOrEqual(t, float64(hedges), tokens+1e-6)
				require.Equal(t, min(slow, int(tokens+1e-6)), int(hedges))
				tokens -= float64(hedges)
				require.Equal(t, uint64(slow), hedges+stats.OverBudget-before.OverBudget)
				require.LessOrEqual(t, float64(stats.Hedges), float64(stats.Calls)*budget+1e-6)
			}
		})
	})
}

func TestHedgeTakesNoRoomThatIsNotThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for perNode, want := range map[int]gather.HedgeStats{
			1: {Calls: 2, NoRoom: 2},
			2: {Calls: 2, NoRoom: 2}, // both first attempts are at the node
			3: {Calls: 2, Hedges: 1, Wins: 1, NoRoom: 1},
			4: {Calls: 2, Hedges: 2, Wins: 2},
		} {
			var at gauge
			hedge, bulkhead := &gather.Hedge{After: time.Second, Budget: 1}, &gather.Bulkhead{PerNode: perNode}
			_, err := gather.Scatter(t.Context(), nodeMap(t, 2, "a").All(), func(ctx context.Context, s *shard.Shard) (int, error) {
				defer at.enter(s.Node)()
				return attempt{after: 4 * time.Second}.run(ctx)
			}, gather.Options{Hedge: hedge, Bulkhead: bulkhead})
			require.NoError(t, err)
			require.LessOrEqual(t, at.peak["a"], perNode)
			want.Wins = 0 // the first attempts answer first
			require.Equal(t, want, hedge.Stats(), perNode)
			require.Empty(t, bulkhead.Stats())
		}
	})
}

func TestHedgeStartsNothingAfterTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hedge := &gather.Hedge{After: 2 * time.Second, Budget: 1}
		_, err := gather.Scatter(t.Context(), evenMap(t, 3).All(), func(ctx context.Context, s *shard.Shard) (int, error) {
			require.Zero(t, gather.Attempt(ctx))
			if s.Node == "0" {
				return attempt{after: time.Second, err: errBoom}.run(ctx)
			}
			<-ctx.Done()
			time.Sleep(5 * time.Second) // slow to obey
			return 0, ctx.Err()
		}, gather.Options{Hedge: hedge})
		require.EqualError(t, err, "gather: 0 of 3 shards answered: shard -55: boom")
		require.Zero(t, hedge.Stats().Hedges)
	})
}

// A bubble fails if anything is left running.
func TestHedgePanicsAndExitsAsItsCallDoes(t *testing.T) {
	t.Parallel()
	for _, guilty := range []int{0, 1} {
		for _, exit := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				var recovered any
				returned := false
				bulkhead := &gather.Bulkhead{}
				var caller sync.WaitGroup
				caller.Go(func() {
					defer func() { recovered = recover() }()
					_, _ = gather.Scatter(t.Context(), nodeMap(t, 3, "a").All(), func(ctx context.Context, s *shard.Shard) (int, error) {
						if gather.Attempt(ctx) == guilty {
							time.Sleep(3 * time.Second)
							if exit {
								runtime.Goexit()
							}
							panic(errBoom)
						}
						<-ctx.Done()
						return 0, ctx.Err()
					}, gather.Options{Hedge: &gather.Hedge{After: time.Second, Budget: 1}, Bulkhead: bulkhead})
					returned = true
				})
				caller.Wait()
				require.False(t, returned)
				require.Empty(t, bulkhead.Stats())
				if exit {
					require.Nil(t, recovered)
					return
				}
				p, ok := recovered.(*gather.PanicError)
				require.True(t, ok, "%v", recovered)
				require.ErrorIs(t, p, errBoom)
				require.Contains(t, p.Error(), "hedge_test.go")
			})
		}
	}
}

func TestAttemptOfAnyContextIsTheFirst(t *testing.T) {
	t.Parallel()
	require.Zero(t, gather.Attempt(t.Context()))
}

// A first attempt inside a second one is told that it is a second.
func TestAttemptOfAScatterInsideASecondAttempt(t *testing.T) {
	m := evenMap(t, 2)
	one := slices.Collect(m.All())[:1]
	synctest.Test(t, func(t *testing.T) {
		outer := &gather.Hedge{After: time.Second, Budget: 1}
		var seen []int
		_, err := gather.Scatter(t.Context(), slices.Values(one), func(ctx context.Context, _ *shard.Shard) (int, error) {
			if gather.Attempt(ctx) == 0 {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			_, err := gather.Scatter(ctx, slices.Values(one), func(ctx context.Context, _ *shard.Shard) (int, error) {
				seen = append(seen, gather.Attempt(ctx))
				return 0, nil
			}, gather.Options{Hedge: &gather.Hedge{After: time.Hour, Budget: 1}})
			return 0, err
		}, gather.Options{Hedge: outer})
		require.NoError(t, err)
		require.Equal(t, []int{0}, seen)
	})
}
