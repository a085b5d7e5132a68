package gather_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// message is a row: ordered by day, newest first, and told apart by its id.
type message struct {
	Day int
	ID  uint64
}

func newestMessage(a, b message) int {
	return cmp.Or(cmp.Compare(b.Day, a.Day), cmp.Compare(b.ID, a.ID))
}

func (m message) point() shard.ID { return shard.XXHash(fmt.Sprint(m.ID)) }

// store is a table that lies on shards.
type store struct{ rows []message }

// fetch is what the query of a shard does.
func (s *store) fetch(_ context.Context, of *shard.Shard, after *message, limit int) ([]message, error) {
	return first(s.rows, limit, func(m message) bool {
		return of.Range.Contains(m.point()) && (after == nil || newestMessage(*after, m) < 0)
	}), nil
}

// first returns the first rows, in order, that a filter passes.
func first(rows []message, limit int, pass func(message) bool) (out []message) {
	for _, m := range slices.SortedFunc(slices.Values(rows), newestMessage) {
		if pass(m) && len(out) < limit {
			out = append(out, m)
		}
	}
	return out
}

func (s *store) query(t require.TestingT) gather.Query[message, message] {
	return gather.Query[message, message]{
		Cursors: cursorsOf(t, key(1)), Fingerprint: "messages by day desc, id desc", Compare: newestMessage,
		Position: same[message], Fetch: s.fetch,
	}
}

// anyMap draws a map with any cuts.
func anyMap() *rapid.Generator[*shard.Map] {
	return rapid.Custom(func(t *rapid.T) *shard.Map {
		cuts := rapid.SliceOfNDistinct(rapid.Uint64Range(1, math.MaxUint64), 0, 6, func(c uint64) uint64 { return c }).Draw(t, "cuts")
		slices.Sort(cuts)
		var shards []shard.Shard
		for i, start := range append([]uint64{0}, cuts...) {
			s := shard.Shard{Range: shard.Range{Start: shard.ID(start)}, Node: fmt.Sprint("db", rapid.IntRange(1, 3).Draw(t, "node"))}
			if i < len(cuts) {
				s.Range.End = shard.ID(cuts[i])
			}
			shards = append(shards, s)
		}
		m, err := shard.NewMap(1, shards...)
		require.NoError(t, err)
		return m
	})
}

func anyMessages(from uint64) *rapid.Generator[[]message] {
	return rapid.Custom(func(t *rapid.T) (rows []message) {
		for i, day := range rapid.SliceOfN(rapid.IntRange(0, 5), 0, 40).Draw(t, "days") {
			rows = append(rows, message{day, from + uint64(i)})
		}
		return rows
	})
}

// The map changes between any two pages: no row is lost or seen twice, and the order
// is kept.
func TestPagesSurviveEveryChangeOfTheMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := &store{anyMessages(0).Draw(t, "rows")}
		want := slices.SortedFunc(slices.Values(s.rows), newestMessage)
		var got []message
		for cursor := ""; ; {
			limit := rapid.IntRange(1, 9).Draw(t, "limit")
			page, err := s.query(t).Page(t.Context(), anyMap().Draw(t, "map").All(), cursor, limit, gather.Options{})
			require.NoError(t, err)
			require.LessOrEqual(t, len(page.Rows), limit)
			got = append(got, page.Rows...)
			if cursor = page.Next; cursor == "" {
				break
			}
			require.Len(t, page.Rows, limit, "only the last page may be short")
		}
		require.True(t, slices.Equal(want, got), "want %v got %v", want, got)
	})
}

// Rows come and go between pages: each page is what one table would give after the
// position, so that untouched rows are seen once, new ones only ahead.
func TestPagesAreWhatFollowsThePosition(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := &store{anyMessages(0).Draw(t, "rows")}
		var at *message
		seen := map[message]int{}
		for n, cursor := 0, ""; n < 50; n++ {
			limit := rapid.IntRange(1, 9).Draw(t, "limit")
			page, err := s.query(t).Page(t.Context(), anyMap().Draw(t, "map").All(), cursor, limit, gather.Options{})
			require.NoError(t, err)
			ahead := func(m message) bool { return at == nil || newestMessage(*at, m) < 0 }
			require.True(t, slices.Equal(first(s.rows, limit, ahead), page.Rows))
			require.Equal(t, len(first(s.rows, math.MaxInt, ahead)) > limit, page.Next != "")
			for _, m := range page.Rows {
				seen[m]++
			}
			if cursor = page.Next; cursor == "" {
				break
			}
			at = &page.Rows[len(page.Rows)-1]
			s.rows = slices.DeleteFunc(s.rows, func(message) bool { return rapid.IntRange(0, 9).Draw(t, "delete") == 0 })
			s.rows = append(s.rows, anyMessages(uint64(1000*(n+1))).Draw(t, "new")[:]...)
		}
		for m, times := range seen {
			require.Equal(t, 1, times, "%v", m)
		}
	})
}

func TestAllFollowsTheMapAndHoldsNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := &store{anyMessages(0).Draw(t, "rows")}
		q := s.query(t)
		var running atomic.Int64
		q.Fetch = func(ctx context.Context, of *shard.Shard, after *message, limit int) ([]message, error) {
			running.Add(1)
			defer running.Add(-1)
			return s.fetch(ctx, of, after, limit)
		}
		current := func(yield func(*shard.Shard) bool) { anyMap().Draw(t, "map").All()(yield) } // another each time
		stopAfter := rapid.IntRange(0, 50).Draw(t, "stop after")
		var got []message
		cursor := ""
		for m, err := range q.All(t.Context(), current, "", rapid.IntRange(1, 9).Draw(t, "size"), gather.Options{}) {
			require.NoError(t, err)
			require.Zero(t, running.Load())
			got = append(got, m)
			if len(got) == stopAfter {
				cursor, err = q.Cursor(m)
				require.NoError(t, err)
				break
			}
		}
		if cursor != "" { // and on from the last row
			for m, err := range q.All(t.Context(), current, cursor, 5, gather.Options{}) {
				require.NoError(t, err)
				got = append(got, m)
			}
		}
		require.True(t, slices.Equal(slices.SortedFunc(slices.Values(s.rows), newestMessage), got))
	})
}

func TestAllEndsWithTheError(t *testing.T) {
	t.Parallel()
	s := &store{[]message{{1, 1}, {1, 2}, {1, 3}}}
	q := s.query(t)
	var calls atomic.Int64
	q.Fetch = func(ctx context.Context, of *shard.Shard, after *message, limit int) ([]message, error) {
		if calls.Add(1) > 1 {
			return nil, errBoom
		}
		return s.fetch(ctx, of, after, limit)
	}
	var got []message
	var last error
	for m, err := range q.All(t.Context(), evenMap(t, 1).All(), "", 2, gather.Options{}) {
		require.NoError(t, last, "nothing follows an error")
		if last = err; err == nil {
			got = append(got, m)
		}
	}
	require.ErrorIs(t, last, errBoom)
	require.Equal(t, []message{{1, 3}, {1, 2}}, got)
}

func TestPageRefusesOrdersThatLoseRows(t *testing.T) {
	t.Parallel()
	s := &store{[]message{{5, 1}, {5, 2}, {4, 3}}}
	page := func(change func(*gather.Query[message, message]), cursor string, limit int) error {
		q := s.query(t)
		change(&q)
		p, err := q.Page(t.Context(), evenMap(t, 2).All(), cursor, limit, gather.Options{})
		require.Empty(t, p)
		return err
	}
	byDay := func(q *gather.Query[message, message]) {
		q.Compare = func(a, b message) int { return cmp.Compare(b.Day, a.Day) }
	}
	require.ErrorIs(t, page(byDay, "", 1), gather.ErrTie, "at the end of the page")
	require.ErrorIs(t, page(byDay, "", 2), gather.ErrTie, "inside, too")

	oldest := func(q *gather.Query[message, message]) {
		q.Compare = func(a, b message) int { return newestMessage(b, a) }
		q.Fetch = func(context.Context, *shard.Shard, *message, int) ([]message, error) {
			return []message{{5, 1}, {4, 3}}, nil
		}
	}
	require.ErrorIs(t, page(oldest, "", 2), gather.ErrUnordered)

	cursor, err := s.query(t).Cursor(message{5, 1})
	require.NoError(t, err)
	again := func(q *gather.Query[message, message]) {
		q.Fetch = func(_ context.Context, of *shard.Shard, after *message, limit int) ([]message, error) {
			return first(s.rows, limit, func(m message) bool {
				return of.Range.Contains(m.point()) && newestMessage(*after, m) <= 0
			}), nil
		}
	}
	require.ErrorIs(t, page(again, cursor, 2), gather.ErrTie, "<= in place of <")
}

func TestPageNeedsEveryShard(t *testing.T) {
	t.Parallel()
	s := &store{[]message{{5, 1}, {5, 2}, {4, 3}}}
	q := s.query(t)
	for _, o := range []gather.Options{{MinFraction: 0.5}, {MinFraction: 2}, {MinFraction: math.NaN()}, {Quorum: 1}, {Limit: 3}, {Concurrency: -1}} {
		_, err := q.Page(t.Context(), evenMap(t, 2).All(), "", 2, o)
		require.ErrorContains(t, err, "gather: Options.")
	}
	q.Fetch = func(ctx context.Context, of *shard.Shard, after *message, limit int) ([]message, error) {
		if of.Range.Start != 0 {
			return nil, errBoom
		}
		return s.fetch(ctx, of, after, limit)
	}
	page, err := q.Page(t.Context(), evenMap(t, 2).All(), "", 2, gather.Options{MinFraction: 1})
	partial, ok := err.(*gather.PartialError)
	require.True(t, ok)
	require.Equal(t, []shard.Range{{Start: 0x80 << 56}}, partial.Missing)
	require.Empty(t, page)
}

func TestPageRefusesWhatItCannotUse(t *testing.T) {
	t.Parallel()
	s := &store{}
	for i, change := range []func(*gather.Query[message, message]){
		func(q *gather.Query[message, message]) { q.Cursors = nil },
		func(q *gather.Query[message, message]) { q.Fingerprint = "" },
		func(q *gather.Query[message, message]) { q.Compare = nil },
		func(q *gather.Query[message, message]) { q.Position = nil },
		func(q *gather.Query[message, message]) { q.Fetch = nil },
	} {
		q := s.query(t)
		change(&q)
		_, err := q.Page(t.Context(), evenMap(t, 2).All(), "", 2, gather.Options{})
		require.ErrorContains(t, err, "a field of Query is not set", i)
		for _, err := range q.All(t.Context(), evenMap(t, 2).All(), "", 2, gather.Options{}) {
			require.ErrorContains(t, err, "a field of Query is not set", i)
		}
	}
	_, err := gather.Query[message, message]{}.Cursor(message{})
	require.ErrorContains(t, err, "not set")
	q := s.query(t)
	for _, limit := range []int{0, -1, math.MinInt, math.MaxInt} {
		_, err := q.Page(t.Context(), evenMap(t, 2).All(), "", limit, gather.Options{})
		require.ErrorContains(t, err, "gather: limit is")
	}
	_, err = q.Page(t.Context(), nil, "", 1, gather.Options{})
	require.ErrorContains(t, err, "nil")
	_, err = q.Page(t.Context(), evenMap(t, 2).All(), "nonsense", 1, gather.Options{})
	isOf(t, err, gather.ErrBadCursor)
	foreign := s.query(t)
	foreign.Fingerprint = "messages of another channel"
	cursor, err := foreign.Cursor(message{1, 1})
	require.NoError(t, err)
	_, err = q.Page(t.Context(), evenMap(t, 2).All(), cursor, 1, gather.Options{})
	isOf(t, err, gather.ErrForeignCursor)
}

// travels reports what became of a position on its way through a cursor.
func travels[P any](t require.TestingT, p P) (P, error) {
	var got P
	q := gather.Query[P, P]{
		Cursors: cursorsOf(t, key(1)), Fingerprint: "q", Compare: func(a, b P) int { return -1 }, Position: same[P],
		Fetch: func(_ context.Context, _ *shard.Shard, after *P, _ int) ([]P, error) {
			got = *after
			return nil, nil
		},
	}
	cursor, err := q.Cursor(p)
	if err != nil {
		return got, err
	}
	_, err = q.Page(context.Background(), func(yield func(*shard.Shard) bool) { yield(&shard.Shard{}) }, cursor, 1, gather.Options{})
	return got, err
}

type base struct{ Rank float64 }

type position struct {
	base
	At    time.Time
	ID    int64
	Name  string `json:",omitempty"`
	Bytes []byte
	Next  *position
	Group map[string][2]uint64
}

func TestPositionsTravelExactly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := position{
			base: base{rapid.Float64().Draw(t, "rank")},
			At:   time.Unix(rapid.Int64Range(0, 1<<35).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC(),
			ID:   rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64, 1<<53 + 1})).Draw(t, "id"),
			Name: rapid.String().Draw(t, "name"), Bytes: rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "bytes"),
			Group: map[string][2]uint64{"\ufffd\\ufffd": {math.MaxUint64, 1}},
		}
		q := p
		p.Next = &q
		got, err := travels(t, p)
		require.NoError(t, err)
		require.Equal(t, p, got)
	})
}

func TestPositionsThatLoseSomethingAreRefused(t *testing.T) {
	t.Parallel()
	_, err := travels(t, "caf\xe9")
	require.ErrorContains(t, err, "not UTF-8")
	_, err = travels(t, `caf\xe9 \ufffd `+"\ufffd")
	require.NoError(t, err, "these are characters")
	_, err = travels(t, math.NaN())
	require.ErrorContains(t, err, "NaN")

	_, err = travels(t, struct{ id int }{7})
	require.ErrorContains(t, err, "id, which JSON does not keep")
	_, err = travels(t, []struct {
		ID int `json:"-"`
	}{{7}})
	require.ErrorContains(t, err, "ID, which JSON does not keep")
	_, err = travels[any](t, 7)
	require.ErrorContains(t, err, "an interface")
	_, err = travels(t, map[string]*[]any{})
	require.ErrorContains(t, err, "an interface")
	type hidden int
	_, err = travels(t, struct{ hidden }{7})
	require.ErrorContains(t, err, "hidden, which JSON does not keep")
	_, err = travels(t, json.RawMessage(`{"id":7}`))
	require.NoError(t, err, "it marshals itself")
}

// A cursor outlives the deployment that made it: with another layout and the same
// fingerprint it is refused, where that can be seen.
func TestPositionsOfAnotherLayoutAreForeign(t *testing.T) {
	t.Parallel()
	before := gather.Query[message, struct{ Old int }]{Cursors: cursorsOf(t, key(1)), Fingerprint: "q", Position: func(message) struct{ Old int } { return struct{ Old int }{} }}
	cursor, err := before.Cursor(message{})
	require.NoError(t, err)
	q := (&store{}).query(t)
	q.Fingerprint = "q"
	_, err = q.Page(t.Context(), evenMap(t, 1).All(), cursor, 1, gather.Options{})
	isOf(t, err, gather.ErrForeignCursor)
}

// A Fetch that changes its position changes it for itself only.
func TestEachFetchHasItsOwnPosition(t *testing.T) {
	t.Parallel()
	s := &store{}
	q := s.query(t)
	q.Fetch = func(_ context.Context, _ *shard.Shard, after *message, limit int) ([]message, error) {
		if *after != (message{5, 5}) || limit != 4 {
			return nil, fmt.Errorf("after %v limit %d", *after, limit)
		}
		after.ID = 0
		return nil, nil
	}
	cursor, err := q.Cursor(message{5, 5})
	require.NoError(t, err)
	_, err = q.Page(t.Context(), evenMap(t, 50).All(), cursor, 3, gather.Options{})
	require.NoError(t, err)
}
