package sim_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/sim"
)

// alone is a config of few requests, each of which finds its server idle.
func alone(events ...sim.Event) sim.Config {
	return sim.Config{
		Jobs: 20_000, Warm: -1, Utilization: 0.001, Service: sim.Constant(), Strategy: balance.RoundRobin(),
		Servers: []sim.Group{{Name: "one", Count: 1}, {Name: "other", Count: 1}},
		Options: balance.Options{Health: balance.Health{Penalty: -1, Consecutive: -1, SuccessRate: -1, SlowStart: -1}},
		Events:  events,
	}
}

// during calls f with the requests that began from and before to.
func during(c *sim.Config, from, to float64, f func(r sim.Request)) {
	c.Trace = func(r sim.Request) {
		if r.Start >= from && r.Start < to {
			f(r)
		}
	}
}

func TestSlowLastsAsLongAsItSays(t *testing.T) {
	c := alone(sim.Event{At: 1e6, Do: sim.Slow, Factor: 0.25, For: 1e6})
	slow, total := 0, 0
	c.Trace = func(r sim.Request) {
		switch end := r.Start + r.Latency; {
		case r.Server == 0 && r.Start > 1e6 && end < 2e6:
			assert.InDelta(t, 4, r.Latency, 1e-6)
			slow++
		case end < 1e6 || r.Start > 2e6 || r.Server == 1:
			assert.InDelta(t, 1, r.Latency, 0.5) // one may wait for another
		}
		total++
	}
	run(t, c)
	assert.Equal(t, 20_000, total)
	assert.InDelta(t, 1000, slow, 100)
}

// Half of the time, a thousand periods: pauses are as long and as far apart as asked.
func TestEventsThatComeAgainTakeTheirPartOfTheTime(t *testing.T) {
	c := alone(sim.Event{Do: sim.Slow, Count: 2, Factor: 0.5, For: 1000, Every: 3000})
	slow := 0
	c.Trace = func(r sim.Request) {
		if r.Latency > 1.9 {
			slow++
		}
	}
	run(t, c)
	assert.InDelta(t, 0.25, float64(slow)/20_000, 0.02)
}

func TestFailFailsWithItsProbabilityAndInItsTime(t *testing.T) {
	c := alone(sim.Event{At: 1e6, Do: sim.Fail, Prob: 0.3, After: 0.125, For: 4e6})
	failed, of := 0, 0
	during(&c, 1e6, 5e6, func(r sim.Request) {
		if r.Server == 1 {
			assert.False(t, r.Failed)
			return
		}
		of++
		if r.Failed {
			failed++
			assert.InDelta(t, 0.125, r.Latency, 1e-6)
		}
	})
	r := run(t, c)
	assert.InDelta(t, 0.3, float64(failed)/float64(of), 0.03)
	assert.InDelta(t, float64(failed)/20_000, r.FailRate, 1e-9, "none but those")
	assert.InDelta(t, 2*float64(failed)/20_000, r.Groups[0].FailRate, 1e-9)
	assert.Zero(t, r.Groups[1].FailRate)
}

// A crash loses the requests that wait and that are served, refuses others until it
// is over, and leaves an empty server.
func TestCrashLosesEverything(t *testing.T) {
	const at, until, after = 200.0, 250.0, 0.75
	c := sim.Config{
		Jobs: 2000, Warm: -1, Utilization: 0.95, Strategy: balance.Random(),
		Servers: []sim.Group{{Count: 3, Workers: 2}},
		Options: alone().Options,
		Events:  []sim.Event{{At: at, Do: sim.Crash, Count: 3, For: until - at, After: after}},
	}
	lost, refused := 0, 0
	c.Trace = func(r sim.Request) {
		end := r.Start + r.Latency
		switch {
		case r.Start < at && r.Failed:
			lost++
			assert.InDelta(t, at+after, end, 1e-6)
		case r.Start < at:
			assert.LessOrEqual(t, end, at+1e-6)
		case r.Start < until:
			refused++
			assert.True(t, r.Failed)
			assert.InDelta(t, after, r.Latency, 1e-6)
		default:
			assert.False(t, r.Failed)
		}
		if r.Start >= until && r.Start < until+0.1 {
			assert.InDelta(t, r.Size, r.Latency, 0.1, "nobody is left to wait for")
		}
	}
	run(t, c)
	assert.Positive(t, lost)
	assert.Positive(t, refused)
}

func TestLeaveAndJoinChangeWhoIsPicked(t *testing.T) {
	c := alone(
		sim.Event{At: 1e6, Do: sim.Leave, For: 1e6},
		sim.Event{At: 3e6, Do: sim.Join, First: 2, For: 1e6, Factor: 0.5},
	)
	c.Servers = append(c.Servers, sim.Group{Name: "late", Count: 1, Absent: true})
	cold, warm := 0, 0
	c.Trace = func(r sim.Request) {
		switch r.Server {
		case 0:
			assert.False(t, r.Start >= 1e6 && r.Start < 2e6, "it has left")
		case 2:
			assert.GreaterOrEqual(t, r.Start, 3e6)
			if r.Start < 4e6-2 {
				cold++
				assert.InDelta(t, 2, r.Latency, 0.9)
			} else {
				warm++
			}
		}
	}
	r := run(t, c)
	assert.Zero(t, r.FailRate)
	assert.InDelta(t, 2000.0/3, cold, 50)
	assert.Positive(t, warm)
	for _, g := range r.Groups {
		assert.InDelta(t, g.Fair, g.Share, 0.005, "turns are fair while one is there")
		assert.Positive(t, g.Share)
	}
	assert.InDelta(t, 1, r.MaxShare, 0.02)
}

// What a server has is not lost when it leaves.
func TestLeavingIsGraceful(t *testing.T) {
	c := sim.Config{
		Jobs: 20_000, Utilization: 0.9, Strategy: least(2), Clients: 3, Network: 1,
		Servers: []sim.Group{{Count: 10}},
	}
	for at := 100.0; at < 2000; at += 100 {
		c.Events = append(c.Events, sim.Event{At: at, Do: sim.Leave, First: int(at/100) % 10, For: 50})
	}
	assert.Zero(t, run(t, c).FailRate)
}

// Held back until the next multiple, an end is not news before it.
func TestStaleEndsAreHeldBack(t *testing.T) {
	c := sim.Config{
		Seed: 1, Jobs: 50_000, Utilization: 0.9, Servers: []sim.Group{{Count: 100}},
	}
	for _, s := range []balance.Strategy{least(2), least(10), balance.LeastLatency(balance.LatencyOptions{})} {
		c.Strategy = s
		last := 0.0
		for _, age := range []float64{0, 1, 5, 20} {
			c.StaleEnds = age
			r := run(t, c)
			assert.Greater(t, r.Mean, last, "older is worse: %v", age)
			last = r.Mean
		}
	}
	// It changes what the balancers know, and not when requests end.
	c.Strategy = balance.Random()
	late := run(t, c)
	c.StaleEnds = 0
	assert.Equal(t, run(t, c), late)
}
