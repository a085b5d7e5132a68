package gather_test

import (
	"context"
	"fmt"
	"iter"
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

// gauge keeps the most that was at each node at once.
type gauge struct {
	mu        sync.Mutex
	now, peak map[string]int
}

func (g *gauge) enter(node string) (leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now == nil {
		g.now, g.peak = map[string]int{}, map[string]int{}
	}
	g.now[node]++
	g.peak[node] = max(g.peak[node], g.now[node])
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.now[node]--
	}
}

// However many scatters and streams share it, and whichever of them give up, no node sees
// more calls than it has slots, everything that waits goes on, and nothing is kept.
func TestBulkheadBoundsEachNodeOverAll(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			m := nodeMap(t, rapid.IntRange(1, 12).Draw(t, "shards"), "a", "b", "c")
			perNode := rapid.IntRange(4, 6).Draw(t, "per node") // a stream needs 4
			bulkhead := &gather.Bulkhead{PerNode: perNode}
			var at gauge
			var all sync.WaitGroup
			for i := range rapid.IntRange(1, 12).Draw(t, "callers") {
				kind := rapid.IntRange(0, 3).Draw(t, "kind")
				work := time.Duration(rapid.IntRange(0, 5).Draw(t, "work")) * time.Second
				patience := time.Duration(rapid.SampledFrom([]int{1, 3, 1000}).Draw(t, "patience")) * time.Second
				o := gather.Options{Bulkhead: bulkhead, Concurrency: rapid.IntRange(0, 3).Draw(t, "concurrency")}
				if kind == 3 {
					o.Hedge = &gather.Hedge{After: time.Second, Budget: 1}
				}
				do := func(ctx context.Context, node string) (int, error) {
					defer at.enter(node)()
					select {
					case <-time.After(work):
						return 1, nil
					case <-ctx.Done():
						return 0, ctx.Err()
					}
				}
				all.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					var err error
					switch kind {
					case 0:
						_, err = gather.ScatterNodes(ctx, m.ByNode(), func(ctx context.Context, node string, _ []*shard.Shard) (int, error) {
							return do(ctx, node)
						}, o)
					case 1:
						for _, err = range gather.Stream(ctx, m.All(), byKey, func(ctx context.Context, s *shard.Shard) iter.Seq2[row, error] {
							return func(yield func(row, error) bool) {
								defer at.enter(s.Node)()
								for range 3 {
									select {
									case <-time.After(work):
									case <-ctx.Done():
										yield(row{}, ctx.Err())
										return
									}
									if !yield(row{}, nil) {
										return
									}
								}
							}
						}, o) {
						}
					default:
						_, err = gather.Scatter(ctx, m.All(), func(ctx context.Context, s *shard.Shard) (int, error) { return do(ctx, s.Node) }, o)
					}
					if patience > 900*time.Second {
						require.NoError(t, err, "caller %d", i)
					}
				})
			}
			all.Wait()
			for node, peak := range at.peak {
				require.LessOrEqual(t, peak, perNode, node)
			}
			require.Empty(t, bulkhead.Stats(), "idle nodes are forgotten")
		})
	})
}

func TestBulkheadOfSixteenByDefault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var at gauge
		var bulkhead gather.Bulkhead
		_, err := gather.Scatter(t.Context(), nodeMap(t, 64, "a").All(), func(_ context.Context, s *shard.Shard) (int, error) {
			defer at.enter(s.Node)()
			time.Sleep(time.Second)
			return 0, nil
		}, gather.Options{Bulkhead: &bulkhead, Concurrency: 64})
		require.NoError(t, err)
		require.Equal(t, map[string]int{"a": 16}, at.peak)
	})
}

// A slow node holds up no call to another, although the workers are few.
func TestBulkheadASlowNodeHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bulkhead := &gather.Bulkhead{PerNode: 1}
		started := time.Now()
		var last atomic.Int64
		_, err := gather.Scatter(t.Context(), nodeMap(t, 20, "slow", "fast").All(), func(_ context.Context, s *shard.Shard) (int, error) {
			if s.Node == "slow" {
				time.Sleep(time.Hour)
				return 0, nil
			}
			time.Sleep(time.Second)
			last.Store(int64(time.Since(started)))
			return 0, nil
		}, gather.Options{Bulkhead: bulkhead, Concurrency: 2})
		require.NoError(t, err)
		require.Equal(t, 10*time.Second, time.Duration(last.Load()), "the ten fast ones, one after the other")
		require.Equal(t, 10*time.Hour, time.Since(started))
	})
}

func TestBulkheadServesInTheOrderOfArrival(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bulkhead := &gather.Bulkhead{PerNode: 1}
		m := nodeMap(t, 1, "a")
		var order []int
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				_, _ = gather.Scatter(t.Context(), m.All(), func(context.Context, *shard.Shard) (int, error) {
					order = append(order, i) // one at a time
					time.Sleep(time.Second)
					return 0, nil
				}, gather.Options{Bulkhead: bulkhead})
			})
			synctest.Wait()
		}
		require.Equal(t, map[string]gather.NodeUse{"a": {InUse: 1, Waiting: 19}}, bulkhead.Stats())
		all.Wait()
		require.True(t, slices.IsSorted(order), "%v", order)
		require.Len(t, order, 20)
	})
}

// A scatter whose workers are busy elsewhere neither holds a slot that it cannot use, nor
// loses its place.
func TestBulkheadPassesOverTheBusyWhoKeepTheirPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bulkhead := &gather.Bulkhead{PerNode: 1}
		started := time.Now()
		var mu sync.Mutex
		var order []string
		call := func(name string, took time.Duration) func(context.Context, *shard.Shard) (int, error) {
			return func(_ context.Context, s *shard.Shard) (int, error) {
				mu.Lock()
				order = append(order, fmt.Sprintf("%v %s at %s", time.Since(started), name, s.Node))
				mu.Unlock()
				if s.Node == "b" {
					time.Sleep(100 * time.Second)
				} else {
					time.Sleep(took)
				}
				return 0, nil
			}
		}
		run := func(name string, m *shard.Map, took time.Duration) func() {
			return func() {
				_, _ = gather.Scatter(t.Context(), m.All(), call(name, took), gather.Options{Bulkhead: bulkhead, Concurrency: 1})
				synctest.Wait()
			}
		}
		var all sync.WaitGroup
		all.Go(run("holder", nodeMap(t, 1, "a"), 10*time.Second))
		synctest.Wait()
		all.Go(run("busy", nodeMap(t, 2, "a", "b"), 10*time.Second)) // waits for a, works at b until 100s
		synctest.Wait()
		all.Go(run("second", nodeMap(t, 2, "a", "a"), 95*time.Second)) // has a at 10s and wants it again at 105s
		synctest.Wait()
		all.Wait()
		require.Equal(t, []string{"0s holder at a", "0s busy at b", "10s second at a", "1m45s busy at a", "1m55s second at a"}, order)
	})
}

func TestBulkheadWaitingEndsWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bulkhead := &gather.Bulkhead{PerNode: 1}
		release := make(chan struct{})
		var holder sync.WaitGroup
		holder.Go(func() {
			_, _ = gather.Scatter(t.Context(), nodeMap(t, 1, "a").All(), func(context.Context, *shard.Shard) (int, error) {
				<-release
				return 0, nil
			}, gather.Options{Bulkhead: bulkhead})
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errBoom)
		defer cancel()
		started := time.Now()
		_, err := gather.Scatter(ctx, nodeMap(t, 4, "a").All(), func(context.Context, *shard.Shard) (int, error) { panic("called") }, gather.Options{Bulkhead: bulkhead, MinFraction: 0.5})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, errBoom)
		require.Equal(t, time.Second, time.Since(started))

		ctx, cancel = context.WithTimeoutCause(t.Context(), time.Second, errBoom)
		defer cancel()
		for _, err = range gather.Stream(ctx, nodeMap(t, 1, "a").All(), byKey, func(context.Context, *shard.Shard) iter.Seq2[row, error] { panic("called") }, gather.Options{Bulkhead: bulkhead}) {
			require.EqualError(t, err, "gather: 0 of 1 shards answered: shard -: context deadline exceeded: boom")
		}
		require.ErrorIs(t, err, errBoom)
		require.Equal(t, 2*time.Second, time.Since(started))
		require.Equal(t, map[string]gather.NodeUse{"a": {InUse: 1}}, bulkhead.Stats())
		close(release)
		holder.Wait()
		require.Empty(t, bulkhead.Stats())
	})
}

// The failure of one call ends the wait of the others, as it ends their calls.
func TestBulkheadWaitingEndsWithTheScatter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bulkhead := &gather.Bulkhead{PerNode: 1}
		started := time.Now()
		_, err := gather.Scatter(t.Context(), nodeMap(t, 9, "a").All(), func(context.Context, *shard.Shard) (int, error) {
			time.Sleep(time.Second)
			return 0, errBoom
		}, gather.Options{Bulkhead: bulkhead})
		require.ErrorIs(t, err, errBoom)
		require.NotErrorIs(t, err, context.Canceled)
		require.Equal(t, time.Second, time.Since(started))
	})
}

func TestBulkheadThatIsTooSmallForAStreamIsRefused(t *testing.T) {
	t.Parallel()
	m := nodeMap(t, 6, "a", "b")
	ask := func(ctx context.Context, _ *shard.Shard) iter.Seq2[row, error] {
		return query(ctx, make([]row, 3), nil)
	}
	bulkhead := &gather.Bulkhead{PerNode: 2}
	_, err := collect(gather.Stream(t.Context(), m.All(), byKey, func(context.Context, *shard.Shard) iter.Seq2[row, error] { panic("called") }, gather.Options{Bulkhead: bulkhead}))
	require.ErrorIs(t, err, gather.ErrBulkheadTooSmall)
	require.EqualError(t, err, `gather: bulkhead is too small for an ordered stream: node "a" has 3 shards and Bulkhead.PerNode is 2`)

	rows, err := collect(gather.Stream(t.Context(), m.All(), byKey, ask, gather.Options{Bulkhead: bulkhead, Limit: 10}))
	require.NoError(t, err, "with a limit it is not too small")
	require.Len(t, rows, 10)

	bulkhead = &gather.Bulkhead{PerNode: 3}
	rows, err = collect(gather.Stream(t.Context(), m.All(), byKey, ask, gather.Options{Bulkhead: bulkhead}))
	require.NoError(t, err)
	require.Len(t, rows, 18)
	require.Empty(t, bulkhead.Stats())
}

// Fan-out times fan-out: many requests, each of which asks all shards of a node whose pool
// has one connection.
func TestBulkheadSharesAPoolOfOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		database, bulkhead := make(pool, 1), &gather.Bulkhead{PerNode: 1}
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				g, err := gather.Scatter(t.Context(), nodeMap(t, 10, "a").All(), func(_ context.Context, s *shard.Shard) (int, error) {
					select {
					case database <- struct{}{}:
					default:
						return 0, fmt.Errorf("pool exhausted")
					}
					defer func() { <-database }()
					time.Sleep(time.Millisecond)
					return 1, nil
				}, gather.Options{Bulkhead: bulkhead})
				require.NoError(t, err)
				require.Len(t, g.Results, 10)
			})
		}
		all.Wait()
	})
}

// A stream needs all slots of its node at once. What comes later and needs one does not
// overtake it, and neither does a hedge.
func TestBulkheadNobodyOvertakesAStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bulkhead := &gather.Bulkhead{PerNode: 3}
		hedge := &gather.Hedge{After: 5 * time.Second, Budget: 1}
		var mu sync.Mutex
		var order []string
		begins := func(name string) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
		}
		hold := func(name string, o gather.Options) func() {
			return func() {
				_, _ = gather.Scatter(t.Context(), nodeMap(t, 1, "a").All(), func(ctx context.Context, _ *shard.Shard) (int, error) {
					begins(fmt.Sprint(name, gather.Attempt(ctx)))
					return attempt{after: 10 * time.Second}.run(ctx)
				}, o)
			}
		}
		var all sync.WaitGroup
		all.Go(hold("first ", gather.Options{Bulkhead: bulkhead, Hedge: hedge}))
		synctest.Wait()
		all.Go(func() {
			_, err := collect(gather.Stream(t.Context(), nodeMap(t, 3, "a").All(), byKey, func(ctx context.Context, _ *shard.Shard) iter.Seq2[row, error] {
				begins("stream")
				time.Sleep(time.Second)
				return query(ctx, make([]row, 10), nil)
			}, gather.Options{Bulkhead: bulkhead}))
			require.NoError(t, err)
		})
		synctest.Wait()
		all.Go(hold("later ", gather.Options{Bulkhead: bulkhead}))
		all.Wait()
		require.Equal(t, []string{"first 0", "stream", "stream", "stream", "later 0"}, order)
		require.Equal(t, uint64(1), hedge.Stats().NoRoom)
	})
}

func TestBulkheadStreamThatGivesUpLeavesNothingTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bulkhead := &gather.Bulkhead{PerNode: 2}
		var holder sync.WaitGroup
		holder.Go(func() {
			_, _ = gather.Scatter(t.Context(), nodeMap(t, 1, "b").All(), func(ctx context.Context, _ *shard.Shard) (int, error) {
				return attempt{after: time.Minute}.run(ctx)
			}, gather.Options{Bulkhead: bulkhead})
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := collect(gather.Stream(ctx, nodeMap(t, 6, "c", "b", "a").All(), byKey, func(context.Context, *shard.Shard) iter.Seq2[row, error] { panic("called") }, gather.Options{Bulkhead: bulkhead}))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, map[string]gather.NodeUse{"b": {InUse: 1}}, bulkhead.Stats())
		holder.Wait()
	})
}
