package sim

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets that are narrower than 1/1024 of what they
// hold, so that a percentile costs neither memory for each request nor a sort.
type histogram struct {
	buckets []uint32
	n       int
	sum     float64
}

const mantissa = 10 // bits that a bucket tells apart after the first

func bucket(d time.Duration) int {
	u := uint64(max(d, 0))
	shift := max(bits.Len64(u)-1-mantissa, 0)
	return shift<<mantissa + int(u>>shift)
}

// middle returns the duration in the middle of a bucket.
func middle(i int) float64 {
	if i < 2<<mantissa {
		return float64(i)
	}
	shift := i>>mantissa - 1
	low := uint64(i-shift<<mantissa) << shift
	return float64(low) + float64(uint64(1)<<shift-1)/2
}

func (h *histogram) add(d time.Duration) {
	i := bucket(d)
	if i >= len(h.buckets) {
		h.buckets = append(h.buckets, make([]uint32, i+1-len(h.buckets))...)
	}
	h.buckets[i]++
	h.n++
	h.sum += float64(d)
}

func (h *histogram) mean() float64 {
	if h.n == 0 {
		return 0
	}
	return h.sum / float64(h.n)
}

// quantile returns the least duration that at least the part q of all do not exceed.
func (h *histogram) quantile(q float64) float64 {
	rank := min(int(q*float64(h.n)), h.n-1)
	for i, c := range h.buckets {
		if rank -= int(c); rank < 0 {
			return middle(i)
		}
	}
	return 0
}
