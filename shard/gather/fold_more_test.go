package gather_test

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// moments computes the part of a shard from its rows, in two passes.
func moments(rows []float64) gather.Moments {
	m := gather.Moments{Count: int64(len(rows))}
	if len(rows) == 0 {
		return m
	}
	m.Mean = sumOf(rows) / float64(len(rows))
	for _, r := range rows {
		m.M2 += (r - m.Mean) * (r - m.Mean)
	}
	return m
}

func nearly(a, b, scale float64) bool { return math.Abs(a-b) <= 1e-9*math.Max(scale, math.Abs(b)) }

func sameMoments(a, b gather.Moments) bool {
	return a.Count == b.Count && nearly(a.Mean, b.Mean, 1e3) && nearly(a.M2, b.M2, 1e3)
}

func TestVarianceLaws(t *testing.T) {
	t.Parallel()
	for less, f := range map[int]gather.Fold[gather.Moments, sql.Null[float64]]{0: gather.VarPop(), 1: gather.VarSamp()} {
		want := func(rows []float64) sql.Null[float64] {
			if len(rows) <= less {
				return sql.Null[float64]{}
			}
			return sql.Null[float64]{V: moments(rows).M2 / float64(len(rows)-less), Valid: true}
		}
		lawful(t, aFold[float64, gather.Moments, sql.Null[float64]]{
			fold: f, row: rapid.Float64Range(-1e3, 1e3), part: moments, want: want,
			near: func(a, b sql.Null[float64]) bool { return a.Valid == b.Valid && nearly(a.V, b.V, 1e3) },
			same: sameMoments, any: true, copy: same[gather.Moments],
		})
	}
}

// Far from zero the textbook formula, avg(x*x) - avg(x)*avg(x), has no digit left.
func TestVarianceKeepsItsDigits(t *testing.T) {
	t.Parallel()
	const far = 1e9
	parts := []gather.Moments{moments([]float64{far + 4, far + 7}), moments(nil), moments([]float64{far + 13, far + 16})}
	got, err := gather.Reduce(gather.VarSamp(), slices.Values(parts))
	require.NoError(t, err)
	require.InDelta(t, 30, got.V, 1e-6)
	pop, err := gather.Reduce(gather.VarPop(), slices.Values(parts))
	require.NoError(t, err)
	require.InDelta(t, 22.5, pop.V, 1e-6)
}

func TestMomentsComeFromRowsAndFromSQL(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.SliceOf(rapid.Float64Range(-1e3, 1e3)).Draw(t, "rows")
		var added gather.Moments
		for _, r := range rows {
			added.Add(r)
		}
		two := moments(rows)
		require.True(t, sameMoments(two, added), "%v %v", two, added)

		valid := len(rows) > 0
		varPop := sql.Null[float64]{Valid: valid}
		if valid {
			varPop.V = two.M2 / float64(len(rows))
		}
		m, err := gather.NewMoments(two.Count, sql.Null[float64]{V: two.Mean, Valid: valid}, varPop)
		require.NoError(t, err)
		require.True(t, sameMoments(two, m))
	})
}

func TestMomentsThatNoRowsHaveAreRefused(t *testing.T) {
	t.Parallel()
	null, one := sql.Null[float64]{}, sql.Null[float64]{V: 1, Valid: true}
	for _, c := range []struct {
		count       int64
		avg, varPop sql.Null[float64]
	}{{0, one, one}, {0, null, one}, {0, one, null}, {1, null, null}, {1, one, null}, {1, null, one}, {-1, one, one}, {-1, null, null}, {1, one, sql.Null[float64]{V: -1, Valid: true}}} {
		_, err := gather.NewMoments(c.count, c.avg, c.varPop)
		require.ErrorIs(t, err, gather.ErrBadPart, "%v", c)
	}
	_, err := gather.NewMoments(0, null, null)
	require.NoError(t, err)
	for _, part := range []gather.Moments{{Count: -1}, {Count: 1, M2: -0.5}} {
		_, err := gather.Reduce(gather.VarPop(), slices.Values([]gather.Moments{part}))
		require.ErrorIs(t, err, gather.ErrBadPart)
	}
	_, err = gather.Reduce(gather.VarPop(), slices.Values([]gather.Moments{{Count: math.MaxInt64}, {Count: 1}}))
	require.ErrorIs(t, err, gather.ErrOverflow)
}

func TestTopKLaws(t *testing.T) {
	t.Parallel()
	for _, k := range []int{1, 3, 100} {
		f, err := gather.TopK(k, byKey)
		require.NoError(t, err)
		first := func(rows []row) []row {
			rows = slices.Clone(rows)
			slices.SortStableFunc(rows, byKey)
			return rows[:min(k, len(rows))]
		}
		lawful(t, aFold[row, []row, []row]{
			fold: f,
			row: rapid.Custom(func(t *rapid.T) row {
				return row{key: rapid.IntRange(0, 5).Draw(t, "key"), pos: rapid.Int().Draw(t, "pos")}
			}),
			part: first, want: first,
			near: slices.Equal[[]row], same: slices.Equal[[]row], copy: slices.Clone[[]row],
		})
	}
}

// Among rows that the order tells apart, the order of the shards does not matter.
func TestTopKIsCommutativeWithoutTies(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f, err := gather.TopK(rapid.IntRange(1, 10).Draw(t, "k"), cmp.Compare[int])
		require.NoError(t, err)
		sortedInts := rapid.Custom(func(t *rapid.T) []int {
			return slices.Sorted(slices.Values(rapid.SliceOf(rapid.Int()).Draw(t, "rows")))
		})
		x, y := sortedInts.Draw(t, "x"), sortedInts.Draw(t, "y")
		xy, err := gather.Reduce(f, slices.Values([][]int{x, y}))
		require.NoError(t, err)
		yx, err := gather.Reduce(f, slices.Values([][]int{y, x}))
		require.NoError(t, err)
		require.Equal(t, xy, yx)
	})
}

func TestTopKRefusesWhatItCannotUse(t *testing.T) {
	t.Parallel()
	for _, k := range []int{0, -1, math.MinInt} {
		_, err := gather.TopK(k, byKey)
		require.ErrorContains(t, err, "expected 1 or more")
	}
	_, err := gather.TopK[int](1, nil)
	require.ErrorContains(t, err, "compare nil: true")

	f, err := gather.TopK(2, cmp.Compare[int])
	require.NoError(t, err)
	_, err = gather.Reduce(f, slices.Values([][]int{{1, 2}, {3, 2}}))
	require.ErrorIs(t, err, gather.ErrUnordered)
	got, err := gather.Reduce(f, slices.Values([][]int{{1, 5, 0}}))
	require.NoError(t, err, "what is beyond k does not matter")
	require.Equal(t, []int{1, 5}, got)
	got, err = gather.Reduce(f, slices.Values([][]int{{}, nil}))
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestAvgRefusesASumOfNoRows(t *testing.T) {
	got, err := gather.Reduce(gather.Avg[int64](), slices.Values([]gather.AvgPart[int64]{{Sum: 5, Count: 0}, {Sum: 5, Count: 1}}))
	require.ErrorIs(t, err, gather.ErrBadPart, "%v", got)
}

func TestAggregateReturnsNothingWithAnError(t *testing.T) {
	f := gather.Count()
	f.Final = func(n int64) (int64, error) { return n, errors.New("no") }
	got, _, err := gather.Aggregate(t.Context(), evenMap(t, 2).All(), f, func(context.Context, *shard.Shard) (int64, error) { return 1, nil }, gather.Options{})
	require.Error(t, err)
	require.Zero(t, got)
}

// Asked by nodes, an aggregate is what it is asked by shards, for any map.
func TestAggregateNodesEqualsAggregate(t *testing.T) {
	t.Parallel()
	m := nodeMap(t, 9, "a", "b", "c")
	of := func(s *shard.Shard) int64 { return int64(s.Range.Start >> 56) }
	want, _, err := gather.Aggregate(t.Context(), m.All(), gather.Sum[int64](), func(_ context.Context, s *shard.Shard) (int64, error) { return of(s), nil }, gather.Options{})
	require.NoError(t, err)
	calls := 0
	got, found, err := gather.AggregateNodes(t.Context(), m.ByNode(), gather.Sum[int64](), func(_ context.Context, _ string, shards []*shard.Shard) (sum int64, _ error) {
		calls++
		for _, s := range shards {
			sum += of(s)
		}
		return sum, nil
	}, gather.Options{Concurrency: 1})
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, 3, calls)
	require.Len(t, found.Results, 3)

	_, _, err = gather.AggregateNodes(t.Context(), m.ByNode(), gather.Sum[int64](), func(context.Context, string, []*shard.Shard) (int64, error) {
		return math.MaxInt64, nil
	}, gather.Options{})
	require.ErrorIs(t, err, gather.ErrOverflow)
	require.ErrorContains(t, err, "part of node b")
	_, _, err = gather.AggregateNodes(t.Context(), m.ByNode(), gather.Sum[int64](), func(_ context.Context, node string, _ []*shard.Shard) (int64, error) {
		return 0, errors.New("down")
	}, gather.Options{})
	var partial *gather.PartialError
	require.ErrorAs(t, err, &partial)
	_, _, err = gather.AggregateNodes(t.Context(), m.ByNode(), gather.Fold[int64, int64]{}, func(context.Context, string, []*shard.Shard) (int64, error) { return 0, nil }, gather.Options{})
	require.ErrorContains(t, err, "expected three functions")
}
