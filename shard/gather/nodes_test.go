package gather_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// nodeMap is a map of n even shards that are dealt to the nodes in turns.
func nodeMap(t require.TestingT, n int, nodes ...string) *shard.Map {
	ranges, err := shard.EvenRanges(n)
	require.NoError(t, err)
	shards := make([]shard.Shard, n)
	for i, r := range ranges {
		shards[i] = shard.Shard{Range: r, Node: nodes[i%len(nodes)]}
	}
	m, err := shard.NewMap(1, shards...)
	require.NoError(t, err)
	return m
}

func TestScatterNodesMakesOneCallANode(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	m := nodeMap(t, 16, "a", "b", "c")
	g, err := gather.ScatterNodes(t.Context(), m.ByNode(), func(_ context.Context, node string, shards []*shard.Shard) (int, error) {
		calls.Add(1)
		for _, s := range shards {
			if s.Node != node {
				return 0, errors.New("foreign shard")
			}
		}
		return len(shards), nil
	}, gather.Options{})
	require.NoError(t, err)
	require.Equal(t, int64(3), calls.Load())
	require.Empty(t, g.Missing)
	seen := 0
	for i, r := range g.Results {
		require.Equal(t, []string{"a", "b", "c"}[i], r.Node)
		require.Len(t, r.Shards, r.Value)
		seen += r.Value
	}
	require.Equal(t, 16, seen)
}

func TestScatterNodesCountsShards(t *testing.T) {
	t.Parallel()
	// a has four of five shards, b one.
	ranges, err := shard.EvenRanges(5)
	require.NoError(t, err)
	shards := make([]shard.Shard, 5)
	for i, r := range ranges {
		shards[i] = shard.Shard{Range: r, Node: "a"}
	}
	shards[2].Node = "b"
	m, err := shard.NewMap(1, shards...)
	require.NoError(t, err)

	for _, c := range []struct {
		down     string
		fraction float64
		missing  []shard.Range
		answered int
		ok       bool
	}{
		{"a", 0.2, []shard.Range{{End: ranges[1].End}, {Start: ranges[3].Start}}, 1, true},
		{"a", 0.21, []shard.Range{{End: ranges[1].End}, {Start: ranges[3].Start}}, 1, false},
		{"b", 0.8, []shard.Range{ranges[2]}, 4, true},
		{"b", 0.81, []shard.Range{ranges[2]}, 4, false},
	} {
		g, err := gather.ScatterNodes(t.Context(), m.ByNode(), func(_ context.Context, node string, _ []*shard.Shard) (string, error) {
			if node == c.down {
				return "", errBoom
			}
			return node, nil
		}, gather.Options{MinFraction: c.fraction, Concurrency: 2})
		require.Equal(t, c.ok, err == nil, "%+v: %v", c, err)
		if c.ok {
			require.Equal(t, c.missing, g.Missing)
			require.Len(t, g.Failed, 5-c.answered)
			continue
		}
		partial, ok := errors.AsType[*gather.PartialError](err)
		require.True(t, ok)
		require.Equal(t, 5, partial.Asked)
		require.Len(t, partial.Failed, 5-c.answered)
		require.ErrorIs(t, err, errBoom)
	}
}

func TestScatterNodesFailsAllShardsOfANodeAsOne(t *testing.T) {
	t.Parallel()
	m := nodeMap(t, 6, "a", "b")
	_, err := gather.ScatterNodes(t.Context(), m.ByNode(), func(_ context.Context, node string, _ []*shard.Shard) (int, error) {
		if node == "b" {
			return 0, errBoom
		}
		return 1, nil
	}, gather.Options{})
	partial, ok := errors.AsType[*gather.PartialError](err)
	require.True(t, ok)
	require.Len(t, partial.Failed, 3)
	node, ok := errors.AsType[*gather.NodeError](err)
	require.True(t, ok)
	require.Equal(t, &gather.NodeError{Node: "b", Err: errBoom}, node)
	for _, f := range partial.Failed {
		require.Equal(t, "b", f.Shard.Node)
		require.Same(t, node, f.Err)
	}
	require.Contains(t, err.Error(), " of 6 shards answered: node b: boom (3 shards)")
}

func TestPartialErrorCountsCallsAndNotTheirShards(t *testing.T) {
	t.Parallel()
	e := &gather.PartialError{Asked: 12}
	for node, shards := range nodeMap(t, 12, "a", "b", "c", "d", "e").ByNode() {
		of := &gather.NodeError{Node: node, Err: errBoom}
		for _, s := range shards {
			e.Failed = append(e.Failed, gather.ShardError{Shard: s, Err: of})
		}
	}
	require.EqualError(t, e, "gather: 0 of 12 shards answered: node a: boom (3 shards); node b: boom (3 shards); node c: boom (2 shards); and 2 more")
}

func TestScatterNodesJoinsWhatIsMissingInRingOrder(t *testing.T) {
	t.Parallel()
	// The shards of a node do not adjoin, and a map of Go deals the nodes in any order.
	m := nodeMap(t, 8, "a", "b", "c", "d")
	byNode := maps.Collect(m.ByNode())
	g, err := gather.ScatterNodes(t.Context(), maps.All(byNode), func(_ context.Context, node string, _ []*shard.Shard) (int, error) {
		if node != "d" {
			return 0, errBoom
		}
		return 1, nil
	}, gather.Options{MinFraction: 0.1})
	require.NoError(t, err)
	require.Equal(t, []shard.Range{{End: 0x60 << 56}, {Start: 0x80 << 56, End: 0xe0 << 56}}, g.Missing)
}

// Shards of one's own making may contain one another.
func TestScatterJoinsWhatIsContained(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ ranges, want []shard.Range }{
		{[]shard.Range{{Start: 10, End: 20}, {End: 100}, {Start: 30, End: 40}}, []shard.Range{{End: 100}}},
		{[]shard.Range{{Start: 10, End: 20}, {Start: 5}, {Start: 30}}, []shard.Range{{Start: 5}}},
		{[]shard.Range{{Start: 10, End: 20}, {Start: 10, End: 30}, {Start: 31}, {End: 9}}, []shard.Range{{End: 9}, {Start: 10, End: 30}, {Start: 31}}},
	} {
		var shards []*shard.Shard
		for _, r := range c.ranges {
			shards = append(shards, &shard.Shard{Name: r.String(), Range: r})
		}
		_, err := gather.Scatter(t.Context(), slices.Values(shards), func(context.Context, *shard.Shard) (int, error) { return 0, errBoom }, gather.Options{})
		partial, ok := errors.AsType[*gather.PartialError](err)
		require.True(t, ok)
		require.Equal(t, c.want, partial.Missing)
	}
}

// A shard that is named twice is missing once.
func TestScatterJoinsWhatOverlaps(t *testing.T) {
	t.Parallel()
	list := slices.Collect(evenMap(t, 4).All())
	g, err := gather.Scatter(t.Context(), slices.Values([]*shard.Shard{list[3], list[1], list[3], list[1], list[0], list[2]}),
		func(_ context.Context, s *shard.Shard) (int, error) {
			if s.Node == "2" {
				return 0, nil
			}
			return 0, errBoom
		}, gather.Options{MinFraction: 0.1})
	require.NoError(t, err)
	require.Equal(t, []shard.Range{{End: 0x80 << 56}, {Start: 0xc0 << 56}}, g.Missing)
}

func TestScatterNodesCallsNoNodeWithoutShards(t *testing.T) {
	t.Parallel()
	nodes := func(yield func(string, []*shard.Shard) bool) { yield("empty", nil) }
	g, err := gather.ScatterNodes(t.Context(), nodes, func(context.Context, string, []*shard.Shard) (int, error) { panic("called") }, gather.Options{})
	require.NoError(t, err)
	require.Equal(t, gather.GatheredNodes[int]{}, g)
}

func TestScatterNodesPanicsWithItsFirstShard(t *testing.T) {
	t.Parallel()
	var recovered any
	func() {
		defer func() { recovered = recover() }()
		_, _ = gather.ScatterNodes(t.Context(), nodeMap(t, 4, "a", "b").ByNode(), func(_ context.Context, node string, _ []*shard.Shard) (int, error) {
			if node == "b" {
				panic(errBoom)
			}
			return 0, nil
		}, gather.Options{})
	}()
	p, ok := recovered.(*gather.PanicError)
	require.True(t, ok, "%v", recovered)
	require.Equal(t, "40-80", p.Shard.Name)
	require.ErrorIs(t, p, errBoom)
}

func TestScatterNodesRefusesNil(t *testing.T) {
	t.Parallel()
	never := func(context.Context, string, []*shard.Shard) (int, error) { panic("called") }
	m := nodeMap(t, 4, "a")
	for _, c := range []struct {
		nodes iter.Seq2[string, []*shard.Shard]
		fn    func(context.Context, string, []*shard.Shard) (int, error)
		o     gather.Options
	}{
		{nil, never, gather.Options{}},
		{m.ByNode(), nil, gather.Options{}},
		{maps.All(map[string][]*shard.Shard{"a": {nil}}), never, gather.Options{}},
	} {
		_, err := gather.ScatterNodes(t.Context(), c.nodes, c.fn, c.o)
		require.ErrorContains(t, err, "nil")
	}
	_, err := gather.ScatterNodes(t.Context(), m.ByNode(), never, gather.Options{Limit: 1})
	require.ErrorContains(t, err, "gather: Options.Limit is 1")
	_, err = gather.ScatterNodes(t.Context(), m.ByNode(), never, gather.Options{Quorum: 5})
	require.ErrorContains(t, err, "gather: Options.Quorum is 5, expected at most the number of shards that are asked, 4")
}

// hostile is an error that can neither be compared nor asked.
type hostile []int

func (hostile) Error() string            { panic("Error") }
func (hostile) Is(error) bool            { return false }
func (h hostile) Format(fmt.State, rune) { panic("Format") }

func TestScatterToleratesAHostileError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(hostile{1})
	for _, o := range []gather.Options{{}, {MinFraction: 0.5}} {
		_, err := gather.ScatterNodes(ctx, nodeMap(t, 4, "a", "b").ByNode(), func(context.Context, string, []*shard.Shard) (int, error) { panic("called") }, o)
		require.ErrorIs(t, err, context.Canceled)
		_, ok := errors.AsType[hostile](err)
		require.True(t, ok)
		require.NotEmpty(t, err.Error())

		g, err := gather.Scatter(t.Context(), evenMap(t, 4).All(), func(_ context.Context, s *shard.Shard) (int, error) {
			if s.Node == "0" || s.Node == "2" {
				return 0, hostile{2}
			}
			return 1, nil
		}, o)
		require.Equal(t, o.MinFraction > 0, err == nil)
		require.NotEmpty(t, g.Missing)
		if err != nil {
			require.NotEmpty(t, err.Error())
		}
	}
}
