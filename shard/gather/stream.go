package gather

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"

	"github.com/evenkeel-go/evenkeel/shard"
)

// ErrBulkheadTooSmall is yielded by [Stream] when a node has more shards than its
// [Bulkhead] lets in, so that the queries could never all be open.
var ErrBulkheadTooSmall = errors.New("gather: bulkhead is too small for an ordered stream")

// Stream asks all shards and yields their rows merged in the order of
// compare, as [Merge] does with streams: rows that compare equal come in the order in
// which the shards were given. fn starts the query of one shard and yields its rows in
// that order; it is called when the sequence is iterated, and each iteration asks
// anew. Its rows must stay valid after the next one is asked for.
//
// With Options.Limit each shard is read up to that many rows, completely, before the first
// row is yielded: at most Options.Concurrency at once, each of them done with its
// connection when it has been read, and all of them before the loop's body runs. So any
// number of shards can share a pool of one connection. Put the same limit into the
// query. It holds Limit rows of every shard at most.
//
// Without a limit the queries of all shards must be open at once, since any of them may
// have the next row: a pool that has fewer connections than its node has shards
// would wait for ever, and a Bulkhead that does is refused with [ErrBulkheadTooSmall].
// Its slots are taken for all shards before the first query starts, and given back
// as each ends. A goroutine for each shard reads ahead of the merge; at most 128 rows of
// a shard are held, 64 that were handed to the merge and 64 that follow. The loop's body must
// not start anything that waits for the same connections.
//
// A shard that fails before its first row, or with a limit at any row, counts as one
// that did not answer. If the others are enough for Options.MinFraction, the stream goes on
// without it and ends with a [*PartialError], so that an incomplete stream never looks
// whole; if not, that error is the only element. A shard that fails after a
// row of it was read, or is not ordered, tears the stream: it ends at once with a
// PartialError that has Torn set, whatever the MinFraction. What was yielded before is
// right. An fn that ends early because its context has ended must yield an error; one that
// yields none after that is taken to have failed. Options that Stream does not take,
// Quorum, and Hedge without a limit, or that are out of range, are a plain error. An error comes with a zero
// row and is always the last element.
//
// Breaking out of the loop, a panic in its body or the end of ctx ends the context of
// all queries; the loop is left when all of them have returned, and nothing is left
// running. Rows that were read before ctx ended may still come, and if they are all there
// are, no error follows. If fn or its sequence panics, Stream panics with a [*PanicError] on the
// goroutine of the loop; if it calls [runtime.Goexit], so does Stream. Its calls run on
// goroutines of their own, several at once. Distinct iterations are independent.
func Stream[T any](ctx context.Context, shards iter.Seq[*shard.Shard], compare func(a, b T) int, fn func(ctx context.Context, s *shard.Shard) iter.Seq2[T, error], o Options) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		if shards == nil || compare == nil || fn == nil {
			yield(none, errors.New("gather: shards, compare or fn is nil, expected a sequence and two functions"))
			return
		}
		if err := o.validateStream(); err != nil {
			yield(none, err)
			return
		}
		list, err := collect(shards)
		if err != nil {
			yield(none, err)
			return
		}
		if o.Limit > 0 {
			more, err := limited(ctx, list, compare, fn, o, yield)
			if err != nil && more {
				yield(none, err)
			}
			return
		}
		s, err := newStream(ctx, list, fn, o)
		if err != nil {
			yield(none, err)
			return
		}
		if more := s.run(compare, yield); more {
			if err := s.outcome(); err != nil {
				yield(none, err)
			}
		}
	}
}

// limited reads the first rows of all shards and merges them. It returns whether the loop
// goes on and what is to be yielded last.
func limited[T any](ctx context.Context, list []*shard.Shard, compare func(a, b T) int, fn func(context.Context, *shard.Shard) iter.Seq2[T, error], o Options, yield func(T, error) bool) (more bool, last error) {
	limit := o.Limit
	g, err := scatterShards(ctx, slices.Values(list), func(ctx context.Context, s *shard.Shard) ([]T, error) {
		return firstRows(ctx, fn(ctx, s), limit)
	}, o)
	if err != nil {
		return true, err
	}
	partial := &PartialError{Failed: g.Failed, Missing: g.Missing, Asked: len(list), Answered: len(g.Results)}

	t := newTree(compare, len(g.Results))
	ended := make([]bool, len(g.Results))
	for i, r := range g.Results {
		rows := r.Value
		t.leaves[i].refill = func() ([]T, error) {
			batch := rows
			rows, ended[i] = nil, batch == nil
			return batch, nil
		}
	}
	t.unordered = func(i int) error {
		partial.Failed = append(partial.Failed, ShardError{g.Results[i].Shard, ErrUnordered})
		partial.Torn, partial.Answered = true, 0
		for j, r := range g.Results {
			if ended[j] {
				partial.Answered++
			} else {
				partial.Missing = append(partial.Missing, r.Shard.Range)
			}
		}
		partial.Missing = joined(partial.Missing)
		return partial
	}
	more = true
	t.merge(func(row T, err error) bool {
		if err != nil {
			return false // partial itself
		}
		more = yield(row, nil)
		limit--
		return more && limit > 0
	})
	if len(partial.Failed) == 0 {
		return more, nil
	}
	return more, partial
}

// firstRows reads a stream up to a limit.
func firstRows[T any](ctx context.Context, stream iter.Seq2[T, error], limit int) ([]T, error) {
	var rows []T
	for row, err := range stream {
		if err != nil {
			return nil, err
		}
		if rows = append(rows, row); len(rows) == limit {
			return rows, nil
		}
		if err := ended(ctx); err != nil {
			return nil, err // whether or not fn looks
		}
	}
	return rows, ended(ctx) // of a stream cut short, an error would have said nothing
}

// run merges the rows of all shards. It reports whether the loop goes on, and has
// ended all readers when it returns, panics or exits.
func (s *stream[T]) run(compare func(a, b T) int, yield func(T, error) bool) (more bool) {
	finished := false
	defer func() {
		s.cancel()
		s.running.Wait()
		switch {
		case !finished: // the loop's own panic is on its way
		case s.panic != nil:
			panic(s.panic)
		case s.goexit:
			runtime.Goexit()
		}
	}()
	t := newTree(compare, len(s.readers))
	for i := range s.readers {
		r := &s.readers[i]
		t.leaves[i].refill = func() ([]T, error) { return s.next(r) }
		s.running.Go(func() { s.read(r) })
	}
	t.unordered = func(i int) error {
		s.fail(&s.readers[i], ErrUnordered)
		return errStopped
	}
	more = true
	t.merge(func(row T, err error) bool {
		if err != nil {
			return false // errStopped
		}
		more = yield(row, nil)
		return more
	})
	finished = true
	return more
}

// outcome tells, after run, what the stream lacks.
func (s *stream[T]) outcome() error {
	p := &PartialError{Asked: len(s.readers), Torn: s.torn}
	for i := range s.readers {
		r := &s.readers[i]
		if r.err != nil {
			p.Failed = append(p.Failed, ShardError{r.shard, r.err})
		}
		if r.err != nil || s.torn && !r.yielded || !r.answered {
			p.Missing = append(p.Missing, r.shard.Range)
		} else {
			p.Answered++
		}
	}
	if len(p.Failed) == 0 {
		return nil
	}
	p.Missing = joined(p.Missing)
	return p
}

// reserve takes the slots of all shards. It takes those of a node at once, and the
// nodes in one order that all streams keep to, so that no two can hold what the other
// waits for.
func reserve(ctx context.Context, b *Bulkhead, list []*shard.Shard) error {
	shards := slices.Clone(list)
	slices.SortStableFunc(shards, func(a, b *shard.Shard) int { return cmp.Compare(a.Node, b.Node) })
	type need struct {
		node string
		n    int
	}
	var needs []need
	for i, s := range shards {
		if i == 0 || s.Node != shards[i-1].Node {
			needs = append(needs, need{node: s.Node})
		}
		needs[len(needs)-1].n++
	}
	for _, want := range needs {
		if want.n > b.perNode() {
			return fmt.Errorf("%w: node %q has %d shards and Bulkhead.PerNode is %d", ErrBulkheadTooSmall, want.node, want.n, b.perNode())
		}
	}
	q := newQueuer()
	defer b.leave(q)
	for i, want := range needs {
		if _, err := b.acquire(ctx, q, want.n, want.node); err != nil {
			for _, held := range needs[:i] {
				b.release(held.node, held.n)
			}
			p := &PartialError{Asked: len(list)}
			for _, s := range list {
				p.Failed = append(p.Failed, ShardError{s, ended(ctx)})
				p.Missing = append(p.Missing, s.Range)
			}
			p.Missing = joined(p.Missing)
			return p
		}
	}
	return nil
}
