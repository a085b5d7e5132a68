package balance_test

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
)

// cell is one counter on a cache line of its own.
type cell struct {
	n atomic.Int64
	_ [56]byte
}

// BenchmarkPick times a pick and its end on all processors. The floor is what two
// choices cannot do without: a random number, two loads, an addition and a
// subtraction.
func BenchmarkPick(b *testing.B) {
	for _, n := range []int{4, 100, 1000} {
		cells := make([]cell, n)
		b.Run(fmt.Sprintf("strategy=floor/weights=equal/backends=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					i, j := balance.Pair(rand.Uint64(), n)
					if cells[j].n.Load() < cells[i].n.Load() {
						i = j
					}
					cells[i].n.Add(1)
					cells[i].n.Add(-1)
				}
			})
		})
		for _, weights := range []string{"equal", "mixed"} {
			for _, s := range []struct {
				name     string
				strategy balance.Strategy
			}{
				{"random", balance.Random()},
				{"roundrobin", balance.RoundRobin()},
				{"p2c", balance.LeastRequest(balance.LeastRequestOptions{})},
				{"p3c", balance.LeastRequest(balance.LeastRequestOptions{Choices: 3})},
				{"latency", balance.LeastLatency(balance.LatencyOptions{})},
				{"prequal", balance.Prequal(noLoad{}, balance.PrequalOptions{Go: inline})},
			} {
				b.Run(fmt.Sprintf("strategy=%s/weights=%s/backends=%d", s.name, weights, n), func(b *testing.B) {
					balancer, err := balance.New[string](s.strategy, balance.Options{})
					require.NoError(b, err)
					set := equals(n)
					for i := range set {
						if weights == "mixed" {
							set[i].Weight = float64(1 + i%4)
						}
					}
					require.NoError(b, balancer.Update(set))
					b.ReportAllocs()
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							p, err := balancer.Pick()
							if err != nil {
								panic(err)
							}
							p.Done(nil)
						}
					})
				})
			}
		}
	}
}

// BenchmarkSpread throws n requests that never end at n backends and reports the
// most that one holds: the quality of a strategy that knows only counts.
func BenchmarkSpread(b *testing.B) {
	for _, s := range []struct {
		name     string
		strategy balance.Strategy
	}{
		{"random", balance.Random()},
		{"roundrobin", balance.RoundRobin()},
		{"p2c", balance.LeastRequest(balance.LeastRequestOptions{})},
		{"p3c", balance.LeastRequest(balance.LeastRequestOptions{Choices: 3})},
	} {
		b.Run(fmt.Sprintf("strategy=%s/backends=1000", s.name), func(b *testing.B) {
			b.ReportAllocs()
			sum, rounds := 0.0, 0
			for b.Loop() {
				balancer := seeded(b, s.strategy, uint64(rounds))
				require.NoError(b, balancer.Update(equals(1000)))
				for range 1000 {
					if _, err := balancer.Pick(); err != nil {
						b.Fatal(err)
					}
				}
				most := int64(0)
				for _, n := range inFlight(balancer) {
					most = max(most, n)
				}
				sum, rounds = sum+float64(most), rounds+1
			}
			b.ReportMetric(sum/float64(rounds), "peak/mean")
		})
	}
}
