package shard

import "fmt"

// Split cuts r at the given points, which must ascend and lie inside r, not at its
// start: n points give n+1 ranges that tile r in order. Without points it cuts in the
// middle. It returns an error that wraps [ErrBadRange] and names the point, which for a
// range of one point is its start.
func (r Range) Split(at ...ID) ([]Range, error) {
	if !r.valid() {
		return nil, fmt.Errorf("%w [%v, %v): expected an end after the start", ErrBadRange, r.Start, r.End)
	}
	if len(at) == 0 {
		at = []ID{r.middle()}
	}
	parts := make([]Range, 0, len(at)+1)
	rest := r
	for _, point := range at {
		if point <= rest.Start || !rest.Contains(point) {
			return nil, fmt.Errorf("%w: cannot cut %v at %v: expected points inside %v, ascending", ErrBadRange, r, point, rest)
		}
		parts = append(parts, Range{rest.Start, point})
		rest.Start = point
	}
	return append(parts, rest), nil
}

// middle is the first point of the upper half.
func (r Range) middle() ID {
	if size := r.End - r.Start; size != 0 {
		return r.Start + size/2
	}
	return 1 << 63 // the whole ring has 2^64 points
}

// Join returns the range that r and s make together if one begins where the other
// ends, and false if they do not adjoin or one of them is empty or inverted.
func (r Range) Join(s Range) (Range, bool) {
	if s.Start < r.Start {
		r, s = s, r
	}
	if !r.valid() || !s.valid() || r.End != s.Start || s.Start == 0 {
		return Range{}, false
	}
	return Range{r.Start, s.End}, true
}
