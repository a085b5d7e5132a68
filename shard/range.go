package shard

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrBadRange is returned by [ParseRange], [ParseRanges] and
	// [Range.UnmarshalText] when the text is not a key range, and by [NewMap]
	// for a range that is empty or inverted.
	ErrBadRange = errors.New("shard: bad key range")

	// ErrBadCount is returned by [EvenRanges] for a number of shards that it
	// does not support.
	ErrBadCount = errors.New("shard: bad number of shards")
)

// ID is a keyspace ID: a point on the ring [0, 2^64). It is what a [Hash] makes
// of a key and what a [Map] looks up.
//
// As text it is 16 hexadecimal digits, most significant first, the order in
// which Vitess compares its keyspace IDs.
type ID uint64

// String returns the 16 hexadecimal digits of id.
func (id ID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// Range is a half-open interval [Start, End) of the ring. An End of 0 stands
// for 2^64, so the zero value is the whole ring.
//
// A range whose End is not 0 must end after it starts; ParseRange yields no
// other, and [NewMap] refuses the rest. Of such a range, which contains nothing, Contains
// and SQL say so, Split and Join refuse it, and what the other methods say is not defined.
// Ranges are comparable with ==.
// A Range is a plain value and safe for concurrent use.
type Range struct {
	Start, End ID
}

// ParseRange reads a range in Vitess's notation: "-40", "40-80", "80-", "-" or
// "0" for the whole ring. Each boundary is an even number of hexadecimal digits,
// 16 at the most, in either case; trailing zero bytes mean nothing. Range.String
// gives the canonical text back.
//
// It is stricter than Vitess, which compares boundaries as strings: an inverted
// range (as "b0-a0", or Vitess's "B0-a0"), an empty one ("40-4000", "-00") and an
// odd number of digits ("-2") are errors here.
//
// It returns an error that wraps [ErrBadRange]. It allocates only for that error.
func ParseRange(s string) (Range, error) {
	if s == "0" { // Vitess's name for the only shard of an unsharded keyspace
		return Range{}, nil
	}
	start, end, ok := strings.Cut(s, "-")
	if !ok {
		return Range{}, fmt.Errorf("%w %q: expected START-END", ErrBadRange, s)
	}
	var r Range
	var err error
	if r.Start, err = parseBoundary(start); err != nil {
		return Range{}, fmt.Errorf("%w %q: start: %w", ErrBadRange, s, err)
	}
	if r.End, err = parseBoundary(end); err != nil {
		return Range{}, fmt.Errorf("%w %q: end: %w", ErrBadRange, s, err)
	}
	if end != "" && r.End <= r.Start {
		return Range{}, fmt.Errorf("%w %q: expected an end after the start", ErrBadRange, s)
	}
	return r, nil
}

// ParseRanges reads several adjoining ranges written as one list of boundaries:
// "-40-80-" is "-40", "40-80" and "80-". The list need not begin and end at the
// ends of the ring. It returns an error that wraps [ErrBadRange].
func ParseRanges(s string) ([]Range, error) {
	cuts := strings.Split(s, "-")
	if len(cuts) < 2 {
		return nil, fmt.Errorf("%w list %q: expected at least START-END", ErrBadRange, s)
	}
	ranges := make([]Range, 0, len(cuts)-1)
	for i := range len(cuts) - 1 {
		if i > 0 && cuts[i] == "" {
			return nil, fmt.Errorf("%w list %q: boundary %d is empty", ErrBadRange, s, i+1)
		}
		r, err := ParseRange(cuts[i] + "-" + cuts[i+1])
		if err != nil {
			return nil, fmt.Errorf("list %q: %w", s, err)
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

// parseBoundary reads the leading bytes of a point.
func parseBoundary(s string) (ID, error) {
	if len(s)%2 != 0 {
		return 0, fmt.Errorf("%q has an odd number of hexadecimal digits", s)
	}
	if len(s) > 16 {
		return 0, fmt.Errorf("%q has %d hexadecimal digits, expected at most 16", s, len(s))
	}
	var v uint64
	for i := range len(s) {
		var d byte
		switch c := s[i]; {
		case '0' <= c && c <= '9':
			d = c - '0'
		case 'a' <= c && c <= 'f':
			d = c - 'a' + 10
		case 'A' <= c && c <= 'F':
			d = c - 'A' + 10
		default:
			return 0, fmt.Errorf("%q is not hexadecimal", s)
		}
		v = v<<4 | uint64(d)
	}
	return ID(v << (4 * (16 - len(s)))), nil // a shift by 64, for "", gives 0
}

// maxEven is the most shards that Vitess names: four digits a boundary.
const maxEven = 1 << 16

// EvenRanges cuts the ring into n ranges of nearly equal size, in order, with the
// boundaries that GenerateShardRanges of Vitess 0.24 chooses: the i-th is i/n of the
// ring, rounded down to 1/256 of it for up to 256 shards and to 1/65536 above.
// Older releases rounded otherwise and put a few boundaries, as the 49th of 98, one
// step lower.
//
// It returns an error that wraps [ErrBadCount] if n is not in 1..65536.
func EvenRanges(n int) ([]Range, error) {
	if n < 1 || n > maxEven {
		return nil, fmt.Errorf("%w: %d, expected 1 to %d", ErrBadCount, n, maxEven)
	}
	steps, width := 1<<8, 56
	if n > steps {
		steps, width = maxEven, 48
	}
	ranges := make([]Range, n)
	for i := 1; i < n; i++ {
		cut := ID(uint64(i)*uint64(steps)/uint64(n)) << width
		ranges[i-1].End, ranges[i].Start = cut, cut
	}
	return ranges, nil
}

// Contains reports whether id lies in r. It costs two comparisons.
func (r Range) Contains(id ID) bool {
	return r.Start <= id && (id < r.End || r.End == 0)
}

// Overlaps reports whether r and s share a point.
func (r Range) Overlaps(s Range) bool {
	return (r.End == 0 || s.Start < r.End) && (s.End == 0 || r.Start < s.End)
}

// Covers reports whether every point of s lies in r.
func (r Range) Covers(s Range) bool {
	return r.Start <= s.Start && r.last() >= s.last()
}

// last is the greatest point of a valid range.
func (r Range) last() ID { return r.End - 1 }

// valid tells a range from the empty and inverted ones that a struct literal
// can spell.
func (r Range) valid() bool { return r.End == 0 || r.Start < r.End }

// String returns the canonical Vitess text of r: lower case, no trailing zero
// bytes, "-" for the whole ring.
func (r Range) String() string {
	b, _ := r.AppendText(make([]byte, 0, 33))
	return string(b)
}

// AppendText appends the text of [Range.String] to b. It implements
// [encoding.TextAppender], allocates nothing if b has room for 33 bytes, and
// never returns an error.
func (r Range) AppendText(b []byte) ([]byte, error) {
	b = appendBoundary(b, r.Start)
	b = append(b, '-')
	return appendBoundary(b, r.End), nil
}

// MarshalText returns the text of [Range.String]; its error is nil. It
// implements [encoding.TextMarshaler], so that JSON shows a range as "40-80".
func (r Range) MarshalText() ([]byte, error) { return r.AppendText(nil) }

// UnmarshalText reads what [ParseRange] reads and leaves r alone on an error. It
// implements [encoding.TextUnmarshaler].
func (r *Range) UnmarshalText(text []byte) error {
	parsed, err := ParseRange(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}

const hexDigits = "0123456789abcdef"

func appendBoundary(b []byte, id ID) []byte {
	for v := uint64(id); v != 0; v <<= 8 {
		b = append(b, hexDigits[v>>60], hexDigits[v>>56&15])
	}
	return b
}
