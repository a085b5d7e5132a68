package gather

import (
	"errors"
	"fmt"
	"iter"
)

// ErrUnordered is yielded by [Merge], [MergeBatches] and [Stream] when a stream is
// not ordered by the comparison.
var ErrUnordered = errors.New("gather: stream is not ordered")

// Rows returns rows as a stream for [Merge]. It reads the slice as the stream
// advances and does not copy it.
func Rows[T any](rows []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, row := range rows {
			if !yield(row, nil) {
				return
			}
		}
	}
}

// Merge yields the rows of all streams in the order of compare, which is negative
// if a sorts before b, as for [slices.SortFunc]. Rows that compare equal come in
// the order of their streams, so the result does not depend on timing.
//
// Each stream must be ordered already. When one steps back, Merge yields
// [ErrUnordered] instead of the row, and ends. When a stream yields an error, Merge
// yields it as soon as it has yielded the row before it, and ends: what came before
// is right, and the result is torn. An error comes with a zero row and is always
// the last element.
//
// It is a tournament ("loser") tree: about log2(streams) comparisons a row. It
// starts no goroutine. It reads ahead of what it yields, in batches that double
// from 1 row to 64, so that the switch into a stream is paid once a batch and yet
// the first row waits for no second one. A row must therefore stay valid after its
// stream has gone on, and a stream that waits for its rows holds back up to 63 that
// it has given. Breaking out of the loop, or a panic, ends every stream where it
// stands. Streams are advanced one at a time: for queries that should run at once
// there is [Stream]. [MergeBatches] is faster where rows arrive in slices.
//
// Without streams the sequence is empty. It may be iterated again if the streams may.
// Distinct iterations are independent; compare must be safe for as many as run at
// once. A nil compare or stream panics when it is first needed.
func Merge[T any](compare func(a, b T) int, streams ...iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		t := newTree(compare, len(streams))
		for i, s := range streams {
			next, stop := iter.Pull2(batches(s))
			defer stop() // one defer each: a stream that panics as it ends does not keep the others
			t.leaves[i].refill = func() ([]T, error) {
				batch, err, _ := next()
				return batch, err
			}
		}
		t.merge(yield)
	}
}

// MergeBatches is [Merge] for rows that arrive in slices, as pages of a query do.
// Each function returns the next rows of its stream; no rows and no error is the
// end. It is not called again after that, nor after an error. Rows that come with an
// error are yielded before it.
//
// The slices that the functions return are not changed, and not used after the next call of
// the same function, so that each may fill one slice again and again. What the rows point
// to must last longer, until the next row of that stream has been yielded, because
// its order is checked against them. The first call of
// each comes in the order of the arguments, before the first row; the next when the
// last row of a batch has been yielded. The rest is as for Merge, above all what it
// says of order, of errors and of compare: where NULL sorts, a descending order and
// a collation are compare's to know. Breaking out of the loop calls nothing: the
// caller releases what the functions read from. The sequence can be iterated as
// often as the functions begin anew, which is usually once.
//
// It allocates a few words a stream and nothing a row.
func MergeBatches[T any](compare func(a, b T) int, in ...func() ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		t := newTree(compare, len(in))
		for i, next := range in {
			t.leaves[i].refill = next
		}
		t.merge(yield)
	}
}

// batches turns a stream into batches of 1, 2, 4 … 64 rows. The slice that it
// yields is valid until the next one is asked for. An error comes with the batch
// before it cut short, on its own.
func batches[T any](rows iter.Seq2[T, error]) iter.Seq2[[]T, error] {
	const some, most = 8, 64
	return func(yield func([]T, error) bool) {
		size := 1
		buf := make([]T, 0, some) // most streams of a page are short
		for row, err := range rows {
			if err != nil {
				if len(buf) == 0 || yield(buf, nil) {
					yield(nil, err)
				}
				return
			}
			if buf = append(buf, row); len(buf) < size {
				continue
			}
			if !yield(buf, nil) {
				return
			}
			if size = min(2*size, most); size > cap(buf) {
				buf = make([]T, 0, most)
			}
			buf = buf[:0]
		}
		if len(buf) > 0 {
			yield(buf, nil)
		}
	}
}

// tree is a tournament between the leaves: losers[p] is the loser of the match at
// the inner node p. Leaf i stands at position len(leaves)+i, and the parent of
// position p is p/2; the winner of all stands nowhere. The number -1 is a leaf that
// is exhausted, and loses to all.
type tree[T any] struct {
	compare func(a, b T) int
	heads   []T // heads[i] is the row of leaf i that plays, dense for the matches
	losers  []int
	leaves  []leaf[T]

	// unordered makes the error of a stream that steps back.
	unordered func(leaf int) error
}

// leaf is the reading end of one stream.
type leaf[T any] struct {
	refill func() ([]T, error)
	batch  []T // heads is a copy of batch[at]
	at     int
	err    error // came with batch
}

func newTree[T any](compare func(a, b T) int, k int) *tree[T] {
	return &tree[T]{
		compare: compare, heads: make([]T, k), losers: make([]int, k), leaves: make([]leaf[T], k),
		unordered: func(leaf int) error { return fmt.Errorf("%w: stream %d", ErrUnordered, leaf) },
	}
}

const exhausted = -1

// merge yields the rows of all leaves, and the error that ends them, if any.
func (t *tree[T]) merge(yield func(T, error) bool) {
	var none T
	w, err := t.build()
	for err == nil && w != exhausted {
		row := t.heads[w]
		if !yield(row, nil) {
			return
		}
		last, l := w, &t.leaves[w]
		if l.at++; l.at < len(l.batch) {
			t.heads[w] = l.batch[l.at]
		} else if w, err = t.fill(w); err != nil {
			break
		}
		// A row that steps back sorts before the one that was just yielded and so before
		// all heads: it wins. Only a leaf that wins twice running needs the check.
		if w = t.replay(last, w); w == last && t.compare(row, t.heads[w]) > 0 {
			err = t.unordered(w)
		}
	}
	if err != nil {
		yield(none, err)
	}
}

// fill reads the next batch of leaf i, after the last one is used up. It returns i,
// or exhausted.
func (t *tree[T]) fill(i int) (int, error) {
	l := &t.leaves[i]
	if l.err == nil {
		l.batch, l.err = l.refill()
		if l.at = 0; len(l.batch) > 0 {
			t.heads[i] = l.batch[0]
			return i, nil
		}
	}
	var none T
	t.heads[i], l.batch = none, nil
	return exhausted, l.err
}

// build fills all leaves and plays all matches. It returns the winner.
func (t *tree[T]) build() (winner int, err error) {
	k := len(t.leaves)
	if k == 0 {
		return exhausted, nil
	}
	winners := make([]int, 2*k)
	for i := range k {
		if winners[k+i], err = t.fill(i); err != nil {
			return exhausted, err
		}
	}
	for p := k - 1; p > 0; p-- {
		a, b := winners[2*p], winners[2*p+1]
		if t.before(b, a) {
			a, b = b, a
		}
		winners[p], t.losers[p] = a, b
	}
	return winners[1], nil // of a single leaf the leaf itself
}

// before reports whether leaf a beats leaf b.
func (t *tree[T]) before(a, b int) bool {
	if a == exhausted || b == exhausted {
		return b == exhausted
	}
	c := t.compare(t.heads[a], t.heads[b])
	return c < 0 || c == 0 && a < b
}

// replay plays the matches between leaf i and the root. The one that enters them is
// w: i, or exhausted. It returns the winner.
func (t *tree[T]) replay(i, w int) int {
	losers, heads, compare := t.losers, t.heads, t.compare
	for p := (i + len(losers)) / 2; p > 0; p /= 2 {
		l := losers[p]
		if l == exhausted {
			continue
		}
		if w == exhausted {
			losers[p], w = w, l
			continue
		}
		// Which of the two wins is a coin toss that no branch predictor can call:
		// written so that the compiler needs none.
		c := compare(heads[l], heads[w])
		if c == 0 {
			c = l - w
		}
		loser := l
		if c < 0 {
			loser, w = w, l
		}
		losers[p] = loser
	}
	return w
}
