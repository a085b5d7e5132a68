package gather

import (
	"fmt"
)

// TopK keeps the first k rows in the order of compare, which is negative if a sorts
// before b. A part is the first k rows of a shard, in that order (SELECT … ORDER BY …
// LIMIT k): each shard may hold all of them. Rows that compare equal come in the order of
// the shards. A part that is not in order is [ErrUnordered]; rows of it beyond k do
// not matter.
//
// It is not for the greatest groups, as the ten most used words: a word may be eleventh
// on every shard and first of all. Fold all groups by [GroupBy] and sort, or shard by
// the word.
//
// It returns an error if k is below 1 or compare is nil. It costs at most 2k comparisons
// a part and holds 2k rows.
func TopK[T any](k int, compare func(a, b T) int) (Fold[[]T, []T], error) {
	if k < 1 || compare == nil {
		return Fold[[]T, []T]{}, fmt.Errorf("gather: k is %d with compare nil: %t, expected 1 or more and a function", k, compare == nil)
	}
	return Fold[[]T, []T]{
		Zero: func() []T { return nil },
		Combine: func(into, part []T) ([]T, error) {
			part = part[:min(k, len(part))]
			for i := 1; i < len(part); i++ {
				if compare(part[i-1], part[i]) > 0 {
					return nil, fmt.Errorf("%w: rows %d and %d of a part", ErrUnordered, i-1, i)
				}
			}
			return firstOfBoth(k, compare, into, part), nil
		},
		Final: func(all []T) ([]T, error) { return all, nil },
	}, nil
}

// firstOfBoth merges two ordered lists into a new one of at most k.
func firstOfBoth[T any](k int, compare func(a, b T) int, a, b []T) []T {
	if len(a)+len(b) == 0 {
		return nil
	}
	merged := make([]T, 0, min(k, len(a)+len(b)))
	for len(merged) < k && len(a)+len(b) > 0 {
		if len(b) == 0 || len(a) > 0 && compare(a[0], b[0]) <= 0 {
			merged, a = append(merged, a[0]), a[1:]
		} else {
			merged, b = append(merged, b[0]), b[1:]
		}
	}
	return merged
}
