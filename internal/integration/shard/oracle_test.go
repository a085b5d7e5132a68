package shard_test

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// Whatever is asked of all shards is what one table answers, through splits, merges and
// moves that leave rows behind.
func TestScatterIsTheSingleTable(t *testing.T) {
	for name, connect := range worlds {
		t.Run(name, func(t *testing.T) {
			w := connect(t)
			rapid.Check(t, func(t *rapid.T) {
				w.reset(t)
				w.insert(t, rapid.IntRange(0, 30).Draw(t, "rows"))
				t.Repeat(map[string]func(*rapid.T){
					"insert":    func(t *rapid.T) { w.insert(t, 3) },
					"change":    w.change,
					"stream":    w.checkStream,
					"by node":   w.checkNodes,
					"aggregate": w.checkAggregates,
					"groups":    w.checkGroups,
					"multi-get": w.checkMultiGet,
				})
			})
		})
	}
}

func anyFilter(t *rapid.T) string {
	return rapid.SampledFrom([]string{"1 = 1", "author = 1", "author IN (2, 3)", "amount > 0", "amount IS NULL", "1 = 0"}).Draw(t, "filter")
}

// order is a way to sort rows, in SQL and in Go.
type order struct {
	sql     string
	compare func(a, b message) int
}

var orders = []order{
	{"id", func(a, b message) int { return cmp.Compare(a.ID, b.ID) }},
	{"id DESC", func(a, b message) int { return cmp.Compare(b.ID, a.ID) }},
	{"amount NULLS FIRST, id", func(a, b message) int {
		return cmp.Or(-nulls(a.Amount, b.Amount), cmp.Compare(a.Amount.V, b.Amount.V), cmp.Compare(a.ID, b.ID))
	}},
	{"amount DESC NULLS LAST, author, id DESC", func(a, b message) int {
		return cmp.Or(nulls(a.Amount, b.Amount), cmp.Compare(b.Amount.V, a.Amount.V), cmp.Compare(a.Author, b.Author), cmp.Compare(b.ID, a.ID))
	}},
}

// nulls is positive if only a is NULL.
func nulls(a, b sql.Null[int64]) int {
	switch {
	case a.Valid == b.Valid:
		return 0
	case b.Valid:
		return 1
	}
	return -1
}

func (w *world) checkStream(t *rapid.T) {
	filter, by := anyFilter(t), rapid.SampledFrom(orders).Draw(t, "order")
	limit, tail := 0, ""
	if rapid.Bool().Draw(t, "limited") {
		limit = rapid.IntRange(1, 8).Draw(t, "limit")
		tail = fmt.Sprint(" LIMIT ", limit)
	}
	want, err := w.read(t.Context(), w.oracle, filter+" ORDER BY "+by.sql+tail)
	require.NoError(t, err)
	var got []message
	for m, err := range gather.Stream(t.Context(), w.m.All(), by.compare, func(ctx context.Context, s *shard.Shard) iter.Seq2[message, error] {
		return stream(ctx, w.nodes[s.Node], filter+" AND "+s.Range.SQL(w.point)+" ORDER BY "+by.sql+tail)
	}, gather.Options{Limit: limit}) {
		require.NoError(t, err)
		got = append(got, m)
	}
	require.Equal(t, want, got)
}

// One query a node, whose shards are one condition.
func (w *world) checkNodes(t *rapid.T) {
	filter, by := anyFilter(t), rapid.SampledFrom(orders).Draw(t, "order")
	limit := rapid.IntRange(1, 8).Draw(t, "limit")
	tail := fmt.Sprintf(" ORDER BY %s LIMIT %d", by.sql, limit)
	want, err := w.read(t.Context(), w.oracle, filter+tail)
	require.NoError(t, err)
	found, err := gather.ScatterNodes(t.Context(), w.m.ByNode(), func(ctx context.Context, name string, shards []*shard.Shard) ([]message, error) {
		return w.read(ctx, w.nodes[name], filter+" AND "+anyOf(shards, w.point)+tail)
	}, gather.Options{})
	require.NoError(t, err)
	require.Empty(t, found.Missing)
	var streams []iter.Seq2[message, error]
	for _, r := range found.Results {
		streams = append(streams, gather.Rows(r.Value))
	}
	var got []message
	for m, err := range gather.Merge(by.compare, streams...) {
		require.NoError(t, err)
		if got = append(got, m); len(got) == limit {
			break
		}
	}
	require.Equal(t, want, got)
}

func anyOf(shards []*shard.Shard, point string) string {
	conditions := make([]string, len(shards))
	for i, s := range shards {
		conditions[i] = s.Range.SQL(point)
	}
	return "(" + strings.Join(conditions, " OR ") + ")"
}

// parts are the aggregates of one shard.
type parts struct {
	count, amounts, sum int64
	least, most         sql.Null[int64]
	distinct            *gather.Sketch
	top                 []int64
}

func (w *world) checkAggregates(t *rapid.T) {
	filter := anyFilter(t)
	ask := func(ctx context.Context, n node, where string) (p parts, err error) {
		row := n.db.QueryRowContext(ctx, `SELECT count(*), count(amount), coalesce(sum(amount), 0), min(amount), max(amount) FROM `+n.table+` WHERE `+where)
		if err := row.Scan(&p.count, &p.amounts, &p.sum, &p.least, &p.most); err != nil {
			return p, err
		}
		rows, err := w.read(ctx, n, where+" ORDER BY id DESC")
		p.distinct = new(gather.Sketch)
		for _, m := range rows {
			p.distinct.Add(uint64(shard.XXHash(m.Channel)))
			p.top = append(p.top, m.ID)
		}
		p.top = p.top[:min(3, len(p.top))]
		return p, err
	}
	want, err := ask(t.Context(), w.oracle, filter)
	require.NoError(t, err)
	found, err := gather.Scatter(t.Context(), w.m.All(), func(ctx context.Context, s *shard.Shard) (parts, error) {
		return ask(ctx, w.nodes[s.Node], filter+" AND "+s.Range.SQL(w.point))
	}, gather.Options{})
	require.NoError(t, err)
	top, err := gather.TopK(3, func(a, b int64) int { return cmp.Compare(b, a) })
	require.NoError(t, err)

	requireFold(t, want.count, found, gather.Count(), func(p parts) int64 { return p.count })
	requireFold(t, want.sum, found, gather.Sum[int64](), func(p parts) int64 { return p.sum })
	requireFold(t, want.least, found, gather.Min[int64](), func(p parts) sql.Null[int64] { return p.least })
	requireFold(t, want.most, found, gather.Max[int64](), func(p parts) sql.Null[int64] { return p.most })
	requireFold(t, want.top, found, top, func(p parts) []int64 { return p.top })
	channels := column[int64](t, w.oracle.db, `SELECT count(DISTINCT channel) FROM everything WHERE `+filter)[0]
	requireFold(t, channels, found, gather.Distinct(), func(p parts) *gather.Sketch { return p.distinct })
	average := column[sql.Null[float64]](t, w.oracle.db, `SELECT avg(amount) FROM everything WHERE `+filter)[0]
	got := reduce(t, found, gather.Avg[int64](), func(p parts) gather.AvgPart[int64] { return gather.AvgPart[int64]{Sum: p.sum, Count: p.amounts} })
	require.Equal(t, average.Valid, got.Valid)
	require.InDelta(t, average.V, got.V, 1e-9)
}

func reduce[P, R any](t *rapid.T, found gather.Gathered[parts], f gather.Fold[P, R], part func(parts) P) R {
	r, err := gather.Reduce(f, func(yield func(P) bool) {
		for _, r := range found.Results {
			if !yield(part(r.Value)) {
				return
			}
		}
	})
	require.NoError(t, err)
	return r
}

func requireFold[P, R any](t *rapid.T, want R, found gather.Gathered[parts], f gather.Fold[P, R], part func(parts) P) {
	require.Equal(t, want, reduce(t, found, f, part))
}

func (w *world) checkGroups(t *rapid.T) {
	filter := anyFilter(t)
	ask := func(ctx context.Context, n node, where string) (map[int64]int64, error) {
		rows, err := n.db.QueryContext(ctx, `SELECT author, count(*) FROM `+n.table+` WHERE `+where+` GROUP BY author`)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		counts := map[int64]int64{}
		for rows.Next() {
			var author, count int64
			if err := rows.Scan(&author, &count); err != nil {
				return nil, err
			}
			counts[author] = count
		}
		return counts, rows.Err()
	}
	want, err := ask(t.Context(), w.oracle, filter)
	require.NoError(t, err)
	got, _, err := gather.Aggregate(t.Context(), w.m.All(), gather.GroupBy[int64](gather.Count()), func(ctx context.Context, s *shard.Shard) (map[int64]int64, error) {
		return ask(ctx, w.nodes[s.Node], filter+" AND "+s.Range.SQL(w.point))
	}, gather.Options{Concurrency: 2})
	require.NoError(t, err)
	require.Equal(t, want, got)

	got, _, err = gather.AggregateNodes(t.Context(), w.m.ByNode(), gather.GroupBy[int64](gather.Count()), func(ctx context.Context, name string, shards []*shard.Shard) (map[int64]int64, error) {
		return ask(ctx, w.nodes[name], filter+" AND "+anyOf(shards, w.point))
	}, gather.Options{})
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// Many keys, one call a shard that has some of them.
func (w *world) checkMultiGet(t *rapid.T) {
	channels := rapid.SliceOfN(anyChannel, 0, 6).Draw(t, "channels")
	points := make([]shard.ID, len(channels))
	for i, c := range channels {
		points[i] = w.hash(c)
	}
	groups := maps.Collect(w.m.Group(points))
	in := func(positions []int) string {
		var list strings.Builder
		list.WriteString("'no such'")
		for _, i := range positions {
			list.WriteString(", '" + channels[i] + "'")
		}
		return "channel IN (" + list.String() + ")"
	}
	found, err := gather.Scatter(t.Context(), maps.Keys(groups), func(ctx context.Context, s *shard.Shard) ([]message, error) {
		return w.read(ctx, w.nodes[s.Node], in(groups[s]))
	}, gather.Options{})
	require.NoError(t, err)
	var got []message
	for _, r := range found.Results {
		got = append(got, r.Value...)
	}
	slices.SortFunc(got, orders[0].compare)
	everything := make([]int, len(channels))
	for i := range everything {
		everything[i] = i
	}
	want, err := w.read(t.Context(), w.oracle, in(everything)+" ORDER BY id")
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// A database that sorts by another collation than the comparison is found out, and one
// that sorts by bytes is not.
func TestACollationThatDiffersIsFoundOut(t *testing.T) {
	w := worlds["postgres"](t)
	rapid.Check(t, func(t *rapid.T) { w.reset(t) })
	var err error
	w.m, err = shard.NewMap(1, shard.Shard{Node: "n0"})
	require.NoError(t, err)
	for i, channel := range []string{"a", "B", "c", "D"} {
		w.write(t, w.nodes["n0"], message{ID: int64(i), Channel: channel})
	}
	read := func(collation string) (n int, err error) {
		for _, err = range gather.Stream(t.Context(), w.m.All(), func(a, b message) int { return cmp.Compare(a.Channel, b.Channel) },
			func(ctx context.Context, s *shard.Shard) iter.Seq2[message, error] {
				return stream(ctx, w.nodes[s.Node], s.Range.SQL(w.point)+` ORDER BY channel COLLATE "`+collation+`"`)
			}, gather.Options{}) {
			n++
		}
		return n, err
	}
	n, err := read("C")
	require.NoError(t, err)
	require.Equal(t, 4, n)
	_, err = read("en-x-icu")
	require.ErrorIs(t, err, gather.ErrUnordered)
}

// Sixteen shards on one database with a single connection: a limited stream and a scatter
// take turns, and a broken loop gives the connection back.
func TestAPoolOfOneConnectionIsEnough(t *testing.T) {
	w := worlds["postgres"](t)
	ranges, err := shard.EvenRanges(16)
	require.NoError(t, err)
	shards := make([]shard.Shard, len(ranges))
	for i, r := range ranges {
		shards[i] = shard.Shard{Range: r, Node: "n0"}
	}
	w.m, err = shard.NewMap(1, shards...)
	require.NoError(t, err)
	for i := range 200 {
		w.write(t, w.nodes["n0"], message{ID: int64(i), Channel: fmt.Sprint("channel:", i)})
	}
	db := w.nodes["n0"].db
	db.SetMaxOpenConns(1)
	query := func(ctx context.Context, s *shard.Shard) iter.Seq2[message, error] {
		return stream(ctx, w.nodes[s.Node], s.Range.SQL(w.point)+" ORDER BY id LIMIT 20")
	}
	var got []int64
	for m, err := range gather.Stream(t.Context(), w.m.All(), orders[0].compare, query, gather.Options{Limit: 20}) {
		require.NoError(t, err)
		got = append(got, m.ID)
		require.Zero(t, db.Stats().InUse, "a query inside the loop does not wait for ever")
	}
	require.Len(t, got, 20)
	require.True(t, slices.IsSorted(got))

	db.SetMaxOpenConns(16) // every stream open at once
	for _, err := range gather.Stream(t.Context(), w.m.All(), orders[0].compare, query, gather.Options{}) {
		require.NoError(t, err)
		break
	}
	require.Zero(t, db.Stats().InUse)
}
