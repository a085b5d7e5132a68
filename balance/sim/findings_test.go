package sim_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/sim"
)

// These tests hold what the documentation of balance says of its strategies. Each
// asserts with room to spare, for two seeds.

// of runs a case of a scenario.
func of(t *testing.T, scenario, name string, change ...func(c *sim.Config)) sim.Result {
	t.Helper()
	for _, s := range sim.Scenarios() {
		for _, c := range s.Cases {
			if s.Name == scenario && c.Name == name {
				for _, f := range change {
					f(&c.Config)
				}
				// Enough for the margins below.
				if c.Config.Jobs == 0 {
					c.Config.Jobs = 60_000
				}
				return run(t, c.Config)
			}
		}
	}
	require.Fail(t, "no such case", "%s/%s", scenario, name)
	return sim.Result{}
}

func seeds(t *testing.T, test func(t *testing.T, seed func(c *sim.Config))) {
	t.Helper()
	if raceEnabled {
		t.Skip("a simulation has one goroutine at a time, and needs long runs to find anything")
	}
	t.Parallel()
	for _, n := range []uint64{1, 2} {
		test(t, func(c *sim.Config) { c.Seed = n })
	}
}

func TestScenariosAreWellFormed(t *testing.T) {
	for _, s := range sim.Scenarios() {
		assert.NotEmpty(t, s.Doc)
		seen := map[string]bool{}
		for _, c := range s.Cases {
			assert.False(t, seen[c.Name], "%s/%s occurs twice", s.Name, c.Name)
			seen[c.Name] = true
			parts := strings.Split(c.Name, "/")
			for _, part := range parts {
				assert.Regexp(t, `^[a-z]+=[a-z0-9.]+$`, part)
			}
			assert.True(t, strings.HasPrefix(parts[len(parts)-1], "strategy="))
			c.Config.Jobs = 200
			run(t, c.Config)
		}
	}
}

func TestManyClientsMakeCountsBlind(t *testing.T) {
	seeds(t, func(t *testing.T, seed func(*sim.Config)) {
		var p99, blind []float64
		for _, clients := range []string{"1", "10", "100", "1000"} {
			r := of(t, "clients", "clients="+clients+"/subset=all/strategy=p2c", seed)
			p99, blind = append(p99, r.P99), append(blind, r.Blind)
		}
		assert.IsIncreasing(t, p99)
		assert.IsIncreasing(t, blind)
		assert.Greater(t, p99[2], 1.8*p99[0])
		assert.Greater(t, blind[2], 0.85)
		assert.Less(t, blind[0], 0.1)
	})
}

func TestSubsetsHelpManyClients(t *testing.T) {
	seeds(t, func(t *testing.T, seed func(*sim.Config)) {
		all := of(t, "clients", "clients=100/subset=all/strategy=p2c", seed)
		twelve := of(t, "clients", "clients=100/subset=12/strategy=p2c", seed)
		four := of(t, "clients", "clients=100/subset=4/strategy=p2c", seed)
		assert.Less(t, twelve.P99, 0.8*all.P99)
		assert.Less(t, four.P99, twelve.P99)
		assert.Less(t, twelve.MaxShare, 1.15, "all servers get the same")
		assert.Less(t, four.MaxShare, 1.15)
	})
}

func TestProbesHelpManyClients(t *testing.T) {
	seeds(t, func(t *testing.T, seed func(*sim.Config)) {
		counted := of(t, "clients", "clients=100/subset=all/strategy=p2c", seed)
		probed := of(t, "clients", "clients=100/subset=all/strategy=prequal", seed)
		assert.Less(t, probed.P99, 0.65*counted.P99)
	})
}

// With one client, whose picks are known at once, old news sends no herd, but takes
// from many choices most of what they were better by.
func TestLateEndsHarmManyChoicesMost(t *testing.T) {
	seeds(t, func(t *testing.T, seed func(*sim.Config)) {
		harm := func(choices string) float64 {
			late := of(t, "stale", "signal=ends/age=20/strategy="+choices, seed)
			known := of(t, "stale", "signal=ends/age=20/strategy="+choices, seed, func(c *sim.Config) { c.StaleEnds = 0 })
			return late.P99 / known.P99
		}
		assert.Greater(t, harm("p10c"), 1.2*harm("p2c"))
	})
}

// With many clients, which do not know of each other's picks, it does: the older the
// news, the fewer choices are best, and the pool of Prequal is a choice among many.
// (Mitzenmacher, How Useful Is Old Information?, IEEE TPDS 2000.)
func TestOldLoadsSendHerds(t *testing.T) {
	seeds(t, func(t *testing.T, seed func(*sim.Config)) {
		p99 := func(age, strategy string) float64 {
			return of(t, "stale", "signal=reports/age="+age+"/strategy="+strategy, seed).P99
		}
		assert.Less(t, p99("1", "p3c"), p99("1", "p2c"))
		assert.Less(t, 1.5*p99("5", "p2c"), p99("5", "p10c"))
		two, three, ten := p99("20", "p2c"), p99("20", "p3c"), p99("20", "p10c")
		assert.Less(t, 1.1*two, three)
		assert.Less(t, 1.5*three, ten)
		random := p99("20", "random")
		assert.Less(t, 1.3*two, random, "two choices of old news are better than none")
		assert.Less(t, random, ten, "and ten are worse")
		assert.Less(t, random, p99("20", "prequal"))
	})
}

// A server that fails at once gets at most its fair share: by the penalty alone, and
// with ejections next to nothing.
func TestASinkholeAttractsNothing(t *testing.T) {
	seeds(t, func(t *testing.T, seed func(*sim.Config)) {
		for _, s := range []string{"p2c", "p3c", "latency", "prequal"} {
			short := func(c *sim.Config) { c.Jobs = 20_000 }
			off := of(t, "sinkhole", "health=off/strategy="+s, seed, short).Groups[0]
			penalty := of(t, "sinkhole", "health=off/strategy="+s, seed, short, func(c *sim.Config) { c.Options.Health.Penalty = 0 }).Groups[0]
			on := of(t, "sinkhole", "health=on/strategy="+s, seed, short).Groups[0]
			assert.Greater(t, off.Share, 1.2*off.Fair, "%s attracts without", s)
			assert.Less(t, penalty.Share, 0.85*penalty.Fair, s)
			assert.Less(t, on.Share, 0.05*on.Fair, s)
		}
	})
}

// With all failing, none is worse than the others.
func TestAllFailingIsEven(t *testing.T) {
	seeds(t, func(t *testing.T, seed func(*sim.Config)) {
		for _, s := range []string{"random", "roundrobin", "p2c", "p3c", "latency", "prequal"} {
			r := of(t, "sinkhole", "health=on/strategy="+s, seed, func(c *sim.Config) { c.Events[0].Count = 20 })
			assert.Equal(t, 1.0, r.FailRate)
			assert.Less(t, r.MaxShare, 1.2, s)
		}
	})
}

// Without failures and without new servers, health changes nothing at all.
func TestHealthCostsTheHealthyNothing(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"random", "roundrobin", "p2c", "p3c", "latency", "prequal"} {
		on := of(t, "heterogeneous", "clients=10/strategy="+s, func(c *sim.Config) { c.Jobs = jobs(20_000) })
		off := of(t, "heterogeneous", "clients=10/strategy="+s, func(c *sim.Config) {
			c.Jobs = jobs(20_000)
			c.Options.Health = alone().Options.Health
		})
		assert.Equal(t, on, off, s)
	}
}

func TestLatencyTellsSlowServers(t *testing.T) {
	seeds(t, func(t *testing.T, seed func(*sim.Config)) {
		random := of(t, "heterogeneous", "clients=100/strategy=random", seed)
		counted := of(t, "heterogeneous", "clients=100/strategy=p2c", seed)
		latency := of(t, "heterogeneous", "clients=100/strategy=latency", seed)
		probed := of(t, "heterogeneous", "clients=100/strategy=prequal", seed)
		assert.Less(t, latency.P99, random.P99/10)
		assert.Less(t, latency.P99, counted.P99/1.7)
		assert.Less(t, probed.P99, latency.P99/2)
		assert.Less(t, latency.Groups[0].Share, 0.5*latency.Groups[0].Fair)
	})
}

func TestWeightsAreHonoured(t *testing.T) {
	seeds(t, func(t *testing.T, seed func(*sim.Config)) {
		idle := func(c *sim.Config) { c.Utilization = 0.05 }
		for _, s := range []string{"p2c", "p3c"} {
			r := of(t, "weights", "strategy="+s, seed)
			assert.LessOrEqual(t, r.P99, 8.0, s)
			assert.InDelta(t, 0.51, r.Groups[0].Share, 0.05, s)
			r = of(t, "weights", "strategy="+s, seed, idle)
			assert.InDelta(t, r.Groups[0].Fair, r.Groups[0].Share, 0.01, s)
		}
		for _, s := range []string{"latency", "prequal"} {
			assert.LessOrEqual(t, of(t, "weights", "strategy="+s, seed).P99, 8.0, s)
		}
		for _, s := range []string{"random", "roundrobin"} {
			r := of(t, "weights", "strategy="+s, seed)
			assert.InDelta(t, r.Groups[0].Fair, r.Groups[0].Share, 0.01, s)
		}
	})
}

func TestProbesFindAntagonists(t *testing.T) {
	seeds(t, func(t *testing.T, seed func(*sim.Config)) {
		random := of(t, "antagonist", "strategy=random", seed)
		counted := of(t, "antagonist", "strategy=p2c", seed)
		probed := of(t, "antagonist", "strategy=prequal", seed)
		assert.Less(t, counted.P99, 0.8*random.P99)
		assert.Less(t, probed.P99, 0.8*counted.P99)
	})
}

func TestSlowStartSparesColdServers(t *testing.T) {
	seeds(t, func(t *testing.T, seed func(*sim.Config)) {
		for _, s := range []string{"p2c", "latency"} { // Prequal finds the cold ones itself
			on := of(t, "slowstart", "health=on/strategy="+s, seed)
			off := of(t, "slowstart", "health=off/strategy="+s, seed)
			assert.Less(t, on.Groups[1].P99, 0.85*off.Groups[1].P99, s)
			assert.Less(t, on.P999, 1.1*off.P999, s)
		}
	})
}

// While it warms up, a new server gets a part that grows from a tenth.
func TestSlowStartGrows(t *testing.T) {
	seeds(t, func(t *testing.T, seed func(*sim.Config)) {
		c := sim.Config{
			Jobs: 35_000, Utilization: 0.5, Clients: 2, Strategy: least(2),
			Servers: []sim.Group{{Count: 40}, {Count: 40, Absent: true}},
			Events:  []sim.Event{{At: 500, Do: sim.Join, First: 40, Count: 40}},
		}
		seed(&c)
		c.Options.Health.SlowStart = 100 * time.Second // 1000 service times
		var picks, of [12]float64
		c.Trace = func(r sim.Request) {
			if k := int((r.Start - 500) / 100); r.Start >= 500 && k < len(of) {
				of[k]++
				if r.Server >= 40 {
					picks[k]++
				}
			}
		}
		run(t, c)
		for k := range picks {
			// Relative to the part of the old ones, with the warmth w of the middle of the
			// window: w to 1.
			warmth := min(max(0.1, (float64(k)+0.5)/10), 1)
			share := picks[k] / of[k]
			assert.InDelta(t, warmth/(1+warmth), share, 0.06, "window %d", k)
		}
	})
}

func TestADeployFailsNothing(t *testing.T) {
	seeds(t, func(t *testing.T, seed func(*sim.Config)) {
		random := of(t, "deploy", "strategy=random", seed)
		assert.Zero(t, random.FailRate)
		for _, s := range []string{"roundrobin", "p2c", "p3c", "latency", "prequal"} {
			r := of(t, "deploy", "strategy="+s, seed)
			assert.Zero(t, r.FailRate, s)
			assert.Less(t, r.P99, 0.9*random.P99, s)
			assert.Less(t, r.MaxShare, 1.25, s)
		}
	})
}

func TestALostZoneIsTakenOver(t *testing.T) {
	seeds(t, func(t *testing.T, seed func(*sim.Config)) {
		for _, s := range []string{"roundrobin", "p2c", "prequal"} {
			r := of(t, "zoneloss", "prefer=true/strategy="+s, seed)
			assert.Zero(t, r.FailRate, s)
			assert.Less(t, r.P99, 15.0, s)
			assert.Less(t, r.MaxShare, 1.25, s)
			anywhere := of(t, "zoneloss", "prefer=false/strategy="+s, seed)
			assert.Less(t, r.CrossZone, anywhere.CrossZone/2, s)
			assert.Less(t, r.P99, 1.15*anywhere.P99, s)
			// Until it is lost, nothing leaves its zone.
			before := of(t, "zoneloss", "prefer=true/strategy="+s, seed, func(c *sim.Config) { c.Events = nil })
			assert.Zero(t, before.CrossZone, s)
		}
	})
}

func TestRenderingNeedsChoice(t *testing.T) {
	seeds(t, func(t *testing.T, seed func(*sim.Config)) {
		turns := of(t, "rendering", "strategy=roundrobin", seed)
		for _, s := range []string{"p2c", "p3c", "latency", "prequal"} {
			r := of(t, "rendering", "strategy="+s, seed)
			assert.Less(t, r.P99, 0.9*turns.P99, s)
		}
	})
}

func TestFadingLatencyDoesNotCollapse(t *testing.T) {
	seeds(t, func(t *testing.T, seed func(*sim.Config)) {
		r := of(t, "heterogeneous", "clients=100/strategy=latency", seed, func(c *sim.Config) {
			c.Strategy = balance.LeastLatency(balance.LatencyOptions{Decay: 10 * 100 * time.Millisecond})
		})
		assert.Less(t, r.P99, 200.0)
	})
}
