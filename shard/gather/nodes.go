package gather

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/evenkeel-go/evenkeel/shard"
)

// NodeResult is the answer of one node for its shards.
type NodeResult[R any] struct {
	Node   string
	Shards []*shard.Shard
	Value  R
}

// GatheredNodes is what [ScatterNodes] brings together.
type GatheredNodes[R any] struct {
	// Results are the answers, in the order in which the nodes were given.
	Results []NodeResult[R]

	// Failed are the shards of the calls that failed, in the same order. Those of one
	// call share one [*NodeError].
	Failed []ShardError

	// Missing are the parts of the ring without an answer, in ring order, adjoining
	// ones joined: the shards that failed and, when the call ended early, those that
	// were ended or never asked.
	Missing []shard.Range
}

// ScatterNodes is [Scatter] with one call for each node instead of each shard: fn is
// given the node and its shards, and asks for all of them at once (UNION ALL, a
// pipeline, several ranges in one WHERE). Where many logical shards share a
// database, that is several times cheaper. The nodes are usually
// [shard.Map.ByNode]; a node without shards is not called, and the slices are not
// changed.
//
// Options.MinFraction, Options.Quorum and [PartialError] count shards, so that a node
// weighs as much as it holds. Options.Concurrency, ShardTimeout, Bulkhead and Hedge are
// about calls: here of a node. All else is as for Scatter.
func ScatterNodes[R any](ctx context.Context, nodes iter.Seq2[string, []*shard.Shard], fn func(ctx context.Context, node string, shards []*shard.Shard) (R, error), o Options) (GatheredNodes[R], error) {
	if nodes == nil || fn == nil {
		return GatheredNodes[R]{}, errors.New("gather: nodes or fn is nil, expected a sequence and a function")
	}
	if err := o.validateScatter(); err != nil {
		return GatheredNodes[R]{}, err
	}
	var calls []call[R]
	for node, shards := range nodes {
		if i := slices.Index(shards, nil); i >= 0 {
			return GatheredNodes[R]{}, fmt.Errorf("gather: shard number %d of node %q is nil", i, node)
		}
		if len(shards) > 0 {
			calls = append(calls, call[R]{node: node, shards: shards})
		}
	}
	s, err := newScatter(ctx, calls, o)
	if err != nil {
		return GatheredNodes[R]{}, err
	}
	s.fn = func(ctx context.Context, c *call[R]) (R, error) { return fn(ctx, c.node, c.shards) }
	s.run()

	var g GatheredNodes[R]
	for i := range calls {
		switch c := &calls[i]; c.state {
		case answered:
			g.Results = append(g.Results, NodeResult[R]{c.node, c.shards, c.value})
		case failed:
			of := &NodeError{Node: c.node, Err: c.err}
			for _, s := range c.shards {
				g.Failed = append(g.Failed, ShardError{s, of})
			}
		}
	}
	g.Missing, err = s.outcome(g.Failed)
	return g, err
}
