package gather_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"net/http"
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

// evenMap is a map of n shards whose nodes are numbered.
func evenMap(t require.TestingT, n int) *shard.Map {
	ranges, err := shard.EvenRanges(n)
	require.NoError(t, err)
	shards := make([]shard.Shard, n)
	for i, r := range ranges {
		shards[i] = shard.Shard{Range: r, Node: fmt.Sprint(i)}
	}
	m, err := shard.NewMap(1, shards...)
	require.NoError(t, err)
	return m
}

func TestScatterAnswersInTheOrderOfTheShards(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		g, err := gather.Scatter(t.Context(), evenMap(t, 8).All(), func(_ context.Context, s *shard.Shard) (string, error) {
			var n int
			_, err := fmt.Sscan(s.Node, &n)
			time.Sleep(time.Duration(8-n) * time.Second) // the last answers first
			return s.Node, err
		}, gather.Options{})
		require.NoError(t, err)
		require.Empty(t, g.Missing)
		require.Empty(t, g.Failed)
		for i, r := range g.Results {
			require.Equal(t, fmt.Sprint(i), r.Value)
			require.Equal(t, fmt.Sprint(i), r.Shard.Node)
		}
		require.Len(t, g.Results, 8)
		require.Equal(t, 8*time.Second, time.Since(started), "all at once")
	})
}

func TestScatterOverNothingIsAnEmptyAnswer(t *testing.T) {
	t.Parallel()
	g, err := gather.Scatter(t.Context(), evenMap(t, 4).Overlapping(shard.Range{Start: 3, End: 3}),
		func(context.Context, *shard.Shard) (int, error) { panic("called") }, gather.Options{})
	require.NoError(t, err)
	require.Equal(t, gather.Gathered[int]{}, g)
}

func TestScatterKeepsToItsConcurrency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct{ limit, shards, want int }{{1, 5, 1}, {3, 10, 3}, {0, 100, 32}, {50, 7, 7}} {
			var now, peak, calls atomic.Int64
			_, err := gather.Scatter(t.Context(), evenMap(t, c.shards).All(), func(context.Context, *shard.Shard) (int, error) {
				peak.Store(max(peak.Load(), now.Add(1)))
				defer now.Add(-1)
				calls.Add(1)
				time.Sleep(time.Second)
				return 0, nil
			}, gather.Options{Concurrency: c.limit})
			require.NoError(t, err)
			require.Equal(t, int64(c.want), peak.Load())
			require.Equal(t, int64(c.shards), calls.Load())
		}
	})
}

var errBoom = errors.New("boom")

func TestScatterReturnsTheCauseAndNotTheCancellations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := evenMap(t, 4)
		started := time.Now()
		g, err := gather.Scatter(t.Context(), m.All(), func(ctx context.Context, s *shard.Shard) (int, error) {
			switch s.Node {
			case "0":
				return 7, nil
			case "2":
				time.Sleep(time.Second)
				return 0, errBoom
			}
			<-ctx.Done()
			return 0, ctx.Err()
		}, gather.Options{})
		require.Equal(t, time.Second, time.Since(started), "the failure ends the others")
		require.ErrorIs(t, err, errBoom)
		require.NotErrorIs(t, err, context.Canceled)
		partial, ok := errors.AsType[*gather.PartialError](err)
		require.True(t, ok)
		require.Equal(t, 4, partial.Asked)
		require.Equal(t, 1, partial.Answered)
		require.Equal(t, []gather.ShardError{{Shard: m.Lookup(0x80 << 56), Err: errBoom}}, partial.Failed)
		require.Equal(t, []shard.Range{{Start: 0x40 << 56}}, partial.Missing, "three shards, joined")
		require.Equal(t, 7, g.Results[0].Value)
		require.Equal(t, "gather: 1 of 4 shards answered: shard 80-c0: boom", err.Error())
	})
}

func TestScatterStartsNothingAfterTheEnd(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	_, err := gather.Scatter(t.Context(), evenMap(t, 100).All(), func(context.Context, *shard.Shard) (int, error) {
		calls.Add(1)
		return 0, errBoom
	}, gather.Options{Concurrency: 1})
	require.ErrorIs(t, err, errBoom)
	require.Equal(t, int64(1), calls.Load())
}

// For any set of failing shards the call succeeds exactly if enough are left, and
// what it says is missing is what it has no answer for.
func TestScatterMeetsItsFraction(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 20).Draw(t, "shards")
		need := rapid.IntRange(1, n).Draw(t, "need")
		fails := rapid.SliceOfN(rapid.Bool(), n, n).Draw(t, "fails")
		m := evenMap(t, n)
		g, err := gather.Scatter(t.Context(), m.All(), func(_ context.Context, s *shard.Shard) (string, error) {
			i := slices.IndexFunc(slices.Collect(m.All()), func(o *shard.Shard) bool { return o == s })
			if fails[i] {
				return "", errBoom
			}
			return s.Name, nil
		}, gather.Options{MinFraction: float64(need) / float64(n)})

		good := 0
		for _, f := range fails {
			if !f {
				good++
			}
		}
		if good >= need {
			require.NoError(t, err)
			require.Len(t, g.Results, good)
			require.Len(t, g.Failed, n-good)
		} else {
			require.ErrorIs(t, err, errBoom)
		}
		for s := range m.All() {
			hasAnswer := slices.ContainsFunc(g.Results, func(r gather.Result[string]) bool { return r.Shard == s && r.Value == s.Name })
			isMissing := slices.ContainsFunc(g.Missing, func(r shard.Range) bool { return r.Covers(s.Range) })
			require.NotEqual(t, hasAnswer, isMissing, s.Name)
		}
	})
}

// 0.07 of 100 is 7.000000000000001 in floating point, and means 7.
func TestScatterTakesAFractionForWhatIsMeant(t *testing.T) {
	t.Parallel()
	for need := 1; need <= 100; need++ {
		var asked atomic.Int64
		g, err := gather.Scatter(t.Context(), evenMap(t, 100).All(), func(context.Context, *shard.Shard) (int, error) {
			if asked.Add(1) > int64(need) {
				return 0, errBoom
			}
			return 1, nil
		}, gather.Options{MinFraction: float64(need) / 100})
		require.NoError(t, err, need)
		require.Len(t, g.Results, need)
	}
}

// The shards need not come in ring order. What is missing does, and is joined only
// where it adjoins.
func TestScatterJoinsOnlyWhatAdjoins(t *testing.T) {
	t.Parallel()
	m := evenMap(t, 4)
	backwards := slices.Collect(m.All())
	slices.Reverse(backwards)
	_, err := gather.Scatter(t.Context(), slices.Values([]*shard.Shard{backwards[0], backwards[3], backwards[2]}),
		func(context.Context, *shard.Shard) (int, error) { return 0, errBoom }, gather.Options{})
	partial, ok := errors.AsType[*gather.PartialError](err)
	require.True(t, ok)
	require.Equal(t, []shard.Range{{End: 0x80 << 56}, {Start: 0xc0 << 56}}, partial.Missing)
}

func TestScatterEndsItsContext(t *testing.T) {
	t.Parallel()
	var used context.Context
	_, err := gather.Scatter(t.Context(), evenMap(t, 1).All(), func(ctx context.Context, _ *shard.Shard) (int, error) {
		used = ctx
		return 0, ctx.Err()
	}, gather.Options{})
	require.NoError(t, err)
	require.ErrorIs(t, used.Err(), context.Canceled)
}

func TestScatterAllFailingIsAnErrorWhateverTheFraction(t *testing.T) {
	t.Parallel()
	_, err := gather.Scatter(t.Context(), evenMap(t, 4).All(),
		func(context.Context, *shard.Shard) (int, error) { return 0, errBoom }, gather.Options{MinFraction: 1e-12})
	require.ErrorIs(t, err, errBoom)
}

func TestScatterBoundsEachShardInsideTheCallersDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context, s *shard.Shard) (int, error) {
			if s.Node == "3" {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			return 1, nil
		}
		o := gather.Options{ShardTimeout: time.Second, MinFraction: 0.5}
		started := time.Now()
		g, err := gather.Scatter(t.Context(), evenMap(t, 4).All(), slow, o)
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(started))
		require.Equal(t, []shard.Range{{Start: 0xc0 << 56}}, g.Missing)
		require.ErrorIs(t, g.Failed[0], context.DeadlineExceeded)
		require.EqualError(t, g.Failed[0], "shard c0-: no answer within 1s: context deadline exceeded")

		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		started = time.Now()
		g, err = gather.Scatter(ctx, evenMap(t, 4).All(), slow, o)
		require.NoError(t, err, "three of four answered in time")
		require.Len(t, g.Results, 3)
		require.Equal(t, 100*time.Millisecond, time.Since(started))
		require.EqualError(t, g.Failed[0], "shard c0-: context deadline exceeded", "the caller's deadline, not the shard's")
	})
}

func TestScatterEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errBoom) })
		var calls atomic.Int64
		_, err := gather.Scatter(ctx, evenMap(t, 10).All(), func(ctx context.Context, _ *shard.Shard) (int, error) {
			calls.Add(1)
			<-ctx.Done()
			return 0, context.Cause(ctx)
		}, gather.Options{Concurrency: 2, MinFraction: 0.1})
		require.ErrorIs(t, err, errBoom)
		require.Equal(t, int64(2), calls.Load(), "no call starts after the end")
	})
}

// The calls not yet made have failed with the error of the context and its cause.
func TestScatterAfterTheEndOfItsCallerAsksNobody(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errBoom)
	g, err := gather.Scatter(ctx, evenMap(t, 10).All(), func(context.Context, *shard.Shard) (int, error) { panic("called") }, gather.Options{MinFraction: 0.8})
	require.ErrorIs(t, err, errBoom)
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, g.Failed, 3, "two may fail")
	require.Equal(t, []shard.Range{{}}, g.Missing)
}

func TestScatterCountsALateAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, err := gather.Scatter(t.Context(), evenMap(t, 2).All(), func(ctx context.Context, s *shard.Shard) (int, error) {
			if s.Node == "0" {
				time.Sleep(2 * time.Second)
				return 0, errBoom
			}
			<-ctx.Done()
			return 1, nil
		}, gather.Options{ShardTimeout: time.Second})
		require.ErrorContains(t, err, "gather: 1 of 2 shards answered: shard -80: no answer within 1s: boom")
		require.Equal(t, 1, g.Results[0].Value)
	})
	_, err := gather.Scatter(t.Context(), evenMap(t, 1).All(),
		func(context.Context, *shard.Shard) (int, error) { return 0, errBoom }, gather.Options{ShardTimeout: time.Hour})
	require.EqualError(t, err, "gather: 0 of 1 shards answered: shard -: boom")
}

func TestPartialErrorNamesTheFirstThree(t *testing.T) {
	t.Parallel()
	m := evenMap(t, 8)
	for failures, want := range map[int]string{
		1: "gather: 0 of 8 shards answered: shard -20: boom",
		3: "gather: 0 of 8 shards answered: shard -20: boom; shard 20-40: boom; shard 40-60: boom",
		5: "gather: 0 of 8 shards answered: shard -20: boom; shard 20-40: boom; shard 40-60: boom; and 2 more",
	} {
		e := &gather.PartialError{Asked: 8}
		for s := range m.All() {
			if len(e.Failed) < failures {
				e.Failed = append(e.Failed, gather.ShardError{Shard: s, Err: errBoom})
			}
		}
		require.EqualError(t, e, want)
		require.ErrorIs(t, e, errBoom)
	}
}

func TestScatterPanicsOnTheCallersGoroutine(t *testing.T) {
	t.Parallel()
	for _, concurrency := range []int{1, 4} {
		var running sync.WaitGroup
		var recovered any
		func() {
			defer func() { recovered = recover() }()
			_, _ = gather.Scatter(t.Context(), evenMap(t, 4).All(), func(ctx context.Context, s *shard.Shard) (int, error) {
				running.Add(1)
				defer running.Done()
				if s.Node == "1" {
					panic(http.ErrAbortHandler)
				}
				if concurrency > 1 {
					<-ctx.Done()
					panic("the second")
				}
				return 0, nil
			}, gather.Options{Concurrency: concurrency})
		}()
		running.Wait()
		p, ok := recovered.(*gather.PanicError)
		require.True(t, ok, "%v", recovered)
		require.Equal(t, "40-80", p.Shard.Name)
		require.ErrorIs(t, p, http.ErrAbortHandler)
		require.Contains(t, p.Error(), "scatter_test.go")
	}
}

func TestScatterPassesOnGoexit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, concurrency := range []int{1, 4} {
			for _, node := range []string{"0", "3"} {
				returned, live := false, atomic.Int64{}
				var caller sync.WaitGroup
				caller.Go(func() {
					_, _ = gather.Scatter(t.Context(), evenMap(t, 4).All(), func(ctx context.Context, s *shard.Shard) (int, error) {
						live.Add(1)
						defer live.Add(-1)
						if s.Node == node {
							runtime.Goexit()
						}
						if concurrency > 1 {
							<-ctx.Done()
						}
						return 0, nil
					}, gather.Options{Concurrency: concurrency})
					returned = true
				})
				caller.Wait()
				require.False(t, returned)
				require.Zero(t, live.Load(), "nothing is left running")
			}
		}
	})
}

// One call panics while another ends the caller's goroutine: the panic is not lost.
func TestScatterPanicsAlsoWhenAnotherCallExits(t *testing.T) {
	t.Parallel()
	for i := range 20 { // either may be asked on the caller's goroutine
		exits := fmt.Sprint(i % 2)
		var recovered any
		both := make(chan struct{})
		var caller sync.WaitGroup
		caller.Go(func() {
			defer func() { recovered = recover() }()
			_, _ = gather.Scatter(t.Context(), evenMap(t, 2).All(), func(ctx context.Context, s *shard.Shard) (int, error) {
				if s.Node == exits {
					<-both
					runtime.Goexit()
				}
				close(both)
				<-ctx.Done()
				panic(errBoom)
			}, gather.Options{})
		})
		caller.Wait()
		p, ok := recovered.(*gather.PanicError)
		require.True(t, ok, "%v", recovered)
		require.ErrorIs(t, p, errBoom)
	}
}

func TestScatterRefusesNil(t *testing.T) {
	t.Parallel()
	_, err := gather.Scatter[int](t.Context(), evenMap(t, 2).All(), nil, gather.Options{})
	require.ErrorContains(t, err, "nil")
	_, err = gather.Scatter(t.Context(), nil, func(context.Context, *shard.Shard) (int, error) { panic("called") }, gather.Options{})
	require.ErrorContains(t, err, "nil")
}

func TestScatterRefusesOptionsOutOfRange(t *testing.T) {
	t.Parallel()
	for _, o := range []gather.Options{
		{Concurrency: -1}, {ShardTimeout: -1}, {MinFraction: -0.1}, {MinFraction: 1.1}, {MinFraction: math.NaN()},
	} {
		_, err := gather.Scatter(t.Context(), evenMap(t, 2).All(), func(context.Context, *shard.Shard) (int, error) { panic("called") }, o)
		require.ErrorContains(t, err, "gather: Options.")
	}
}

// newest is the whole pattern: the rows of every shard, newest first.
func newest(ctx context.Context, m *shard.Map, limit int, rows func(*shard.Shard) []row) ([]row, error) {
	g, err := gather.Scatter(ctx, m.All(), func(_ context.Context, s *shard.Shard) ([]row, error) { return rows(s), nil }, gather.Options{})
	if err != nil {
		return nil, err
	}
	var streams []iter.Seq2[row, error]
	for _, r := range g.Results {
		streams = append(streams, gather.Rows(r.Value))
	}
	var all []row
	for r, err := range gather.Merge(func(a, b row) int { return byKey(b, a) }, streams...) {
		if err != nil {
			return nil, err
		}
		if all = append(all, r); len(all) == limit {
			break
		}
	}
	return all, nil
}

func TestScatterAndMergeEqualOneSortedTable(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := evenMap(t, rapid.IntRange(1, 9).Draw(t, "shards"))
		limit := rapid.IntRange(1, 30).Draw(t, "limit")
		table := map[*shard.Shard][]row{}
		var all []row
		for i := range rapid.IntRange(0, 60).Draw(t, "rows") {
			s := m.Lookup(shard.XXHash(fmt.Sprint(i)))
			table[s] = append([]row{{key: i}}, table[s]...)
			all = append([]row{{key: i}}, all...)
		}
		got, err := newest(t.Context(), m, limit, func(s *shard.Shard) []row { return table[s][:min(limit, len(table[s]))] })
		require.NoError(t, err)
		require.True(t, slices.Equal(all[:min(limit, len(all))], got), "%v", got)
	})
}
