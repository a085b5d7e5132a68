package sim_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/sim"
)

func TestProbesAreAsManyAsAskedFor(t *testing.T) {
	t.Parallel()
	for _, probes := range []float64{1.5, 3} {
		c := sim.Config{Jobs: jobs(20_000), Utilization: 0.8, Servers: []sim.Group{{Count: 50}}}
		c.Prequal.Probes = probes
		assert.InEpsilon(t, float64(c.Jobs)*probes, run(t, c).Probes, 0.01)
		c.Network = 0.2 // while they travel, others may begin
		assert.InEpsilon(t, float64(c.Jobs)*probes, run(t, c).Probes, 0.01)
		c.Strategy = least(2)
		assert.Zero(t, run(t, c).Probes)
	}
}

// The farther and the older, the less a probe is worth; and it is always worth more
// than nothing.
func TestProbesTravelAndAge(t *testing.T) {
	if raceEnabled {
		t.Skip("a simulation has one goroutine at a time, and needs long runs to find anything")
	}
	t.Parallel()
	c := sim.Config{Seed: 1, Jobs: 40_000, Utilization: 0.9, Clients: 100, Servers: []sim.Group{{Count: 100}}}
	random := c
	random.Strategy = balance.Random()
	atRandom := run(t, random).P99
	for _, worse := range []func(c *sim.Config, x float64){
		func(c *sim.Config, x float64) { c.Network = x },
		func(c *sim.Config, x float64) { c.StaleLoads = x },
	} {
		last := 0.0
		for _, x := range []float64{0, 1, 3} {
			c := c
			worse(&c, x)
			r := run(t, c)
			p99 := r.P99 - c.Network
			assert.Greater(t, p99, last)
			assert.Less(t, p99, atRandom)
			last = p99
		}
	}
}

// A probe of a server that crashed fails after its time.
func TestProbesOfTheDeadFail(t *testing.T) {
	t.Parallel()
	c := sim.Config{
		Seed: 1, Jobs: jobs(40_000), Utilization: 0.7, Clients: 4, Servers: []sim.Group{{Name: "dead", Count: 2}, {Name: "alive", Count: 18}},
		Events:  []sim.Event{{Do: sim.Crash, Count: 2, After: 0.5}},
		Network: 0.1,
	}
	c.Options.Health = balance.Health{Consecutive: -1, SuccessRate: -1} // what remains are the probes
	r := run(t, c)
	assert.Less(t, r.Groups[0].Share, r.Groups[0].Fair/4)
	assert.InDelta(t, r.Groups[0].Share, r.FailRate, 1e-9)

	// Whoever does not answer is given up after the timeout, so that the others are
	// still probed.
	c.Events[0].After = 1e9
	c.Prequal.Timeout = 100 * time.Millisecond // one service time
	var probes [2]int
	for i, n := range []int{2000, 4000} {
		c.Jobs, c.Trace = n, nil
		c.Events[0].For = 1e4
		probes[i] = run(t, c).Probes
	}
	assert.InEpsilon(t, 2, float64(probes[1])/float64(probes[0]), 0.05)
}

func TestReportsReachWhoHasPicked(t *testing.T) {
	t.Parallel()
	c := sim.Config{
		Seed: 1, Jobs: 40_000, Utilization: 0.9, Clients: 100, Strategy: least(2),
		Servers: []sim.Group{{Count: 100}}, Unit: 100 * time.Millisecond,
	}
	alone := run(t, c)
	c.Piggyback = true
	with := run(t, c)
	assert.NotEqual(t, alone.Mean, with.Mean)
	c.Piggyback, c.Reports = false, 1
	told := run(t, c)
	assert.Less(t, told.P99, 0.7*alone.P99, "what servers say breaks the ties of the blind")
	c.Reports = 20
	assert.Greater(t, run(t, c).P99, 1.2*told.P99, "unless it is old")
}
