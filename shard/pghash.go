package shard

import (
	"encoding/binary"
	"math/bits"
)

// PGText is the point of a key that PostgreSQL computes from a text column by itself:
//
//	hashtextextended(key, 0)
//
// gives PGText(key).Int64(), so that views, filters, triggers and copies select a
// shard's rows with [Range.SQL] and the table needs no column for the point. It is
// Bob Jenkins's lookup3 (2006) as in PostgreSQL's hash_bytes_extended. PARTITION BY
// HASH uses the same function with another seed, so its partitions are not ranges here.
//
// PostgreSQL hashes the bytes that are stored: with a database in UTF-8 they are those
// of a Go string, NUL excepted, which PostgreSQL does not store. A column with a
// nondeterministic collation hashes otherwise. Servers on big-endian machines differ.
//
// It costs about 10 ns for 16 bytes, allocates nothing and is safe for concurrent use.
func PGText(key string) ID { return FromInt64(int64(pgBytes(key))) }

// PGUUID is the point that PostgreSQL computes from a uuid column:
// uuid_hash_extended(key, 0) gives PGUUID(key).Int64(). The bytes are in the order of
// the text. See [PGText].
func PGUUID(key [16]byte) ID {
	a := pgInit(len(key)) + binary.LittleEndian.Uint32(key[0:])
	b := pgInit(len(key)) + binary.LittleEndian.Uint32(key[4:])
	c := pgInit(len(key)) + binary.LittleEndian.Uint32(key[8:])
	a, b, c = pgMix(a, b, c)
	return FromInt64(int64(pgFinal(a+binary.LittleEndian.Uint32(key[12:]), b, c)))
}

// PGInt8 is the point that PostgreSQL computes from a bigint column:
// hashint8extended(key, 0) gives PGInt8(key).Int64(), and hashint4extended the same for
// an integer column. It folds the number to 32 bits before it mixes, so up to 2^32
// keys share a point and a shard narrower than 2^-32 of the ring may be empty. It
// costs about 3 ns. See [PGText].
func PGInt8(key int64) ID {
	low, high := uint32(key), uint32(uint64(key)>>32)
	if key < 0 { // so that small numbers hash alike whatever their SQL type
		high = ^high
	}
	init := pgInit(4)
	return FromInt64(int64(pgFinal(init+(low^high), init, init)))
}

// pgBytes is hash_bytes_extended with seed 0.
func pgBytes(k string) uint64 {
	a := pgInit(len(k))
	b, c := a, a
	for ; len(k) >= 12; k = k[12:] {
		a, b, c = pgMix(a+pgWord(k), b+pgWord(k[4:]), c+pgWord(k[8:]))
	}
	// What is left is read as zero-filled words, except that the lowest byte of the
	// last is skipped: lookup3 keeps it for the length.
	if len(k) > 8 {
		c += pgTail(k[8:]) << 8
		k = k[:8]
	}
	if len(k) > 4 {
		b += pgTail(k[4:])
		k = k[:4]
	}
	a += pgTail(k)
	return pgFinal(a, b, c)
}

// pgInit is what the three words of the state begin with. PostgreSQL adds 3923095 to
// the golden ratio that lookup3 begins with.
func pgInit(length int) uint32 { return 0x9e3779b9 + 3923095 + uint32(length) }

// pgWord reads four bytes, the lowest first.
func pgWord(k string) uint32 {
	_ = k[3]
	return uint32(k[0]) | uint32(k[1])<<8 | uint32(k[2])<<16 | uint32(k[3])<<24
}

// pgTail reads up to four bytes.
func pgTail(k string) uint32 {
	if len(k) == 4 {
		return pgWord(k)
	}
	var v uint32
	for i := len(k) - 1; i >= 0; i-- {
		v = v<<8 | uint32(k[i])
	}
	return v
}

// pgMix is lookup3's mix of a block that is not the last.
func pgMix(a, b, c uint32) (uint32, uint32, uint32) {
	a = (a - c) ^ bits.RotateLeft32(c, 4)
	c += b
	b = (b - a) ^ bits.RotateLeft32(a, 6)
	a += c
	c = (c - b) ^ bits.RotateLeft32(b, 8)
	b += a
	a = (a - c) ^ bits.RotateLeft32(c, 16)
	c += b
	b = (b - a) ^ bits.RotateLeft32(a, 19)
	a += c
	c = (c - b) ^ bits.RotateLeft32(b, 4)
	b += a
	return a, b, c
}

// pgFinal is lookup3's final mix; PostgreSQL takes 64 of the 96 bits.
func pgFinal(a, b, c uint32) uint64 {
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	c = (c ^ b) - bits.RotateLeft32(b, 24)
	return uint64(b)<<32 | uint64(c)
}
