package shard_test

import (
	"cmp"
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// position is where a row stands in the order by amount, NULLs last, and id.
type position struct {
	Known  bool
	Amount int64
	ID     int64
}

// pager reads all messages by amount, page by page, while the world changes.
type pager struct {
	query  gather.Query[message, position]
	cursor string
	seen   map[int64]bool
	last   *message
	stay   map[int64]bool // the rows that have been there all the time
	done   bool
}

func (w *world) pager(t *rapid.T) *pager {
	cursors, err := gather.NewCursors(make([]byte, 32))
	require.NoError(t, err)
	p := &pager{seen: map[int64]bool{}, stay: map[int64]bool{}}
	p.query = gather.Query[message, position]{
		Cursors:     cursors,
		Fingerprint: "messages by amount",
		Compare: func(a, b message) int {
			return cmp.Or(nulls(a.Amount, b.Amount), cmp.Compare(a.Amount.V, b.Amount.V), cmp.Compare(a.ID, b.ID))
		},
		Position: func(m message) position { return position{m.Amount.Valid, m.Amount.V, m.ID} },
		Fetch: func(ctx context.Context, s *shard.Shard, after *position, limit int) ([]message, error) {
			return w.read(ctx, w.nodes[s.Node], fmt.Sprintf("%s AND %s ORDER BY amount NULLS LAST, id LIMIT %d", s.Range.SQL(w.point), follows(after), limit))
		},
	}
	for _, id := range column[int64](t, w.oracle.db, `SELECT id FROM everything`) {
		p.stay[id] = true
	}
	return p
}

// follows is the condition of the rows after a position.
func follows(after *position) string {
	switch {
	case after == nil:
		return "1 = 1"
	case !after.Known:
		return fmt.Sprintf("(amount IS NULL AND id > %d)", after.ID)
	}
	return fmt.Sprintf("(amount IS NULL OR amount > %d OR (amount = %d AND id > %d))", after.Amount, after.Amount, after.ID)
}

func (p *pager) next(t *rapid.T, w *world) {
	limit := rapid.IntRange(1, 7).Draw(t, "limit")
	page, err := p.query.Page(t.Context(), w.m.All(), p.cursor, limit, gather.Options{})
	require.NoError(t, err)
	for _, m := range page.Rows {
		require.False(t, p.seen[m.ID], "row %d twice", m.ID)
		require.True(t, p.last == nil || p.query.Compare(*p.last, m) < 0, "in order")
		p.seen[m.ID] = true
		p.last = &m
	}
	if page.Next == "" {
		p.done = true
		return
	}
	require.Len(t, page.Rows, limit, "only the last page may be short")
	p.cursor = page.Next
}

// Pages neither lose nor repeat a row, whatever the topology does between them, and are
// not confused by rows that come and go.
func TestPagesSurviveTheTopology(t *testing.T) {
	for name, connect := range worlds {
		t.Run(name, func(t *testing.T) {
			w := connect(t)
			finished := 0
			rapid.Check(t, func(t *rapid.T) {
				w.reset(t)
				w.insert(t, rapid.IntRange(0, 40).Draw(t, "rows"))
				p := w.pager(t)
				t.Repeat(map[string]func(*rapid.T){
					"page": func(t *rapid.T) {
						if !p.done {
							p.next(t, w)
						}
					},
					"change": w.change,
					"insert": func(t *rapid.T) { w.insert(t, 2) },
					"remove": func(t *rapid.T) {
						if ids := column[int64](t, w.oracle.db, `SELECT id FROM everything ORDER BY id`); len(ids) > 0 {
							id := rapid.SampledFrom(ids).Draw(t, "id")
							w.remove(t, id)
							delete(p.stay, id)
						}
					},
				})
				for !p.done {
					p.next(t, w)
				}
				for id := range p.stay {
					require.True(t, p.seen[id], "row %d was there all the time", id)
				}
				finished += len(p.stay)
			})
			require.Positive(t, finished)
		})
	}
}
