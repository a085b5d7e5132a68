// Package mix spreads the bits of a number: the one step that balance, coalesce and
// shard all need to make a good hash of a poor one.
package mix

// Bits is the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast Splittable
// Pseudorandom Number Generators", 2014; D. Stafford's variant 13 of MurmurHash3's): every
// bit of x changes every bit of the result with a chance of about a half. It is a
// permutation, so different numbers stay different. What it returns is kept by others, as
// owners of keys and in sketches: it may not change.
func Bits(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
