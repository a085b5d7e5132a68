package gather

import (
	"cmp"
	"database/sql"
)

// Min is the least value, NULL if there is none. Parts scan from SELECT min(x), which is
// NULL and not 0 for a shard without rows.
//
// Text is compared by its bytes, as PostgreSQL's collation "C" does: for another
// use [MinFunc]. A NaN is above all numbers and equal to itself, as in PostgreSQL: it is
// the minimum only of NaNs, and the maximum wherever there is one.
func Min[T cmp.Ordered]() Fold[sql.Null[T], sql.Null[T]] { return MinFunc(compareNaNLast[T]) }

// Max is the greatest value, NULL if there is none; otherwise it is as [Min].
func Max[T cmp.Ordered]() Fold[sql.Null[T], sql.Null[T]] { return MaxFunc(compareNaNLast[T]) }

// MinFunc is [Min] in the order of compare, which is negative if a sorts before b,
// as MinFunc(time.Time.Compare). Of values that compare equal the first is taken.
func MinFunc[T any](compare func(a, b T) int) Fold[sql.Null[T], sql.Null[T]] {
	return extreme(func(a, b T) bool { return compare(b, a) < 0 })
}

// MaxFunc is [Max] in the order of compare, as [MinFunc].
func MaxFunc[T any](compare func(a, b T) int) Fold[sql.Null[T], sql.Null[T]] {
	return extreme(func(a, b T) bool { return compare(b, a) > 0 })
}

// extreme keeps the first value that none beats.
func extreme[T any](beatenBy func(a, b T) bool) Fold[sql.Null[T], sql.Null[T]] {
	return Fold[sql.Null[T], sql.Null[T]]{
		Zero: func() sql.Null[T] { return sql.Null[T]{} },
		Combine: func(into, part sql.Null[T]) (sql.Null[T], error) {
			if part.Valid && (!into.Valid || beatenBy(into.V, part.V)) {
				return part, nil
			}
			return into, nil
		},
		Final: func(all sql.Null[T]) (sql.Null[T], error) { return all, nil },
	}
}

func compareNaNLast[T cmp.Ordered](a, b T) int {
	if aNaN, bNaN := a != a, b != b; aNaN || bNaN {
		switch {
		case !bNaN:
			return 1
		case !aNaN:
			return -1
		}
		return 0
	}
	return cmp.Compare(a, b)
}
