package gather

import (
	"errors"
	"fmt"
	"iter"
)

// ErrUnordered is yielded by [Merge] when a stream is not ordered by the
// comparison.
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
// Each stream must be ordered already. Merge compares every row with the one
// before it and, when a stream steps back, yields [ErrUnordered] and ends. When a
// stream yields an error, Merge yields it as soon as it has yielded the row before
// it, and ends: what came before is right, and the result is torn. An error comes
// with a zero row and is always the last element.
//
// It is a tournament ("loser") tree: about log2(streams) comparisons a row. It
// starts no goroutine. It reads ahead of what it yields, in batches that double
// from 1 row to 64, so that the switch into a stream is paid once a batch and yet
// the first row waits for no second one. A row must therefore stay valid after its
// stream has gone on, and a stream that waits for its rows holds back up to 63 that
// it has given. Breaking out of the loop, or a panic, ends every stream where it
// stands. Streams are advanced one at a time: for queries that should run at once,
// start them with [Scatter].
//
// Without streams the sequence is empty. It may be iterated again if the streams may.
// Distinct iterations are independent; compare must be safe for as many as run at
// once. A nil compare or stream panics when it is first needed.
func Merge[T any](compare func(a, b T) int, streams ...iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if len(streams) == 0 {
			return
		}
		t := &tree[T]{compare: compare, leaves: make([]leaf[T], len(streams)), losers: make([]int, len(streams))}
		for i, s := range streams {
			next, stop := iter.Pull2(batches(s))
			defer stop() // one defer each: a stream that panics as it ends does not keep the others
			t.leaves[i].next = next
			t.leaves[i].refill()
		}
		t.build()
		t.run(yield)
	}
}

// leaf is the reading end of one stream.
type leaf[T any] struct {
	next func() ([]T, error, bool)

	batch []T   // rows read and not yielded; batch[0] plays in the tree
	err   error // what ends the stream, once batch is empty
}

// exhausted reports that the leaf has neither a row nor an error.
func (l *leaf[T]) exhausted() bool { return len(l.batch) == 0 && l.err == nil }

// refill reads the next batch, after the last one is used up.
func (l *leaf[T]) refill() { l.batch, l.err, _ = l.next() }

// batches turns a stream into batches of 1, 2, 4 … 64 rows. The slice that it
// yields is valid until the next one is asked for. An error comes with the batch
// before it cut short, on its own.
func batches[T any](rows iter.Seq2[T, error]) iter.Seq2[[]T, error] {
	const most = 64
	return func(yield func([]T, error) bool) {
		size := 1
		buf := make([]T, 0, size)
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
			size = min(2*size, most)
			buf = buf[:0]
		}
		if len(buf) > 0 {
			yield(buf, nil)
		}
	}
}

// tree is a tournament between the leaves: losers[0] is the leaf whose row comes
// next, losers[1:] the loser of the match at each inner node. Leaf i stands at
// position len(leaves)+i, and the parent of position p is p/2.
type tree[T any] struct {
	compare func(a, b T) int
	leaves  []leaf[T]
	losers  []int
}

// before reports whether leaf a beats leaf b. A leaf that has failed beats all: an
// error waits for no row. One that is exhausted loses to all.
func (t *tree[T]) before(a, b int) bool {
	x, y := &t.leaves[a], &t.leaves[b]
	if len(x.batch) == 0 || len(y.batch) == 0 {
		switch {
		case x.exhausted():
			return false
		case y.exhausted():
			return true
		default:
			return len(x.batch) == 0 && (len(y.batch) != 0 || a < b)
		}
	}
	c := t.compare(x.batch[0], y.batch[0])
	return c < 0 || c == 0 && a < b
}

// build plays all matches.
func (t *tree[T]) build() {
	k := len(t.leaves)
	winners := make([]int, 2*k)
	for i := range k {
		winners[k+i] = i
	}
	for p := k - 1; p > 0; p-- {
		a, b := winners[2*p], winners[2*p+1]
		if t.before(b, a) {
			a, b = b, a
		}
		winners[p], t.losers[p] = a, b
	}
	t.losers[0] = winners[1] // for k == 1 that is leaf 0
}

// replay plays the matches between the changed leaf w and the root.
func (t *tree[T]) replay(w int) {
	for p := (w + len(t.leaves)) / 2; p > 0; p /= 2 {
		if t.before(t.losers[p], w) {
			t.losers[p], w = w, t.losers[p]
		}
	}
	t.losers[0] = w
}

func (t *tree[T]) run(yield func(T, error) bool) {
	var none T
	for {
		w := t.losers[0]
		l := &t.leaves[w]
		if len(l.batch) == 0 {
			if l.err != nil {
				yield(none, l.err)
			}
			return
		}
		row := l.batch[0]
		if !yield(row, nil) {
			return
		}
		if l.batch = l.batch[1:]; len(l.batch) == 0 {
			l.refill()
		}
		if len(l.batch) > 0 && t.compare(row, l.batch[0]) > 0 {
			yield(none, fmt.Errorf("%w: stream %d", ErrUnordered, w))
			return
		}
		t.replay(w)
	}
}
