package gather_test

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// index is the number of a shard of evenMap.
func index(s *shard.Shard) (i int) {
	if _, err := fmt.Sscan(s.Node, &i); err != nil {
		panic(err)
	}
	return i
}

// query is what a database does: it yields the rows of a shard and then err, and ends with
// the context's error when that ends.
func query(ctx context.Context, rows []row, err error) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		for _, r := range rows {
			if ctx.Err() != nil {
				break
			}
			if !yield(r, nil) {
				return
			}
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			yield(row{}, err)
		}
	}
}

// table draws the rows of n shards, ordered.
func table(t *rapid.T, n int) [][]row {
	streams := make([][]row, n)
	for i := range streams {
		keys := rapid.SliceOfN(rapid.IntRange(0, 20), 0, rapid.SampledFrom([]int{3, 300}).Draw(t, "max")).Draw(t, "keys")
		slices.Sort(keys)
		for pos, k := range keys {
			streams[i] = append(streams[i], row{k, i, pos})
		}
	}
	return streams
}

func TestStreamEqualsAStableSort(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 9).Draw(t, "shards")
		streams := table(t, n)
		o := gather.Options{
			Limit:       rapid.SampledFrom([]int{0, 0, 1, 7, 1000}).Draw(t, "limit"),
			Concurrency: rapid.IntRange(0, 3).Draw(t, "concurrency"),
		}
		want := sorted(streams)
		if o.Limit > 0 {
			want = want[:min(o.Limit, len(want))]
		}
		seq := gather.Stream(t.Context(), evenMap(t, n).All(), byKey, func(ctx context.Context, s *shard.Shard) iter.Seq2[row, error] {
			return query(ctx, streams[index(s)], nil)
		}, o)
		for range 2 { // each iteration asks anew
			rows, err := collect(seq)
			require.NoError(t, err)
			require.True(t, slices.Equal(want, rows), "%v", rows)
		}
	})
}

// Whatever fails where: the rows are the first of the model, and no incomplete stream
// ends without an error that says what is missing.
func TestStreamNeverLooksWholeWhenItIsNot(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "shards")
		need := rapid.IntRange(1, n).Draw(t, "need")
		limit := rapid.SampledFrom([]int{0, 5, 1000}).Draw(t, "limit")
		streams := table(t, n)
		m := evenMap(t, n)
		fails, failed, torn := make([]error, n), 0, false
		for i := range fails {
			if rapid.IntRange(0, 3).Draw(t, "fails") > 0 {
				continue
			}
			if limit > 0 && len(streams[i]) >= limit {
				continue // the failure is behind what is read
			}
			fails[i] = errBoom
			failed++
			torn = torn || limit == 0 && len(streams[i]) > 0
		}
		rows, err := collect(gather.Stream(t.Context(), m.All(), byKey, func(ctx context.Context, s *shard.Shard) iter.Seq2[row, error] {
			return query(ctx, streams[index(s)], fails[index(s)])
		}, gather.Options{MinFraction: float64(need) / float64(n), Limit: limit}))

		answering := slices.Clone(streams)
		for i := range fails {
			if fails[i] != nil && (limit > 0 || !torn) {
				answering[i] = nil
			}
		}
		want := sorted(answering)
		if limit > 0 {
			want = want[:min(limit, len(want))]
		}
		if failed == 0 {
			require.NoError(t, err)
			require.True(t, slices.Equal(want, rows))
			return
		}
		require.ErrorIs(t, err, errBoom)
		partial, ok := err.(*gather.PartialError)
		require.True(t, ok, "%T", err)
		require.Equal(t, n, partial.Asked)
		for _, f := range partial.Failed {
			require.Contains(t, missingShards(m, partial.Missing), f.Shard.Node)
		}
		require.Len(t, missingShards(m, partial.Missing), n-partial.Answered)
		switch {
		case partial.Torn:
			require.True(t, torn)
			require.Less(t, len(rows), len(want)+1)
			require.True(t, slices.IsSortedFunc(rows, byKey))
		case n-failed < need:
			require.Empty(t, rows)
		default:
			require.False(t, torn, "a torn stream says so")
			require.True(t, slices.Equal(want, rows), "%v", rows)
			require.Equal(t, n-failed, partial.Answered)
		}
	})
}

func missingShards(m *shard.Map, missing []shard.Range) (nodes []string) {
	for s := range m.All() {
		if slices.ContainsFunc(missing, func(r shard.Range) bool { return r.Covers(s.Range) }) {
			nodes = append(nodes, s.Node)
		}
	}
	return nodes
}

func TestStreamThatIsTornSaysWhatWasNotReadToItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var got []int
		var last error
		for r, err := range gather.Stream(t.Context(), evenMap(t, 3).All(), byKey, func(ctx context.Context, s *shard.Shard) iter.Seq2[row, error] {
			return func(yield func(row, error) bool) {
				switch s.Node {
				case "0":
					yield(row{key: 1}, nil) // is at its end when the other tears
				case "1":
					if yield(row{key: 2}, nil) {
						time.Sleep(time.Second)
						yield(row{}, errBoom)
					}
				case "2":
					if yield(row{key: 3}, nil) {
						<-ctx.Done()
						yield(row{}, ctx.Err())
					}
				}
			}
		}, gather.Options{MinFraction: 0.1}) {
			if last = err; err == nil {
				got = append(got, r.key)
			}
		}
		require.Equal(t, []int{1, 2}, got)
		partial, ok := last.(*gather.PartialError)
		require.True(t, ok)
		require.True(t, partial.Torn)
		require.Equal(t, []string{"1", "2"}, missingShards(evenMap(t, 3), partial.Missing))
		require.Equal(t, 1, partial.Answered)
		require.ErrorIs(t, last, errBoom)
		require.NotErrorIs(t, last, context.Canceled)
		require.EqualError(t, last, "gather: torn stream: 1 of 3 shards were read to the end: shard 55-aa: boom")
	})
}

func TestStreamRefusesAnUnorderedShard(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{0, 10} {
		rows, err := collect(gather.Stream(t.Context(), evenMap(t, 3).All(), byKey, func(ctx context.Context, s *shard.Shard) iter.Seq2[row, error] {
			switch s.Node {
			case "0":
				return query(ctx, []row{{key: 1}}, nil)
			case "1":
				return query(ctx, []row{{key: 2}, {key: 5}, {key: 4}}, nil)
			}
			return query(ctx, []row{{key: 3}, {key: 9}}, nil)
		}, gather.Options{Limit: limit, MinFraction: 0.1}))
		require.Equal(t, []row{{key: 1}, {key: 2}, {key: 3}, {key: 5}}, rows)
		require.ErrorIs(t, err, gather.ErrUnordered)
		partial, ok := err.(*gather.PartialError)
		require.True(t, ok)
		require.True(t, partial.Torn)
		require.Equal(t, "1", partial.Failed[0].Shard.Node)
		require.Equal(t, []string{"1", "2"}, missingShards(evenMap(t, 3), partial.Missing))
	}
}

// A pool of connections of a database: query takes one for as long as it is read.
type pool chan struct{}

func (p pool) query(ctx context.Context, rows []row) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		select {
		case p <- struct{}{}:
			defer func() { <-p }()
		case <-ctx.Done():
			yield(row{}, ctx.Err())
			return
		}
		query(ctx, rows, nil)(yield)
	}
}

func TestStreamWithALimitNeedsOneConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		database := make(pool, 1)
		seen := 0
		for _, err := range gather.Stream(t.Context(), evenMap(t, 20).All(), byKey, func(ctx context.Context, s *shard.Shard) iter.Seq2[row, error] {
			return database.query(ctx, make([]row, 1000))
		}, gather.Options{Limit: 200}) {
			require.NoError(t, err)
			require.Empty(t, database, "the loop may use the pool")
			seen++
		}
		require.Equal(t, 200, seen)
	})
}

func TestStreamReadsNoMoreThanItsLimit(t *testing.T) {
	t.Parallel()
	read := make([]int, 4)
	rows, err := collect(gather.Stream(t.Context(), evenMap(t, 4).All(), byKey, func(ctx context.Context, s *shard.Shard) iter.Seq2[row, error] {
		ended := 0
		return counted(query(ctx, make([]row, 1000), nil), &read[index(s)], &ended)
	}, gather.Options{Limit: 5}))
	require.NoError(t, err)
	require.Len(t, rows, 5)
	require.Equal(t, []int{5, 5, 5, 5}, read)
}

func TestStreamHoldsTwoBuffersOfAShard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var read [2]int
		yielded := [2]int{}
		for r, err := range gather.Stream(t.Context(), evenMap(t, 2).All(), byKey, func(_ context.Context, s *shard.Shard) iter.Seq2[row, error] {
			return func(yield func(row, error) bool) {
				for i := range 1000 {
					read[index(s)]++
					if !yield(row{key: i * (1 + 9*index(s)), stream: index(s)}, nil) {
						return
					}
				}
			}
		}, gather.Options{}) {
			require.NoError(t, err)
			synctest.Wait() // until nobody reads on
			yielded[r.stream]++
			for i := range read {
				require.LessOrEqual(t, read[i], yielded[i]+128)
			}
		}
		require.Equal(t, [2]int{1000, 1000}, yielded)
	})
}

// What a shard has given is not held back for what it has yet to give.
func TestStreamYieldsARowAsSoonAsItMay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		for r, err := range gather.Stream(t.Context(), evenMap(t, 2).All(), byKey, func(ctx context.Context, s *shard.Shard) iter.Seq2[row, error] {
			return func(yield func(row, error) bool) {
				for i := range 10 {
					if !yield(row{key: i}, nil) {
						return
					}
					time.Sleep(time.Second)
				}
			}
		}, gather.Options{}) {
			require.NoError(t, err)
			require.LessOrEqual(t, time.Since(started), time.Duration(r.key+1)*time.Second, "the rest waits for the other's next")
		}
	})
}

func TestStreamReadsNoMoreShardsAtOnceThanItsConcurrency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, concurrency := range []int{1, 3} {
			var now, peak atomic.Int64
			n := 0
			for _, err := range gather.Stream(t.Context(), evenMap(t, 10).All(), byKey, func(context.Context, *shard.Shard) iter.Seq2[row, error] {
				return func(yield func(row, error) bool) {
					for range 200 {
						peak.Store(max(peak.Load(), now.Add(1)))
						time.Sleep(time.Millisecond)
						now.Add(-1)
						if !yield(row{}, nil) {
							return
						}
					}
				}
			}, gather.Options{Concurrency: concurrency}) {
				require.NoError(t, err)
				n++
			}
			require.Equal(t, 2000, n)
			require.Equal(t, int64(concurrency), peak.Load())
		}
	})
}

func TestStreamBoundsTheWaitForARowAndNotTheConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stall := 0 // the row before which shard 1 stalls
		ask := func(ctx context.Context, s *shard.Shard) iter.Seq2[row, error] {
			return func(yield func(row, error) bool) {
				for i := range 300 {
					wait := 10 * time.Millisecond
					if s.Node == "1" && i == stall {
						wait = time.Hour
					}
					select {
					case <-time.After(wait):
					case <-ctx.Done():
						yield(row{}, ctx.Err())
						return
					}
					if !yield(row{key: i}, nil) {
						return
					}
				}
			}
		}
		consume := func(o gather.Options) (n int, last error) {
			for _, err := range gather.Stream(t.Context(), evenMap(t, 2).All(), byKey, ask, o) {
				if last = err; err == nil {
					n++
					time.Sleep(time.Second)
				}
			}
			return n, last
		}
		o := gather.Options{ShardTimeout: 100 * time.Millisecond, MinFraction: 0.5}
		for _, stall = range []int{1, 63, 64, 65, 66, 150} { // also right after it has waited for the consumer
			_, err := consume(o)
			require.EqualError(t, err, "gather: torn stream: 0 of 2 shards were read to the end: shard 80-: no row within 100ms: context deadline exceeded")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotErrorIs(t, err, context.Canceled)
		}
		stall = 0
		n, err := consume(o)
		require.Equal(t, 300, n)
		require.EqualError(t, err, "gather: 1 of 2 shards answered: shard 80-: no row within 100ms: context deadline exceeded")

		stall = -1
		n, err = consume(o)
		require.Equal(t, 600, n)
		require.NoError(t, err)

		stall = 5
		o.Limit = 7
		n, err = consume(o)
		require.Equal(t, 7, n)
		require.EqualError(t, err, "gather: 1 of 2 shards answered: shard 80-: no answer within 100ms: context deadline exceeded")
	})
}

// rows.Next returns false, and nobody asks for rows.Err.
func TestStreamTakesASilentEndAfterItsContextForAFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, limit := range []int{0, 100} {
			rows, err := collect(gather.Stream(t.Context(), evenMap(t, 1).All(), byKey, func(ctx context.Context, _ *shard.Shard) iter.Seq2[row, error] {
				return func(yield func(row, error) bool) {
					<-ctx.Done()
				}
			}, gather.Options{ShardTimeout: time.Second, Limit: limit}))
			require.Empty(t, rows)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
	})
}

func TestStreamEndsAsSoonAsTooManyHaveFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, limit := range []int{0, 100} {
			started := time.Now()
			rows, err := collect(gather.Stream(t.Context(), evenMap(t, 4).All(), byKey, func(ctx context.Context, s *shard.Shard) iter.Seq2[row, error] {
				return func(yield func(row, error) bool) {
					if s.Node == "3" {
						time.Sleep(time.Second)
						yield(row{}, errBoom)
						return
					}
					<-ctx.Done()
					yield(row{}, ctx.Err())
				}
			}, gather.Options{Limit: limit}))
			require.Empty(t, rows)
			require.Equal(t, time.Second, time.Since(started))
			require.EqualError(t, err, "gather: 0 of 4 shards answered: shard c0-: boom")
			require.NotErrorIs(t, err, context.Canceled)
		}
	})
}

func TestStreamRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	m := evenMap(t, 4)
	never := func(context.Context, *shard.Shard) iter.Seq2[int, error] { panic("called") }
	for want, o := range map[string]gather.Options{
		"gather: Options.Quorum is 1, expected 0":                            {Quorum: 1},
		"gather: Options.Hedge is set and Options.Limit 0, expected a limit": {Hedge: &gather.Hedge{After: 1}},
		"gather: Options.Limit is -1, expected 0":                            {Limit: -1},
		"gather: Options.Concurrency is -1, expected":                        {Concurrency: -1},
		"gather: Bulkhead.PerNode is -1, expected":                           {Bulkhead: &gather.Bulkhead{PerNode: -1}},
	} {
		rows, err := 0, error(nil)
		for _, err = range gather.Stream(t.Context(), m.All(), cmp.Compare[int], never, o) {
			rows++
		}
		require.Equal(t, 1, rows)
		require.ErrorContains(t, err, want)
	}
	for _, seq := range []iter.Seq2[int, error]{
		gather.Stream(t.Context(), nil, cmp.Compare[int], never, gather.Options{}),
		gather.Stream(t.Context(), m.All(), nil, never, gather.Options{}),
		gather.Stream[int](t.Context(), m.All(), cmp.Compare[int], nil, gather.Options{}),
		gather.Stream(t.Context(), slices.Values([]*shard.Shard{nil}), cmp.Compare[int], never, gather.Options{}),
	} {
		for _, err := range seq {
			require.ErrorContains(t, err, "nil")
		}
	}
	for range gather.Stream(t.Context(), slices.Values([]*shard.Shard(nil)), cmp.Compare[int], never, gather.Options{}) {
		t.Fatal("no shards, no rows")
	}
}
