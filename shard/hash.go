package shard

import (
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// Hash sends a key to its point on the ring. It must be a pure function, equal in
// every process that shares the data and for as long as the data lives: a seeded
// hash as [hash/maphash] is not one. It is typed, so that the number 1 and the
// text "1" cannot be mixed up.
type Hash[K any] func(K) ID

// XXHash is the point that Vitess's "xxhash" vindex gives to the text of key: the
// xxHash64 digest (seed 0), its bytes written little-endian and then compared
// big-endian. Vitess hashes a number by its decimal text, so XXHash("1") is also
// its point for the integer 1.
//
// It costs about 7 ns for 16 bytes and allocates nothing. It is not a defence
// against keys chosen to collide. It is safe for concurrent use.
func XXHash(key string) ID {
	return ID(bits.ReverseBytes64(xxhash.Sum64String(key)))
}
