package gather

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/evenkeel-go/evenkeel/shard"
)

var (
	// ErrOverflow is returned by [Sum], [Count], [Avg] and the variances when a sum
	// does not fit its type.
	ErrOverflow = errors.New("gather: overflow")

	// ErrBadPart is returned by a fold for a part that no rows can have, such as a
	// negative count.
	ErrBadPart = errors.New("gather: bad part")

	errIncompleteFold = errors.New("gather: a field of Fold is nil, expected three functions")
)

// Fold is an aggregate that is computed in parts: each shard folds its own rows, in
// SQL most often, into a part P, and the parts combine into the result R. [Sum],
// [Count], [Min], [Max], [Avg], [VarPop], [VarSamp], [TopK] and [Distinct] are folds,
// and [GroupBy] turns each of them into one by group.
//
// With Zero as its neutral element Combine must be associative (a monoid), so that how
// the rows are spread over shards does not show: the fold of the parts is the fold of
// all rows. It is why the parts of [Avg] are sums and counts, and never averages.
//
// A Fold whose functions are those of this package holds no state and is safe for
// concurrent use.
type Fold[P, R any] struct {
	// Zero returns the part of no rows, a new one each time.
	Zero func() P

	// Combine adds part to into and returns the sum. It owns into, which it may
	// change and return; after an error into is of no more use. It must not change
	// part, nor keep what of it could change.
	Combine func(into, part P) (P, error)

	// Final turns the part of all rows into the result. It owns its argument.
	Final func(P) (R, error)
}

func (f Fold[P, R]) complete() bool { return f.Zero != nil && f.Combine != nil && f.Final != nil }

// Reduce combines parts in the order in which they come and returns the result: that
// of Zero if there are none. A sum of floating-point numbers depends on that order, so
// give the parts in the order of their shards, as [Aggregate] does, and the same rows
// give the same result. It returns the error of f, as it is, and a plain one if
// parts or a field of f is nil.
func Reduce[P, R any](f Fold[P, R], parts iter.Seq[P]) (R, error) {
	var none R
	if !f.complete() {
		return none, errIncompleteFold
	}
	if parts == nil {
		return none, errors.New("gather: parts is nil, expected a sequence")
	}
	into := f.Zero()
	for part := range parts {
		var err error
		if into, err = f.Combine(into, part); err != nil {
			return none, err
		}
	}
	return f.Final(into)
}

// Aggregate asks every shard for its part, as [Scatter] does, and returns the fold of
// the parts in the order of the shards. Fn usually runs one aggregate query, bounded to
// the rows of the shard's range.
//
// If o is content with less than all shards, the result is that of the parts that
// came, and found.Missing names the parts of the ring that it lacks. The found.Results
// are the parts. An error of Scatter, a [*PartialError] for one, is returned as it
// is; an error of the fold names the shard whose part it refused. In both cases the
// result is the zero R and found holds what was gathered.
//
// It costs what Scatter costs, and a Combine for each shard on the caller's goroutine.
// It is safe for concurrent use.
func Aggregate[P, R any](ctx context.Context, shards iter.Seq[*shard.Shard], f Fold[P, R], fn func(context.Context, *shard.Shard) (P, error), o Options) (result R, found Gathered[P], err error) {
	if !f.complete() {
		return result, found, errIncompleteFold
	}
	if found, err = Scatter(ctx, shards, fn, o); err != nil {
		return result, found, err
	}
	result, err = combine(f, len(found.Results), func(i int) (P, string) {
		return found.Results[i].Value, "shard " + found.Results[i].Shard.Name
	})
	return result, found, err
}

// AggregateNodes is [Aggregate] with one call for each node, as [ScatterNodes] makes it: fn
// returns the part of all the node's shards, by one query. The parts are combined in the
// order of the nodes.
func AggregateNodes[P, R any](ctx context.Context, nodes iter.Seq2[string, []*shard.Shard], f Fold[P, R], fn func(ctx context.Context, node string, shards []*shard.Shard) (P, error), o Options) (result R, found GatheredNodes[P], err error) {
	if !f.complete() {
		return result, found, errIncompleteFold
	}
	if found, err = ScatterNodes(ctx, nodes, fn, o); err != nil {
		return result, found, err
	}
	result, err = combine(f, len(found.Results), func(i int) (P, string) {
		return found.Results[i].Value, "node " + found.Results[i].Node
	})
	return result, found, err
}

// combine folds n parts. An error of Combine names whose part it was about.
func combine[P, R any](f Fold[P, R], n int, part func(int) (_ P, whose string)) (R, error) {
	var none R
	into := f.Zero()
	for i := range n {
		p, whose := part(i)
		var err error
		if into, err = f.Combine(into, p); err != nil {
			return none, fmt.Errorf("gather: part of %s: %w", whose, err)
		}
	}
	result, err := f.Final(into)
	if err != nil {
		return none, err
	}
	return result, nil
}

// GroupBy folds each group by f: SELECT key, … GROUP BY key. A part maps each group
// that a shard has to its part of it, and the result has every group that any shard
// has. A key that is not equal to itself, as a NaN, makes a new group each time.
//
// An error of f is returned with its group. It costs a map look-up and a Combine for
// each group of each part. All groups of all shards are held in memory.
func GroupBy[K comparable, P, R any](f Fold[P, R]) Fold[map[K]P, map[K]R] {
	return Fold[map[K]P, map[K]R]{
		Zero: func() map[K]P { return map[K]P{} },
		Combine: func(into, part map[K]P) (map[K]P, error) {
			if !f.complete() {
				return nil, errIncompleteFold
			}
			for k, p := range part {
				group, ok := into[k]
				if !ok {
					group = f.Zero() // and not p itself, which Combine would change later
				}
				sum, err := f.Combine(group, p)
				if err != nil {
					return nil, fmt.Errorf("gather: group %v: %w", k, err)
				}
				into[k] = sum
			}
			return into, nil
		},
		Final: func(all map[K]P) (map[K]R, error) {
			results := make(map[K]R, len(all))
			for k, p := range all {
				r, err := f.Final(p)
				if err != nil {
					return nil, fmt.Errorf("gather: group %v: %w", k, err)
				}
				results[k] = r
			}
			return results, nil
		},
	}
}
