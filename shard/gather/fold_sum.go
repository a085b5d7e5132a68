package gather

import (
	"database/sql"
	"fmt"
)

// Number is what [Sum] and [Avg] add up.
type Number interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 |
		~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr |
		~float32 | ~float64
}

// Sum adds up: SELECT coalesce(sum(x), 0), since the sum of no rows is NULL in SQL and
// 0 here. Whole numbers that do not fit T are [ErrOverflow], also when later parts
// would bring the sum back; floating-point numbers add up as IEEE 754 has them,
// in the order of the parts.
func Sum[T Number]() Fold[T, T] {
	return Fold[T, T]{
		Zero:    func() T { return 0 },
		Combine: add[T],
		Final:   func(sum T) (T, error) { return sum, nil },
	}
}

// add returns a + b, or ErrOverflow if that is not a number of their type.
func add[T Number](a, b T) (T, error) {
	sum := a + b
	one, two := T(1), T(2)
	whole := one/two == 0
	if whole && (b > 0 && sum < a || b < 0 && sum > a) {
		return 0, fmt.Errorf("%w: %v + %v does not fit %T", ErrOverflow, a, b, a)
	}
	return sum, nil
}

// Count adds up numbers of rows: SELECT count(*). A negative part is [ErrBadPart], a
// sum over 2^63-1 [ErrOverflow]. For a count of distinct values see [Distinct]: those
// of two shards do not add up.
func Count() Fold[int64, int64] {
	return Fold[int64, int64]{
		Zero:    func() int64 { return 0 },
		Combine: addCounts,
		Final:   func(count int64) (int64, error) { return count, nil },
	}
}

func addCounts(a, b int64) (int64, error) {
	if b < 0 {
		return 0, fmt.Errorf("%w: count is %d, expected 0 or more", ErrBadPart, b)
	}
	return add(a, b)
}

// AvgPart is the part of [Avg]: SELECT coalesce(sum(x), 0), count(x). It counts what is
// not NULL, so count(*) is wrong for a column that may be. The zero value is that of no
// rows.
type AvgPart[T Number] struct {
	Sum   T
	Count int64
}

// Avg is the average of all rows, NULL if there are none. It adds sums and counts up
// and divides once, so that shards count by their rows: an average of averages would
// be another number. Sums of whole numbers are exact, or [ErrOverflow], converted
// to float64 and divided, each of which rounds; those of floating-point numbers are as [Sum] has them. A
// negative count is [ErrBadPart].
func Avg[T Number]() Fold[AvgPart[T], sql.Null[float64]] {
	return Fold[AvgPart[T], sql.Null[float64]]{
		Zero: func() AvgPart[T] { return AvgPart[T]{} },
		Combine: func(into, part AvgPart[T]) (_ AvgPart[T], err error) {
			if part.Count == 0 && part.Sum != 0 {
				return AvgPart[T]{}, fmt.Errorf("%w: sum of no rows is %v, expected 0", ErrBadPart, part.Sum)
			}
			if into.Count, err = addCounts(into.Count, part.Count); err != nil {
				return AvgPart[T]{}, err
			}
			if into.Sum, err = add(into.Sum, part.Sum); err != nil {
				return AvgPart[T]{}, err
			}
			return into, nil
		},
		Final: func(all AvgPart[T]) (sql.Null[float64], error) {
			if all.Count == 0 {
				return sql.Null[float64]{}, nil
			}
			return sql.Null[float64]{V: float64(all.Sum) / float64(all.Count), Valid: true}, nil
		},
	}
}
