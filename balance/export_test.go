package balance

import "unsafe"

// NodeSize is the size of what is kept for one backend.
const NodeSize = unsafe.Sizeof(node{})

// NodeAddresses returns where what is kept for each backend lies.
func NodeAddresses[T any](b *Balancer[T]) (addresses []uintptr) {
	for _, n := range b.current.Load().nodes {
		addresses = append(addresses, uintptr(unsafe.Pointer(n)))
	}
	return addresses
}

// SetPicks makes the number of picks of every backend what it is after many.
func SetPicks[T any](b *Balancer[T], picks uint64) {
	for _, n := range b.current.Load().nodes {
		n.counts.Store(picks << inFlightBits)
	}
}

// Pair is the draw of two candidates.
var Pair = pair

// ScheduleOf returns the turns for weights of which the heaviest is 1.
func ScheduleOf(weights []float64) []uint32 { return newSchedule(weights) }

// AliasShares returns the exact probability of each index in the alias table for
// weights of which the heaviest is 1.
func AliasShares(weights []float64) []float64 {
	a := newAlias(weights)
	shares := make([]float64, len(weights))
	for i, c := range a.columns {
		own := float64(c.threshold) / (1 << 32)
		shares[i] += own / float64(len(weights))
		shares[c.other] += (1 - own) / float64(len(weights))
	}
	return shares
}

// Pack and Unpack are a sample's coding.
var (
	Pack   = pack
	Unpack = unpack
)

// Slice returns the part of each backend that is in a subset.
func Slice(s Subset, backends []Backend[string]) map[string]float64 {
	var ring []reached
	for i, b := range backends {
		ring = append(ring, reached{node: &node{record: &record{id: b.ID}}, index: i, weight: 1})
	}
	parts := map[string]float64{}
	for _, r := range s.slice(ring) {
		if _, ok := parts[r.id]; ok {
			panic("twice in a slice: " + r.id)
		}
		parts[r.id] = r.weight
	}
	return parts
}
