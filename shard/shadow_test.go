package shard_test

import (
	"maps"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
)

func TestShadowJudgesCallsByTheNextMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		inUse := newMap(t, 1, anyTiles().Draw(t, "in use")...)
		next := newMap(t, 9, anyTiles().Draw(t, "next")...)
		r := newRouter(t, &nodes{}, inUse, shard.RouterOptions[*handle]{})
		s, err := r.Shadow(next)
		require.NoError(t, err)
		keys := rapid.SliceOfN(anyID(), 1, 4).Draw(t, "keys")
		shards, onNodes, moved := map[string]bool{}, map[string]bool{}, int64(0)
		for _, id := range keys {
			shards[next.Lookup(id).Name] = true
			onNodes[next.Lookup(id).Node] = true
			if next.Lookup(id).Node != inUse.Lookup(id).Node {
				moved = 1
			}
		}
		want, stats := shard.Scatter, shard.ShadowStats{Scatter: 1, Moved: moved}
		if len(shards) == 1 {
			want, stats = shard.SingleShard, shard.ShadowStats{SingleShard: 1, Moved: moved}
		} else if len(onNodes) == 1 {
			want, stats = shard.SameNode, shard.ShadowStats{SameNode: 1, Moved: moved}
		}
		require.Equal(t, want, s.Call("read", keys...))
		require.Equal(t, map[string]shard.ShadowStats{"read": stats}, maps.Collect(s.Report()))
		require.Same(t, inUse, r.Snapshot().Map())
	})
}

func TestACallWithoutKeysConcernsAllTheData(t *testing.T) {
	t.Parallel()
	left, right := parse(t, "-80"), parse(t, "80-")
	r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
	for want, next := range map[shard.Reach]*shard.Map{
		shard.SingleShard: one(t, 2, "a"),
		shard.SameNode:    newMap(t, 2, shard.Shard{Range: left, Node: "a"}, shard.Shard{Range: right, Node: "a"}),
		shard.Scatter:     newMap(t, 2, shard.Shard{Range: left, Node: "a"}, shard.Shard{Range: right, Node: "b"}),
	} {
		s, err := r.Shadow(next)
		require.NoError(t, err)
		require.Equal(t, want, s.Call("count"))
		for _, stats := range s.Report() {
			require.Equal(t, want == shard.Scatter, stats.Moved == 1)
			require.Equal(t, int64(1), stats.Calls())
		}
	}
	for _, bad := range []*shard.Map{nil, new(shard.Map)} {
		_, err := r.Shadow(bad)
		require.ErrorContains(t, err, "expected one with shards")
	}
}

func TestShadowCountsByNameFromManyGoroutines(t *testing.T) {
	t.Parallel()
	r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
	s, err := r.Shadow(one(t, 2, "b"))
	require.NoError(t, err)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				s.Call("write", 1)
				s.Call("read", 1, 2)
			}
		})
	}
	all.Wait()
	var names []string
	for name, stats := range s.Report() {
		names = append(names, name)
		require.Equal(t, shard.ShadowStats{SingleShard: 400, Moved: 400}, stats)
	}
	require.Equal(t, []string{"read", "write"}, names)
	for range s.Report() {
		break
	}
	require.Equal(t, "single-shard same-node scatter", shard.SingleShard.String()+" "+shard.SameNode.String()+" "+shard.Scatter.String())
}

// A call without keys has moved if any part does, not only the last.
func TestACallWithoutKeysMovesWithAnyPart(t *testing.T) {
	t.Parallel()
	a, b := parse(t, "-80"), parse(t, "80-")
	inUse := newMap(t, 1, shard.Shard{Range: a, Node: "a"}, shard.Shard{Range: b, Node: "b"})
	r := newRouter(t, &nodes{}, inUse, shard.RouterOptions[*handle]{})
	for name, c := range map[string]struct {
		shards []shard.Shard
		moved  int64
	}{
		"the first": {[]shard.Shard{{Range: a, Node: "c"}, {Range: b, Node: "b", Name: "renamed"}}, 1},
		"the last":  {[]shard.Shard{{Range: a, Node: "a", Name: "renamed"}, {Range: b, Node: "c"}}, 1},
		"none":      {[]shard.Shard{{Range: a, Node: "a", Name: "renamed"}, {Range: b, Node: "b"}}, 0},
	} {
		s, err := r.Shadow(newMap(t, 2, c.shards...))
		require.NoError(t, err)
		s.Call("count")
		for _, stats := range s.Report() {
			require.Equal(t, c.moved, stats.Moved, name)
		}
	}
}
