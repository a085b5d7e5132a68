package sim_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/sim"
)

func least(choices int) balance.Strategy {
	return balance.LeastRequest(balance.LeastRequestOptions{Choices: choices})
}

func run(t testing.TB, c sim.Config) sim.Result {
	t.Helper()
	r, err := sim.Run(c)
	require.NoError(t, err)
	return r
}

// jobs is a number of requests, fewer under the race detector, which makes them twenty
// times as slow.
func jobs(n int) int {
	if raceEnabled {
		return min(n, max(n/10, 5_000))
	}
	return n
}

// busy is a config in which much happens.
func busy(seed uint64, strategy balance.Strategy) sim.Config {
	return sim.Config{
		Seed: seed, Jobs: jobs(20_000), Utilization: 0.7, Clients: 5, Strategy: strategy,
		Service: sim.Lognormal(2), Network: 0.1, CrossZone: 0.1, Zones: []string{"a", "b"}, PreferZone: true,
		StaleLoads: 0.5, Reports: 3, Piggyback: true,
		Servers: []sim.Group{
			{Name: "fifo", Count: 8, Zone: "a"},
			{Name: "sharing", Count: 8, Workers: 2, Sharing: true, Zone: "b", Weight: 2},
			{Name: "late", Count: 2, Zone: "a", Absent: true},
		},
		Events: []sim.Event{
			{Do: sim.Slow, Count: 16, Factor: 0, For: 0.5, Every: 10},
			{At: 100, Do: sim.Fail, First: 3, Prob: 0.5, For: 50, After: 0.1},
			{At: 200, Do: sim.Crash, First: 8, Count: 2, For: 20, After: 1},
			{At: 300, Do: sim.Join, First: 16, Count: 2, For: 20, Factor: 0.5},
			{At: 400, Do: sim.Leave, First: 0, For: 100},
		},
	}
}

func strategies() map[string]balance.Strategy {
	return map[string]balance.Strategy{
		"random":     balance.Random(),
		"roundrobin": balance.RoundRobin(),
		"p2c":        least(2),
		"p3c":        least(3),
		"latency":    balance.LeastLatency(balance.LatencyOptions{}),
		"prequal":    nil,
	}
}

func TestTheSameConfigGivesTheSameResult(t *testing.T) {
	for name, s := range strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := run(t, busy(1, s))
			assert.Equal(t, first, run(t, busy(1, s)))
			assert.NotEqual(t, first.Mean, run(t, busy(2, s)).Mean, "another seed")
		})
	}
}

// What a strategy does has no influence on what it is given to do.
func TestStrategiesSeeTheSameRequests(t *testing.T) {
	type given struct {
		client      int
		start, size float64
	}
	var want []given
	for name, s := range strategies() {
		c := busy(3, s)
		got := make([]given, c.Jobs)
		c.Trace = func(r sim.Request) { got[r.Number] = given{r.Client, r.Start, r.Size} }
		run(t, c)
		if want == nil {
			want = got
		}
		require.Equal(t, want, got, name)
	}
}

func TestEveryRequestEndsOnce(t *testing.T) {
	for name, s := range strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := busy(4, s)
			c.Warm = -1
			ends := make([]int, c.Jobs)
			byGroup, failed := make([]int, 3), 0
			now := 0.0
			c.Trace = func(r sim.Request) {
				ends[r.Number]++
				if r.Failed {
					failed++
				}
				switch {
				case r.Server < 8:
					byGroup[0]++
				case r.Server < 16:
					byGroup[1]++
				default:
					byGroup[2]++
				}
				end := r.Start + r.Latency
				assert.GreaterOrEqual(t, end, now-1e-9, "ends come in the order of time")
				now = end
			}
			r := run(t, c)
			for number, n := range ends {
				require.Equal(t, 1, n, "request %d", number)
			}
			assert.Equal(t, c.Jobs, r.Jobs)
			assert.InDelta(t, float64(failed)/float64(c.Jobs), r.FailRate, 1e-12)
			assert.Positive(t, failed)
			shares, fair := 0.0, 0.0
			for i, g := range r.Groups {
				assert.InDelta(t, float64(byGroup[i])/float64(c.Jobs), g.Share, 1e-12)
				shares, fair = shares+g.Share, fair+g.Fair
			}
			assert.InDelta(t, 1, shares, 1e-9)
			assert.InDelta(t, 1, fair, 1e-9)
		})
	}
}

// Little's law, with a number in flight that is integrated over time and latencies
// that are added up.
func TestLittlesLaw(t *testing.T) {
	for _, rho := range []float64{0.3, 0.6, 0.9} {
		r := run(t, sim.Config{
			Jobs: 100_000, Utilization: rho, Strategy: least(2), Clients: 3, Network: 0.5,
			Servers: []sim.Group{{Count: 20}},
		})
		assert.InEpsilon(t, r.Rate*r.Mean, r.InFlight, 0.01, "utilisation %v", rho)
		assert.InEpsilon(t, 20*rho, r.Rate, 0.02)
	}
}

func TestTheNetworkAddsItsTime(t *testing.T) {
	c := sim.Config{Jobs: 20_000, Utilization: 0.5, Strategy: balance.Random(), Servers: []sim.Group{{Count: 10, Zone: "far"}}}
	near := run(t, c)
	c.Network = 2
	far := run(t, c)
	assert.InDelta(t, near.Mean+2, far.Mean, 1e-6)
	assert.Zero(t, far.CrossZone)
	c.Zones, c.CrossZone = []string{"far", "here"}, 3
	c.Clients = 2
	farther := run(t, c)
	assert.InDelta(t, near.Mean+2+1.5, farther.Mean, 0.1)
	assert.InDelta(t, 0.5, farther.CrossZone, 0.02)
}

func TestNoBackendsIsAFailure(t *testing.T) {
	c := sim.Config{
		Jobs: 5000, Warm: -1, Utilization: 0.5, Strategy: least(2), Servers: []sim.Group{{Count: 10}},
		Events: []sim.Event{{At: 500, Do: sim.Leave, Count: 10}},
	}
	served := 0
	c.Trace = func(r sim.Request) {
		assert.Equal(t, r.Start >= 500, r.Failed)
		assert.Equal(t, r.Failed, r.Server < 0)
		if !r.Failed {
			served++
		}
	}
	r := run(t, c)
	assert.Equal(t, 5000, r.Jobs)
	assert.InDelta(t, 1-float64(served)/5000, r.FailRate, 1e-12)
	assert.InDelta(t, 0.5, r.FailRate, 0.05)
}

func TestOptionsReachTheBalancers(t *testing.T) {
	c := busy(1, least(2))
	ejected := 0
	c.Options.OnChange = func(_ string, s balance.State) {
		if s == balance.Ejected {
			ejected++
		}
	}
	r := run(t, c)
	assert.Positive(t, ejected)
	assert.Equal(t, ejected, r.Ejections)

	c.Options.Health.MaxEjected = -1
	assert.Zero(t, run(t, c).Ejections)

	c.Options.Health.Panic = 2
	_, err := sim.Run(c)
	assert.ErrorContains(t, err, "Panic")
}

func TestRunRefusesWhatIsOutOfRange(t *testing.T) {
	for want, change := range map[string]func(c *sim.Config){
		"Jobs is -1, expected":                  func(c *sim.Config) { c.Jobs = -1 },
		"Warm is 1, expected":                   func(c *sim.Config) { c.Warm = 1 },
		"Warm is NaN, expected":                 func(c *sim.Config) { c.Warm = math.NaN() },
		"Utilization is 0, expected":            func(c *sim.Config) { c.Utilization = 0 },
		"Utilization is +Inf, expected":         func(c *sim.Config) { c.Utilization = math.Inf(1) },
		"Lognormal's variation is 0, expected":  func(c *sim.Config) { c.Service = sim.Lognormal(0) },
		"Hyperexponential's variation is 1, ":   func(c *sim.Config) { c.Service = sim.Hyperexponential(1) },
		"Pareto's shape is 0, expected":         func(c *sim.Config) { c.Service = sim.Pareto(0, 10) },
		"Pareto's ratio is 1, expected":         func(c *sim.Config) { c.Service = sim.Pareto(2, 1) },
		"Custom's function is nil, expected":    func(c *sim.Config) { c.Service = sim.Custom(nil) },
		"Clients is -2, expected":               func(c *sim.Config) { c.Clients = -2 },
		"Unit is 1ns, expected":                 func(c *sim.Config) { c.Unit = time.Nanosecond },
		"PreferZone is true and Zones is empty": func(c *sim.Config) { c.PreferZone = true },
		"Network is -1, expected":               func(c *sim.Config) { c.Network = -1 },
		"CrossZone is NaN, expected":            func(c *sim.Config) { c.CrossZone = math.NaN() },
		"StaleEnds is -1, expected":             func(c *sim.Config) { c.StaleEnds = -1 },
		"StaleLoads is -1, expected":            func(c *sim.Config) { c.StaleLoads = -1 },
		"Reports is -1, expected":               func(c *sim.Config) { c.Reports = -1 },
		"Servers are 0, of which 0":             func(c *sim.Config) { c.Servers = nil },
		"Servers are 4, of which 0":             func(c *sim.Config) { c.Servers[0].Absent = true },
		"Servers[0].Count is 0, expected":       func(c *sim.Config) { c.Servers[0].Count = 0 },
		"Servers[0].Speed is -1, expected":      func(c *sim.Config) { c.Servers[0].Speed = -1 },
		"Servers[0].Workers is -1, expected":    func(c *sim.Config) { c.Servers[0].Workers = -1 },
		"Servers[0].Weight is NaN, expected":    func(c *sim.Config) { c.Servers[0].Weight = math.NaN() },
		"Events[0].Do is Action(9), expected":   func(c *sim.Config) { c.Events = []sim.Event{{Do: 9}} },
		"Events[0].At is -1, expected":          func(c *sim.Config) { c.Events = []sim.Event{{At: -1}} },
		"Events[0].For is -1, expected":         func(c *sim.Config) { c.Events = []sim.Event{{For: -1}} },
		"Events[0].Factor is 2, expected":       func(c *sim.Config) { c.Events = []sim.Event{{Factor: 2}} },
		"Events[0].Factor is 0 and For is 0":    func(c *sim.Config) { c.Events = []sim.Event{{}} },
		"Events[0].Every is 1 and For is 0":     func(c *sim.Config) { c.Events = []sim.Event{{Factor: 1, Every: 1}} },
		"Events[0].First is 4, expected 0 to 3": func(c *sim.Config) { c.Events = []sim.Event{{Factor: 1, First: 4}} },
		"Events[0].Count is 2, expected":        func(c *sim.Config) { c.Events = []sim.Event{{Factor: 1, First: 3, Count: 2}} },
		"Events[0].Prob is 1.5, expected":       func(c *sim.Config) { c.Events = []sim.Event{{Do: sim.Fail, Prob: 1.5}} },
		"Events[0].After is -1, expected":       func(c *sim.Config) { c.Events = []sim.Event{{Do: sim.Crash, After: -1}} },
		"Events[0].Every is 1, expected 0":      func(c *sim.Config) { c.Events = []sim.Event{{Do: sim.Leave, Every: 1, For: 1}} },
	} {
		c := sim.Config{Utilization: 0.5, Strategy: least(2), Servers: []sim.Group{{Count: 4}}}
		change(&c)
		_, err := sim.Run(c)
		assert.ErrorContains(t, err, want)
		assert.ErrorContains(t, err, "sim: ")
	}
}

func TestACustomSizeMustBeANumber(t *testing.T) {
	_, err := sim.Run(sim.Config{
		Utilization: 0.5, Strategy: least(2), Servers: []sim.Group{{Count: 4}},
		Service: sim.Custom(nanAfter(100)),
	})
	assert.ErrorContains(t, err, "Service drew NaN, expected")
}
