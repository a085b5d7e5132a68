package shard

import "github.com/evenkeel-go/evenkeel/internal/mix"

// Jump returns the bucket of a point among n, 0 to n-1, by jump consistent hash
// (Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014). When
// n grows by one, one key in n+1 moves, all of them to the new bucket; no other bucket
// can be taken away, split or weighted. It is -1 if n is less than 1.
//
// It stands here to be compared with a [Map], which needs no more time and whose ranges
// are cut and moved one by one. It costs O(log n), allocates nothing and is safe for
// concurrent use.
func Jump(id ID, n int) int {
	state := uint64(id)
	bucket, next := int64(-1), int64(0)
	for next < int64(n) {
		bucket = next
		state = state*2862933555777941757 + 1
		// The next bucket count at which the key jumps, from a uniform draw.
		at := float64(bucket+1) * (float64(int64(1)<<31) / float64(state>>33+1))
		if at >= float64(n) { // compared before the conversion, which a great one would overflow
			break
		}
		next = int64(at)
	}
	return int(bucket)
}

// Rendezvous returns the position in nodes of the one that owns a point by highest
// random weight (Thaler and Ravishankar, 1998): each node hashes its name together
// with the point, and the greatest wins. The owner depends on the names and not on
// their order, and a node that goes gives up only what it owned. Of two equal names
// the first wins; it is -1 if there are none.
//
// It stands here to be compared with a [Map]: it needs no agreement but the list of
// nodes, but it costs some 10 ns a node and its parts can be neither listed as ranges
// nor moved one by one. It allocates nothing and is safe for concurrent use.
func Rendezvous(id ID, nodes []string) int {
	best, most := -1, uint64(0)
	for i, node := range nodes {
		weight := mix.Bits(uint64(id) ^ uint64(XXHash(node)))
		if best < 0 || weight > most || weight == most && node < nodes[best] {
			best, most = i, weight
		}
	}
	return best
}
