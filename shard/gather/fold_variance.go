package gather

import (
	"database/sql"
	"fmt"
)

// Moments is the part of [VarPop] and [VarSamp]: how many numbers, their mean, and the
// sum of the squares of their distances from it. Get it from SQL by [NewMoments] or
// from rows by [Moments.Add]. The zero value is that of no rows.
type Moments struct {
	Count int64
	Mean  float64
	M2    float64
}

// NewMoments takes SELECT count(x), avg(x), var_pop(x): the last two are NULL if the
// count is 0, and else neither may be. It returns [ErrBadPart] for that and for a
// negative count or variance.
func NewMoments(count int64, avg, varPop sql.Null[float64]) (Moments, error) {
	if avg.Valid != (count > 0) || varPop.Valid != (count > 0) {
		return Moments{}, fmt.Errorf("%w: count is %d with avg %v and var_pop %v, expected both or, of no rows, none", ErrBadPart, count, avg, varPop)
	}
	m := Moments{Count: count, Mean: avg.V, M2: varPop.V * float64(count)}
	if count == 0 {
		m = Moments{}
	}
	return m, m.check()
}

// Add counts one number in, by Welford's method.
func (m *Moments) Add(x float64) {
	m.Count++
	distance := x - m.Mean
	m.Mean += distance / float64(m.Count)
	m.M2 += distance * (x - m.Mean)
}

func (m Moments) check() error {
	if m.Count < 0 || m.M2 < 0 {
		return fmt.Errorf("%w: count is %d and M2 %v, expected 0 or more", ErrBadPart, m.Count, m.M2)
	}
	return nil
}

// VarPop is the variance of all rows, as SQL's var_pop: NULL if there are none. The
// standard deviation is its square root.
//
// It combines counts, means and sums of squares pairwise (Chan, Golub and LeVeque,
// "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979),
// which keeps its digits where the difference of two great sums would lose all of
// them. The result is deterministic for parts in one order, and the same as of one
// table but for rounding. A negative count or M2 is [ErrBadPart].
func VarPop() Fold[Moments, sql.Null[float64]] { return variance(0) }

// VarSamp is the variance that rows as a sample give to the whole, as SQL's
// var_samp: it divides by one less than the number of rows, and is NULL if there are
// fewer than two. Otherwise it is as [VarPop].
func VarSamp() Fold[Moments, sql.Null[float64]] { return variance(1) }

func variance(less int64) Fold[Moments, sql.Null[float64]] {
	return Fold[Moments, sql.Null[float64]]{
		Zero:    func() Moments { return Moments{} },
		Combine: addMoments,
		Final: func(all Moments) (sql.Null[float64], error) {
			if all.Count <= less {
				return sql.Null[float64]{}, nil
			}
			return sql.Null[float64]{V: all.M2 / float64(all.Count-less), Valid: true}, nil
		},
	}
}

func addMoments(a, b Moments) (Moments, error) {
	if err := b.check(); err != nil {
		return Moments{}, err
	}
	count, err := addCounts(a.Count, b.Count)
	switch {
	case err != nil:
		return Moments{}, err
	case a.Count == 0: // exactly b, and nothing of 0/0
		return b, nil
	case b.Count == 0:
		return a, nil
	}
	distance := b.Mean - a.Mean
	share := float64(b.Count) / float64(count)
	return Moments{
		Count: count,
		Mean:  a.Mean + distance*share,
		M2:    a.M2 + b.M2 + distance*distance*share*float64(a.Count),
	}, nil
}
