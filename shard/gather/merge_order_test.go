package gather_test

import (
	"cmp"
	"iter"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// NULL is nil. As ORDER BY … DESC NULLS LAST has it, and any other order, it is compare's
// to know.
func TestMergeOrdersAsItsCompareSays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		nullsLast := rapid.Bool().Draw(t, "nulls last")
		descending := func(a, b *int) int {
			switch {
			case a == nil && b == nil:
				return 0
			case a == nil || b == nil:
				if (a == nil) == nullsLast {
					return 1
				}
				return -1
			}
			return cmp.Compare(*b, *a)
		}
		var all []*int
		var in []iter.Seq2[*int, error]
		for range rapid.IntRange(1, 5).Draw(t, "streams") {
			rows := rapid.SliceOf(rapid.Ptr(rapid.IntRange(0, 9), true)).Draw(t, "rows")
			slices.SortStableFunc(rows, descending)
			in = append(in, gather.Rows(rows))
			all = append(all, rows...)
		}
		slices.SortStableFunc(all, descending)
		var got []*int
		for v, err := range gather.Merge(descending, in...) {
			require.NoError(t, err)
			got = append(got, v)
		}
		require.True(t, slices.Equal(all, got), "the same pointers in the same order")
	})
}

// A database that orders text without regard to case is not ordered by bytes: the
// difference is an error and no wrong page.
func TestMergeRefusesAnotherCollation(t *testing.T) {
	t.Parallel()
	var got []string
	var last error
	for v, err := range gather.Merge(cmp.Compare[string], gather.Rows([]string{"apple", "Banana", "cherry"}), gather.Rows([]string{"Date"})) {
		if last = err; err == nil {
			got = append(got, v)
		}
	}
	require.ErrorIs(t, last, gather.ErrUnordered)
	require.Equal(t, []string{"Date", "apple"}, got)
}
