package gather_test

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// nodeTables are the rows that each node holds: those of its shards and, in and after a
// move, copies of others.
type nodeTables map[string][]shard.ID

// in is what a query with the ranges of shards in its WHERE finds at a node.
func (n nodeTables) in(node string, shards ...*shard.Shard) (rows []shard.ID) {
	for _, id := range n[node] {
		if slices.ContainsFunc(shards, func(s *shard.Shard) bool { return s.Range.Contains(id) }) {
			rows = append(rows, id)
		}
	}
	slices.Sort(rows)
	return rows
}

// asked are the rows of all nodes as each kind of scatter finds them.
func (n nodeTables) asked(t *rapid.T, m *shard.Map) map[string][]shard.ID {
	all := map[string][]shard.ID{"scatter": nil, "nodes": nil, "stream": nil}
	g, err := gather.Scatter(t.Context(), m.All(), func(_ context.Context, s *shard.Shard) ([]shard.ID, error) {
		return n.in(s.Node, s), nil
	}, gather.Options{})
	require.NoError(t, err)
	for _, r := range g.Results {
		all["scatter"] = append(all["scatter"], r.Value...)
	}
	byNode, err := gather.ScatterNodes(t.Context(), m.ByNode(), func(_ context.Context, node string, shards []*shard.Shard) ([]shard.ID, error) {
		return n.in(node, shards...), nil
	}, gather.Options{})
	require.NoError(t, err)
	for _, r := range byNode.Results {
		all["nodes"] = append(all["nodes"], r.Value...)
	}
	for id, err := range gather.Stream(t.Context(), m.All(), cmp.Compare[shard.ID], func(_ context.Context, s *shard.Shard) iter.Seq2[shard.ID, error] {
		return gather.Rows(n.in(s.Node, s))
	}, gather.Options{}) {
		require.NoError(t, err)
		all["stream"] = append(all["stream"], id)
	}
	return all
}

// Each row is seen once at every step of splits and moves: while it is copied, after the map has
// changed, and while what was left behind is still there.
func TestScatterSeesEachRowOnceThroughMoves(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) shard.ID { return shard.ID(rapid.Uint64().Draw(t, "id")) }), 0, 40, rapid.ID).Draw(t, "ids")
		slices.Sort(ids)
		m := nodeMap(t, rapid.IntRange(1, 8).Draw(t, "shards"), "0")
		tables := nodeTables{"0": slices.Clone(ids)}
		whole := func(when string) {
			for kind, rows := range tables.asked(t, m) {
				slices.Sort(rows)
				require.True(t, slices.Equal(ids, rows), "%s, %s: %v", kind, when, rows)
			}
		}
		for step := range rapid.IntRange(1, 6).Draw(t, "moves") {
			cut := shard.ID(rapid.Uint64Min(1).Draw(t, "cut"))
			if moved := m.Lookup(cut); moved.Range.Start != cut {
				next, err := m.Split(moved.Name, cut)
				require.NoError(t, err)
				m = next
				whole("a shard is split")
			}
			moved := m.Lookup(cut)
			to := fmt.Sprint(step + 1)
			for _, id := range tables[moved.Node] {
				if moved.Range.Contains(id) {
					tables[to] = append(tables[to], id)
					whole("a row is copied")
				}
			}
			next, err := m.Move(moved.Name, to)
			require.NoError(t, err)
			m = next
			whole("the map has changed")
			if rapid.Bool().Draw(t, "clean up") {
				tables[moved.Node] = slices.DeleteFunc(tables[moved.Node], moved.Range.Contains)
				whole("the source is cleaned up")
			}
		}
	})
}
