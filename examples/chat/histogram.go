package main

import (
	"math"
	"sync/atomic"
	"time"
)

// histogram counts durations in buckets that grow by a tenth, from 1 µs to over a
// minute. Adding to it takes no lock. The difference of two snapshots is what
// happened between them.
type histogram struct {
	buckets [histogramBuckets]atomic.Int64
}

const (
	histogramBuckets = 192
	bucketGrowth     = 1.1
)

func (h *histogram) add(d time.Duration) {
	i := math.Log(float64(max(d, time.Microsecond))/float64(time.Microsecond)) / math.Log(bucketGrowth)
	h.buckets[min(int(i), histogramBuckets-1)].Add(1)
}

// counts is a snapshot of a histogram.
type counts [histogramBuckets]int64

func (h *histogram) snapshot() (c counts) {
	for i := range c {
		c[i] = h.buckets[i].Load()
	}
	return c
}

func (c counts) minus(older counts) counts {
	for i := range c {
		c[i] -= older[i]
	}
	return c
}

// quantile returns the upper end of the bucket that holds the quantile, and 0 if
// there is nothing.
func (c counts) quantile(q float64) time.Duration {
	var total int64
	for _, n := range c {
		total += n
	}
	rank := int64(math.Ceil(q * float64(total)))
	for i, n := range c {
		if rank -= n; rank <= 0 && total > 0 {
			return time.Duration(math.Pow(bucketGrowth, float64(i+1)) * float64(time.Microsecond))
		}
	}
	return 0
}
