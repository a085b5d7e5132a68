package gather

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"

	"github.com/evenkeel-go/evenkeel/shard"
)

// ErrTie is returned by [Query.Page] when its order does not tell two rows apart, so
// that a page which ends between them would lose one. Add a unique column to the
// order, in SQL and in Compare: ORDER BY created_at DESC, id DESC.
var ErrTie = errors.New("gather: rows that compare equal")

// Query is an ordered query over all shards that is read page by page. Where a page
// ended is a position in key space, the columns of the order of its last row, and the
// next page is what follows it on each shard (keyset pagination). A cursor therefore
// says nothing about shards, and outlives splits, merges and moves between pages; and
// page 1000 costs what the first does, where an OFFSET would make every shard read all
// that came before.
//
// T is a row and P its position. All fields must be set, and are not changed. A Query
// is safe for concurrent use.
type Query[T, P any] struct {
	// Cursors signs what clients carry from page to page.
	Cursors *Cursors

	// Fingerprint describes the filter and the order, values included, and the layout of
	// P: "messages of channel 7 by id desc, v1". A cursor is good for queries of the same
	// fingerprint only; without the filter's values in it, a client might take the cursor of
	// one channel to another.
	Fingerprint string

	// Compare is the order of the rows, negative if a sorts before b. It must tell all
	// rows apart.
	Compare func(a, b T) int

	// Position returns where a row stands in the order: the values of its columns, the
	// unique one included.
	//
	// A position travels as JSON by [encoding/json], which must be exact. Whole numbers,
	// booleans, finite floating-point numbers and [time.Time] (to the nanosecond, without
	// its location, in UTC or a zone of whole minutes) are. Text that is not UTF-8 is not, and is an error: use []byte. So are types
	// that lose something: interfaces; fields that are not exported, are excluded by their tag,
	// share a name or leave out what is empty but not nil; and types that marshal themselves but
	// do not unmarshal, or by a field that is embedded.
	Position func(T) P

	// Fetch returns the first rows of one shard after a position, which is nil for the
	// first page, in order and at most limit: SELECT … WHERE (filter) AND (created_at,
	// id) < (…) AND hash BETWEEN … ORDER BY created_at DESC, id DESC LIMIT …. A shard that
	// has as many must return as many, since fewer mean that it has no more. The bounds
	// of the shard's range keep rows that a move left behind out of sight. It is called
	// for several shards at once.
	Fetch func(ctx context.Context, s *shard.Shard, after *P, limit int) ([]T, error)
}

// Page is one page of a [Query].
type Page[T any] struct {
	Rows []T

	// Next is the cursor of the next page, and empty if there were no more rows.
	Next string
}

// Page returns up to limit rows after the cursor; the empty cursor is the start. It
// asks each shard for limit+1 rows, several at once as [Scatter] does, and merges them.
// Shards may be those of another map each time.
//
// For rows that stay as they are, the pages together are all rows, each once and in
// order, whatever happens to the shards in between. A row that appears before the
// position is not seen, one after it is; one that changes its position may be
// seen twice or never, which no cursor can mend.
//
// A page needs every shard, for the rows that a missing one has before the end of the
// page would be skipped for good: Options.MinFraction must be 0 or 1, Quorum and
// Limit 0. It returns no rows with an error: that of Scatter, a [*PartialError]
// for one, as it is; [ErrBadCursor] or [ErrForeignCursor]; [ErrUnordered] if a shard's
// rows are not in the order of Compare; [ErrTie] if two of them compare equal, or the
// first has the position after which Fetch was to begin; and plain ones that name a field
// or argument that is not as expected.
func (q Query[T, P]) Page(ctx context.Context, shards iter.Seq[*shard.Shard], cursor string, limit int, o Options) (Page[T], error) {
	if err := q.check(limit, o); err != nil {
		return Page[T]{}, err
	}
	var position []byte
	if cursor != "" {
		var err error
		if position, err = q.Cursors.Open(q.Fingerprint, cursor); err != nil {
			return Page[T]{}, err
		}
		if _, err = decodePosition[P](position); err != nil {
			return Page[T]{}, err
		}
	}
	found, err := Scatter(ctx, shards, func(ctx context.Context, s *shard.Shard) ([]T, error) {
		var after *P
		if position != nil { // one for each, down to what it points to
			var err error
			if after, err = decodePosition[P](position); err != nil {
				return nil, err
			}
		}
		return q.Fetch(ctx, s, after, limit+1)
	}, o)
	if err != nil {
		return Page[T]{}, err
	}
	if len(found.Results) == 0 {
		return Page[T]{}, errors.New("gather: no shards, expected one or more: a page of none would look like the last")
	}
	rows, more, err := q.merge(found.Results, limit)
	if err != nil {
		return Page[T]{}, err
	}
	if err := q.checkFirst(rows, position); err != nil {
		return Page[T]{}, err
	}
	page := Page[T]{Rows: rows}
	if more {
		page.Next, err = q.Cursor(rows[len(rows)-1])
	}
	if err != nil {
		return Page[T]{}, err
	}
	return page, nil
}

// All yields all rows after the cursor, in order, by asking for pages of size rows. It
// iterates shards once for each page, so a sequence that reads the current map of a
// router each time follows its splits. No query is open and nothing is held between pages,
// so the consumer may take its time or stop anywhere; [Query.Cursor] of the last row is
// where to go on. An error comes with a zero row, as the last element, and is one of
// those of [Query.Page].
func (q Query[T, P]) All(ctx context.Context, shards iter.Seq[*shard.Shard], cursor string, size int, o Options) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var last T
		for next, n := cursor, 0; ; n++ {
			page, err := q.Page(ctx, shards, next, size, o)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			if n > 0 && len(page.Rows) > 0 && q.Compare(last, page.Rows[0]) >= 0 {
				var none T
				yield(none, fmt.Errorf("%w: page %d does not follow the one before, expected Fetch to begin after the position", ErrUnordered, n))
				return
			}
			for _, row := range page.Rows {
				last = row
				if !yield(row, nil) {
					return
				}
			}
			if next = page.Next; next == "" {
				return
			}
		}
	}
}

// Cursor returns the cursor of what follows a row. It returns an error if the
// position does not travel exactly, or is longer than about 3,000 bytes.
func (q Query[T, P]) Cursor(row T) (string, error) {
	if q.Cursors == nil || q.Position == nil || q.Fingerprint == "" {
		return "", errIncompleteQuery
	}
	position, err := encodePosition(q.Position(row))
	if err != nil {
		return "", err
	}
	return q.Cursors.Seal(q.Fingerprint, position)
}

var errIncompleteQuery = errors.New("gather: a field of Query is not set, expected all of them")

func (q Query[T, P]) check(limit int, o Options) error {
	switch {
	case q.Cursors == nil || q.Fingerprint == "" || q.Compare == nil || q.Position == nil || q.Fetch == nil:
		return errIncompleteQuery
	case limit < 1 || limit == math.MaxInt:
		return fmt.Errorf("gather: limit is %d, expected 1 to %d", limit, math.MaxInt-1)
	case o.MinFraction != 0 && o.MinFraction != 1:
		return fmt.Errorf("gather: Options.MinFraction is %v, expected 0 or 1 for a page, which would skip what is missing", o.MinFraction)
	case o.Quorum != 0:
		return fmt.Errorf("gather: Options.Quorum is %d, expected 0 for a page, which would skip what is missing", o.Quorum)
	}
	return checkPositionType[P]()
}

// merge returns the first limit rows of all shards and whether there are more.
func (q Query[T, P]) merge(results []Result[[]T], limit int) (rows []T, more bool, err error) {
	streams := make([]iter.Seq2[T, error], len(results))
	for i, r := range results {
		streams[i] = Rows(r.Value)
	}
	n := 0
	var last T
	for row, err := range Merge(q.Compare, streams...) {
		if err != nil {
			return nil, false, err
		}
		// Not only at the end of the page: the sooner it is found the better.
		if n > 0 && q.Compare(last, row) == 0 {
			return nil, false, fmt.Errorf("%w: rows %d and %d of the page", ErrTie, n-1, n)
		}
		if n == limit {
			return rows, true, nil
		}
		rows = append(rows, row)
		last = row
		n++
	}
	return rows, false, nil
}

// checkFirst refuses a first row that stands at the position itself: a Fetch that
// compares with <= would repeat it.
func (q Query[T, P]) checkFirst(rows []T, position []byte) error {
	if len(rows) == 0 || position == nil {
		return nil
	}
	first, err := encodePosition(q.Position(rows[0]))
	if err == nil && bytes.Equal(first, position) {
		err = fmt.Errorf("%w: the first row is at the position of the cursor, expected Fetch to begin after it", ErrTie)
	}
	return err
}
