package gather_test

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// A Fetch that forgets its position, or compares the wrong way round.
func TestAllEndsIfFetchForgetsItsPosition(t *testing.T) {
	s := &store{rows: []message{{1, 1}, {1, 2}, {1, 3}, {1, 4}, {1, 5}}}
	q := s.query(t)
	q.Fetch = func(ctx context.Context, of *shard.Shard, _ *message, limit int) ([]message, error) {
		return s.fetch(ctx, of, nil, limit)
	}
	n := 0
	for _, err := range q.All(t.Context(), evenMap(t, 2).All(), "", 2, gather.Options{}) {
		if err != nil {
			return
		}
		n++
		require.Less(t, n, 100, "goes round for ever")
	}
}

func TestAllOverASequenceThatIsUsedUpIsAnError(t *testing.T) {
	s := &store{rows: []message{{1, 1}, {1, 2}, {1, 3}, {1, 4}, {1, 5}}}
	q := s.query(t)
	list := slices.Collect(evenMap(t, 2).All())
	once := func(yield func(*shard.Shard) bool) {
		for len(list) > 0 {
			s := list[0]
			list = list[1:]
			if !yield(s) {
				return
			}
		}
	}
	n := 0
	for _, err := range q.All(t.Context(), once, "", 2, gather.Options{}) {
		if err != nil {
			return // refused: well
		}
		n++
	}
	require.Equal(t, 5, n, "ended early without an error")
}

func TestPageNamesTheGreatestLimit(t *testing.T) {
	s := &store{}
	_, err := s.query(t).Page(t.Context(), evenMap(t, 2).All(), "", math.MaxInt, gather.Options{})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "9223372036854775807, expected 1 or more")
}

func TestEachFetchMayChangeItsPosition(t *testing.T) {
	type p struct{ B []byte }
	q := gather.Query[int, p]{
		Cursors: cursorsOf(t, key(1)), Fingerprint: "x", Compare: cmp.Compare[int],
		Position: func(i int) p { return p{[]byte{byte(i)}} },
	}
	bad := atomic.Bool{}
	q.Fetch = func(_ context.Context, s *shard.Shard, after *p, limit int) ([]int, error) {
		if after != nil {
			if after.B[0] != 7 {
				bad.Store(true)
			}
			after.B[0]++
		}
		return nil, nil
	}
	c, err := q.Cursor(7)
	require.NoError(t, err)
	_, err = q.Page(t.Context(), evenMap(t, 4).All(), c, 3, gather.Options{Concurrency: 1})
	require.NoError(t, err)
	require.False(t, bad.Load())
}

func TestCursorsWithoutAKeyAreAnError(t *testing.T) {
	require.NotPanics(t, func() { _, _ = new(gather.Cursors).Seal("f", nil) })
}
