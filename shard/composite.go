package shard

import "encoding/binary"

// Tuple joins the parts of a composite key into one text for a [Hash], such as
// XXHash(Tuple(guild, channel)). Different parts give different texts, as plain joining
// does not: "a:b","c" and "a","b:c". Each part is written after its length, as a varint.
// The form does not change with versions of the package, because keys would move.
//
// It spreads all parts over the ring; [Combine] keeps those of one first part together.
// It allocates the text: keep it if a key is used often.
func Tuple(parts ...string) string {
	size := 0
	for _, p := range parts {
		size += len(p) + binary.MaxVarintLen16
	}
	b := make([]byte, 0, size)
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	return string(b)
}

// Combine makes the point of a composite key of two points: the top bits of first and
// below them the top bits of rest, as Vitess's "multicol" vindex does for bits that are
// a multiple of 8. All keys of one first part lie in [Prefix](bits, first), a 2^bits-th
// of the ring, so that a query for a tenant reaches the few shards that overlap it while
// one large tenant is still spread over several. Fewer bits spread a tenant wider. Bits
// below 1 give rest and above 63 give first.
//
// It allocates nothing; it is safe for concurrent use.
func Combine(bits int, first, rest ID) ID {
	bits = min(max(bits, 0), 64)
	low := ^ID(0) >> bits // a shift by 64 gives 0
	return first&^low | rest>>bits
}

// Prefix returns the range of all points that [Combine] makes with this first part. A
// scatter for one tenant asks [Map.Overlapping] of it.
func Prefix(bits int, first ID) Range {
	bits = min(max(bits, 0), 64)
	start := first &^ (^ID(0) >> bits)
	return Range{start, start + 1<<(64-bits)} // 0 past the ring's last point; a shift by 64 gives 0
}
