package gather_test

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// aFold is a fold together with how a shard computes its part, so that all folds
// are held to the same laws.
type aFold[T, P, R any] struct {
	fold gather.Fold[P, R]
	row  *rapid.Generator[T]
	part func([]T) P       // of one shard
	want func([]T) R       // of one table
	near func(a, b R) bool // equality, up to the rounding that the fold documents
	same func(a, b P) bool // of parts, likewise
	any  bool              // the order of the rows does not matter
	copy func(P) P         // deep
}

// laws are that the fold of parts is the fold of the rows, however they are spread,
// and that Combine is a monoid that keeps its second argument as it was.
func (c aFold[T, P, R]) laws(t *rapid.T) {
	tables := rapid.SliceOfN(rapid.SliceOfN(c.row, 0, 8), 0, 6).Draw(t, "rows by shard")
	parts := make([]P, len(tables))
	for i, rows := range tables {
		parts[i] = c.part(rows)
	}
	got, err := gather.Reduce(c.fold, slices.Values(parts))
	require.NoError(t, err)
	want := c.want(slices.Concat(tables...))
	require.True(t, c.near(got, want), "got %v want %v", got, want)
	for i, rows := range tables {
		require.True(t, c.same(parts[i], c.part(rows)), "a part was changed")
	}

	part := func(label string) P { return c.part(rapid.SliceOfN(c.row, 0, 8).Draw(t, label)) }
	combine := func(a, b P) P {
		sum, err := c.fold.Combine(c.copy(a), b)
		require.NoError(t, err)
		return sum
	}
	x, y, z := part("x"), part("y"), part("z")
	require.True(t, c.same(combine(x, c.fold.Zero()), x), "identity")
	require.True(t, c.same(combine(c.fold.Zero(), x), x), "identity")
	require.True(t, c.same(combine(combine(x, y), z), combine(x, combine(y, z))), "associativity")
	if c.any {
		require.True(t, c.same(combine(x, y), combine(y, x)), "commutativity")
	}
}

// grouped is the fold GroupBy makes of it, whose rows have a group beside them.
func grouped[T, P, R any](c aFold[T, P, R]) aFold[pair[T], map[uint8]P, map[uint8]R] {
	byGroup := func(rows []pair[T]) map[uint8][]T {
		m := map[uint8][]T{}
		for _, r := range rows {
			m[r.group] = append(m[r.group], r.row)
		}
		return m
	}
	return aFold[pair[T], map[uint8]P, map[uint8]R]{
		fold: gather.GroupBy[uint8](c.fold),
		row: rapid.Custom(func(t *rapid.T) pair[T] {
			return pair[T]{rapid.Uint8Range(0, 3).Draw(t, "group"), c.row.Draw(t, "row")}
		}),
		part: func(rows []pair[T]) map[uint8]P { return mapped(byGroup(rows), c.part) },
		want: func(rows []pair[T]) map[uint8]R { return mapped(byGroup(rows), c.want) },
		near: func(a, b map[uint8]R) bool { return maps.EqualFunc(a, b, c.near) },
		same: func(a, b map[uint8]P) bool { return maps.EqualFunc(a, b, c.same) },
		any:  c.any,
		copy: func(m map[uint8]P) map[uint8]P { return mapped(m, c.copy) },
	}
}

type pair[T any] struct {
	group uint8
	row   T
}

func mapped[K comparable, V, W any](m map[K]V, f func(V) W) map[K]W {
	out := make(map[K]W, len(m))
	for k, v := range m {
		out[k] = f(v)
	}
	return out
}

// lawful holds the fold, and its groups, to the laws.
func lawful[T, P, R any](t *testing.T, c aFold[T, P, R]) {
	t.Helper()
	rapid.Check(t, c.laws)
	rapid.Check(t, grouped(c).laws)
}

func equal[T comparable](a, b T) bool { return a == b }

func same[T any](v T) T { return v }

func sumOf[T gather.Number](rows []T) (sum T) {
	for _, r := range rows {
		sum += r
	}
	return sum
}

func TestSumLaws(t *testing.T) {
	t.Parallel()
	lawful(t, aFold[int64, int64, int64]{
		fold: gather.Sum[int64](), row: rapid.Int64Range(-1000, 1000), part: sumOf[int64], want: sumOf[int64],
		near: equal[int64], same: equal[int64], any: true, copy: same[int64],
	})
	lawful(t, aFold[uint8, uint8, uint8]{
		fold: gather.Sum[uint8](), row: rapid.Uint8Range(0, 5), part: sumOf[uint8], want: sumOf[uint8],
		near: equal[uint8], same: equal[uint8], any: true, copy: same[uint8],
	})
}

// A sum is exact or an overflow, for each kind of number.
func sumNeverWraps[T gather.Number](value *rapid.Generator[T], lo, hi *big.Int, exact func(T) *big.Int) func(*rapid.T) {
	return func(t *rapid.T) {
		a, b := value.Draw(t, "a"), value.Draw(t, "b")
		got, err := gather.Reduce(gather.Sum[T](), slices.Values([]T{a, b}))
		want := new(big.Int).Add(exact(a), exact(b))
		if want.Cmp(lo) < 0 || want.Cmp(hi) > 0 {
			require.ErrorIs(t, err, gather.ErrOverflow)
			return
		}
		require.NoError(t, err)
		require.Zero(t, want.Cmp(exact(got)))
	}
}

type cents int16 // a type of its own

func TestSumNeverWraps(t *testing.T) {
	t.Parallel()
	signed := func(v int64) *big.Int { return big.NewInt(v) }
	rapid.Check(t, sumNeverWraps(rapid.Int64(), signed(math.MinInt64), signed(math.MaxInt64), signed))
	rapid.Check(t, sumNeverWraps(rapid.Int8(), signed(-128), signed(127), func(v int8) *big.Int { return signed(int64(v)) }))
	rapid.Check(t, sumNeverWraps(rapid.Custom(func(t *rapid.T) cents { return cents(rapid.Int16().Draw(t, "cents")) }),
		signed(math.MinInt16), signed(math.MaxInt16), func(v cents) *big.Int { return signed(int64(v)) }))
	rapid.Check(t, sumNeverWraps(rapid.Uint8(), signed(0), signed(255), func(v uint8) *big.Int { return signed(int64(v)) }))
	unsigned := func(v uint64) *big.Int { return new(big.Int).SetUint64(v) }
	rapid.Check(t, sumNeverWraps(rapid.Uint64(), signed(0), unsigned(math.MaxUint64), unsigned))
}

func TestSumOfFloatsIsIEEEInTheOrderOfTheShards(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.Float64()).Draw(t, "parts")
		got, err := gather.Reduce(gather.Sum[float64](), slices.Values(parts))
		require.NoError(t, err)
		require.Equal(t, math.Float64bits(sumOf(parts)), math.Float64bits(got))
	})
	got, err := gather.Reduce(gather.Sum[float32](), slices.Values([]float32{math.MaxFloat32, math.MaxFloat32}))
	require.NoError(t, err)
	require.True(t, math.IsInf(float64(got), 1))
	got, err = gather.Reduce(gather.Sum[float32](), slices.Values([]float32{1 << 30, 1, -1}))
	require.NoError(t, err)
	require.Equal(t, float32(1<<30), got, "a number that is lost in rounding is no overflow")
}

func TestCountLaws(t *testing.T) {
	t.Parallel()
	count := func(rows []int) int64 { return int64(len(rows)) }
	lawful(t, aFold[int, int64, int64]{
		fold: gather.Count(), row: rapid.Int(), part: count, want: count,
		near: equal[int64], same: equal[int64], any: true, copy: same[int64],
	})

	_, err := gather.Reduce(gather.Count(), slices.Values([]int64{5, -1}))
	require.ErrorIs(t, err, gather.ErrBadPart)
	_, err = gather.Reduce(gather.Count(), slices.Values([]int64{math.MaxInt64, 1}))
	require.ErrorIs(t, err, gather.ErrOverflow)
}

func TestAvgLaws(t *testing.T) {
	t.Parallel()
	lawful(t, aFold[int32, gather.AvgPart[int64], sql.Null[float64]]{
		fold: gather.Avg[int64](), row: rapid.Int32(),
		part: func(rows []int32) gather.AvgPart[int64] {
			p := gather.AvgPart[int64]{Count: int64(len(rows))}
			for _, r := range rows {
				p.Sum += int64(r)
			}
			return p
		},
		want: func(rows []int32) sql.Null[float64] {
			total := new(big.Rat)
			for _, r := range rows {
				total.Add(total, big.NewRat(int64(r), int64(len(rows))))
			}
			v, _ := total.Float64()
			return sql.Null[float64]{V: v, Valid: len(rows) > 0}
		},
		near: func(a, b sql.Null[float64]) bool {
			return a.Valid == b.Valid && math.Abs(a.V-b.V) <= 1e-15*math.Abs(b.V)
		},
		same: equal[gather.AvgPart[int64]], any: true, copy: same[gather.AvgPart[int64]],
	})
}

func TestAvgIsNoAverageOfAverages(t *testing.T) {
	t.Parallel()
	avg, err := gather.Reduce(gather.Avg[int](), slices.Values([]gather.AvgPart[int]{{Sum: 10, Count: 1}, {Sum: 0, Count: 9}, {}}))
	require.NoError(t, err)
	require.Equal(t, sql.Null[float64]{V: 1, Valid: true}, avg)

	_, err = gather.Reduce(gather.Avg[int](), slices.Values([]gather.AvgPart[int]{{Sum: 10, Count: -1}}))
	require.ErrorIs(t, err, gather.ErrBadPart)
	_, err = gather.Reduce(gather.Avg[uint8](), slices.Values([]gather.AvgPart[uint8]{{Sum: 200, Count: 1}, {Sum: 56, Count: 1}}))
	require.ErrorIs(t, err, gather.ErrOverflow)
}

func nullOf[T any](rows []T, pick func([]T) T) sql.Null[T] {
	if len(rows) == 0 {
		return sql.Null[T]{}
	}
	return sql.Null[T]{V: pick(rows), Valid: true}
}

func TestMinAndMaxLaws(t *testing.T) {
	t.Parallel()
	of := func(f gather.Fold[sql.Null[string], sql.Null[string]], pick func([]string) string) {
		part := func(rows []string) sql.Null[string] { return nullOf(rows, pick) }
		lawful(t, aFold[string, sql.Null[string], sql.Null[string]]{
			fold: f, row: rapid.StringN(0, 3, -1), part: part, want: part,
			near: equal[sql.Null[string]], same: equal[sql.Null[string]], any: true, copy: same[sql.Null[string]],
		})
	}
	of(gather.Min[string](), slices.Min[[]string])
	of(gather.Max[string](), slices.Max[[]string])
	backwards := func(a, b string) int { return cmp.Compare(b, a) }
	of(gather.MinFunc(backwards), slices.Max[[]string])
	of(gather.MaxFunc(backwards), slices.Min[[]string])
}

// PostgreSQL: "NaN values are treated as equal, and greater than all non-NaN values".
func TestMinAndMaxHaveNaNAboveAllNumbers(t *testing.T) {
	t.Parallel()
	number := rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1)}))
	pgMin := func(rows []float64) float64 {
		numbers := slices.DeleteFunc(slices.Clone(rows), math.IsNaN)
		if len(numbers) == 0 {
			return math.NaN()
		}
		return slices.Min(numbers)
	}
	pgMax := func(rows []float64) float64 { return slices.Max(rows) } // a NaN if there is one
	equal := func(a, b sql.Null[float64]) bool {
		return a == b || a.Valid && b.Valid && math.IsNaN(a.V) && math.IsNaN(b.V)
	}
	for f, pick := range map[*gather.Fold[sql.Null[float64], sql.Null[float64]]]func([]float64) float64{
		new(gather.Min[float64]()): pgMin, new(gather.Max[float64]()): pgMax,
	} {
		part := func(rows []float64) sql.Null[float64] { return nullOf(rows, pick) }
		lawful(t, aFold[float64, sql.Null[float64], sql.Null[float64]]{
			fold: *f, row: number, part: part, want: part, near: equal, same: equal, any: true, copy: func(p sql.Null[float64]) sql.Null[float64] { return p },
		})
	}
}

func TestMinOfEmptyShardsIsNullAndNotZero(t *testing.T) {
	t.Parallel()
	for _, f := range []gather.Fold[sql.Null[int], sql.Null[int]]{gather.Min[int](), gather.Max[int]()} {
		got, err := gather.Reduce(f, slices.Values([]sql.Null[int]{{}, {V: -5, Valid: true}, {V: 99}}))
		require.NoError(t, err)
		require.Equal(t, sql.Null[int]{V: -5, Valid: true}, got)
		got, err = gather.Reduce(f, slices.Values([]sql.Null[int]{{}, {}}))
		require.NoError(t, err)
		require.Equal(t, sql.Null[int]{}, got)
	}
}

func TestReduceRefusesNil(t *testing.T) {
	t.Parallel()
	whole := gather.Sum[int]()
	parts := slices.Values([]int{1})
	for _, broken := range []gather.Fold[int, int]{{}, {Zero: whole.Zero, Combine: whole.Combine}, {Zero: whole.Zero, Final: whole.Final}, {Combine: whole.Combine, Final: whole.Final}} {
		_, err := gather.Reduce(broken, parts)
		require.ErrorContains(t, err, "nil")
		_, err = gather.Reduce(gather.GroupBy[string](broken), slices.Values([]map[string]int{{"a": 1}}))
		require.ErrorContains(t, err, "nil")
		_, _, err = gather.Aggregate(t.Context(), evenMap(t, 2).All(), broken, func(context.Context, *shard.Shard) (int, error) { panic("called") }, gather.Options{})
		require.ErrorContains(t, err, "nil")
	}
	_, err := gather.Reduce(whole, nil)
	require.ErrorContains(t, err, "nil")
}

func TestGroupByKeepsItsPartsAndNamesTheGroup(t *testing.T) {
	t.Parallel()
	f := gather.GroupBy[string](gather.Distinct())
	part := map[string]*gather.Sketch{"a": {}, "b": nil}
	part["a"].Add(1)
	into, err := f.Combine(f.Zero(), part)
	require.NoError(t, err)
	into["a"].Add(2)
	require.InDelta(t, 1, part["a"].Estimate(), 0.01, "the sum shares nothing with a part")

	_, err = gather.Reduce(gather.GroupBy[string](gather.Count()), slices.Values([]map[string]int64{nil, {"blue": -1}}))
	require.ErrorIs(t, err, gather.ErrBadPart)
	require.ErrorContains(t, err, "group blue")
	refuses := gather.Sum[int]()
	refuses.Final = func(int) (int, error) { return 0, errBoom }
	_, err = gather.Reduce(gather.GroupBy[string](refuses), slices.Values([]map[string]int{{"red": 1}}))
	require.EqualError(t, err, "gather: group red: boom")
}

// The rows of one table, spread by the hash of their key, give what the table gives.
func TestAggregateEqualsOneTable(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := evenMap(t, rapid.IntRange(1, 9).Draw(t, "shards"))
		table := map[*shard.Shard]map[int]int64{}
		want := map[int]int64{}
		for i := range rapid.IntRange(0, 60).Draw(t, "rows") {
			s := m.Lookup(shard.XXHash(fmt.Sprint(i)))
			if table[s] == nil {
				table[s] = map[int]int64{}
			}
			table[s][i%3]++
			want[i%3]++
		}
		got, found, err := gather.Aggregate(t.Context(), m.All(), gather.GroupBy[int](gather.Count()),
			func(_ context.Context, s *shard.Shard) (map[int]int64, error) { return table[s], nil }, gather.Options{})
		require.NoError(t, err)
		require.Empty(t, found.Missing)
		require.Equal(t, want, got)
	})
}

func TestAggregateOfSomeShardsSaysWhatItLacks(t *testing.T) {
	t.Parallel()
	m := evenMap(t, 4)
	ask := func(_ context.Context, s *shard.Shard) (int, error) {
		if s.Node == "2" {
			return 0, errBoom
		}
		return 10, nil
	}
	sum, found, err := gather.Aggregate(t.Context(), m.All(), gather.Sum[int](), ask, gather.Options{MinFraction: 0.5})
	require.NoError(t, err)
	require.Equal(t, 30, sum)
	require.Equal(t, []shard.Range{{Start: 0x80 << 56, End: 0xc0 << 56}}, found.Missing)
	require.ErrorIs(t, found.Failed[0], errBoom)

	sum, _, err = gather.Aggregate(t.Context(), m.All(), gather.Sum[int](), ask, gather.Options{})
	require.ErrorIs(t, err, errBoom)
	require.Zero(t, sum)

	negative := func(_ context.Context, s *shard.Shard) (int64, error) { return int64(s.Node[0]) - '2', nil }
	_, refused, err := gather.Aggregate(t.Context(), m.All(), gather.Count(), negative, gather.Options{})
	require.ErrorIs(t, err, gather.ErrBadPart)
	require.ErrorContains(t, err, "part of shard -40")
	require.Len(t, refused.Results, 4)
}
