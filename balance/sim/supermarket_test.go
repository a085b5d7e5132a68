package sim_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/sim"
)

func TestSupermarketByHand(t *testing.T) {
	assert.Equal(t, 2.0, sim.Supermarket(1, 0.5))
	// 1 + x^2 + x^6 + x^14 + x^30 + ..., whose exponents are 2^i-2.
	x := 0.9
	want := 1 + math.Pow(x, 2) + math.Pow(x, 6) + math.Pow(x, 14) + math.Pow(x, 30) + math.Pow(x, 62) + math.Pow(x, 126) + math.Pow(x, 254)
	assert.InDelta(t, want, sim.Supermarket(2, x), 1e-9)
	// (3^i-3)/2
	want = 1 + math.Pow(x, 3) + math.Pow(x, 12) + math.Pow(x, 39) + math.Pow(x, 120) + math.Pow(x, 363)
	assert.InDelta(t, want, sim.Supermarket(3, x), 1e-9)
	assert.Equal(t, 1.0, sim.Supermarket(2, 0))
	assert.True(t, math.IsInf(sim.Supermarket(2, 1), 1))
	assert.True(t, math.IsNaN(sim.Supermarket(0, 0.5)))
	assert.True(t, math.IsNaN(sim.Supermarket(2, -0.1)))
	assert.True(t, math.IsNaN(sim.Supermarket(2, math.NaN())))
}

// The gate of the simulator and of the strategies: 500 servers, two million requests,
// of which half fill the queues.
// Three percent for a choice of two or three, and five for none, whose queues take
// long to forget.
func TestSupermarketMatchesTheory(t *testing.T) {
	rhos := []float64{0.5, 0.6, 0.7, 0.8, 0.9, 0.95}
	n := 2_000_000
	if testing.Short() || raceEnabled {
		rhos, n = []float64{0.5, 0.7}, 200_000 // the long runs say nothing of races
	}
	for d, tolerance := range map[int]float64{1: 0.05, 2: 0.03, 3: 0.03} {
		for _, rho := range rhos {
			t.Run(fmt.Sprintf("choices=%d/rho=%v", d, rho), func(t *testing.T) {
				t.Parallel()
				strategy := balance.Random()
				if d > 1 {
					strategy = least(d)
				}
				r := run(t, sim.Config{
					Seed: 1, Jobs: n, Warm: 0.5, Utilization: rho, Strategy: strategy, Servers: []sim.Group{{Count: 500}},
				})
				t.Logf("%.3f, in theory %.3f", r.Mean, sim.Supermarket(d, rho))
				assert.InEpsilon(t, sim.Supermarket(d, rho), r.Mean, tolerance)
			})
		}
	}
}
