package gather

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/evenkeel-go/evenkeel/shard"
)

// Result is the answer of one shard.
type Result[R any] struct {
	Shard *shard.Shard
	Value R
}

// Gathered is what [Scatter] brings together.
type Gathered[R any] struct {
	// Results are the answers, in the order in which the shards were given.
	Results []Result[R]

	// Failed are the calls that failed, in the same order.
	Failed []ShardError

	// Missing are the parts of the ring without an answer, in ring order, adjoining
	// ones joined: the shards that failed and, when the call ended early, those that
	// were ended or never asked.
	Missing []shard.Range
}

// Scatter calls fn once for each shard, several at a time, and returns the
// answers. The shards are those of one map, [shard.Map.All] or
// [shard.Map.Overlapping]; none at all is an empty answer and no error, unless
// Options.Quorum asks for more.
//
// Scatter returns when every call that it started has returned, so fn must obey
// its context; nothing is left running. As soon as too many have failed for
// Options.MinFraction to be reached, or enough have answered for Options.Quorum, the
// context of the others ends and no further one starts. An answer that fn gives after
// that, or after its timeout, still counts. A value that comes with an error does not.
//
// It returns a [*PartialError], together with what was gathered, when too few
// shards answered; the error holds the causes and never the cancellations that
// followed from them. It returns a plain error, before any call, if shards, one of them
// or fn is nil, or if a field of o is out of its range.
//
// When ctx ends, the calls in flight fail with what fn returns, and those not yet
// made with the error of ctx and its [context.Cause]. If enough shards have answered
// by then for Options.MinFraction, that is the answer, without an error.
//
// With Options.Bulkhead the calls start in any order: one whose node has room goes
// before one whose node has none. With Options.Hedge, fn may be called twice for a shard,
// at the same time; see [Hedge].
//
// If fn panics, Scatter ends the other calls and panics with a [*PanicError]; if
// it calls [runtime.Goexit], so does Scatter. It uses one goroutine fewer than
// the calls that may be in flight, since the caller's makes calls too; fn is called
// by several at once. It is safe for concurrent use.
func Scatter[R any](ctx context.Context, shards iter.Seq[*shard.Shard], fn func(context.Context, *shard.Shard) (R, error), o Options) (Gathered[R], error) {
	if shards == nil || fn == nil {
		return Gathered[R]{}, errors.New("gather: shards or fn is nil, expected a sequence and a function")
	}
	if err := o.validateScatter(); err != nil {
		return Gathered[R]{}, err
	}
	return scatterShards(ctx, shards, fn, o)
}

func scatterShards[R any](ctx context.Context, shards iter.Seq[*shard.Shard], fn func(context.Context, *shard.Shard) (R, error), o Options) (Gathered[R], error) {
	list, err := collect(shards)
	if err != nil {
		return Gathered[R]{}, err
	}
	calls := make([]call[R], len(list))
	for i := range list {
		calls[i].node, calls[i].shards = list[i].Node, list[i:i+1:i+1]
	}
	s, err := newScatter(ctx, calls, o)
	if err != nil {
		return Gathered[R]{}, err
	}
	s.fn = func(ctx context.Context, c *call[R]) (R, error) { return fn(ctx, c.shards[0]) }
	s.run()

	var g Gathered[R]
	for i := range calls {
		switch c := &calls[i]; c.state {
		case answered:
			g.Results = append(g.Results, Result[R]{c.shards[0], c.value})
		case failed:
			g.Failed = append(g.Failed, ShardError{c.shards[0], c.err})
		}
	}
	g.Missing, err = s.outcome(g.Failed)
	return g, err
}

// collect lists the shards, of which none may be nil.
func collect(shards iter.Seq[*shard.Shard]) ([]*shard.Shard, error) {
	list := slices.Collect(shards)
	if i := slices.Index(list, nil); i >= 0 {
		return nil, fmt.Errorf("gather: shard number %d is nil", i)
	}
	return list, nil
}
