package sim_test

import (
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed/sim"
)

func run(t require.TestingT, c sim.Config) sim.Result {
	r, err := sim.Run(c)
	require.NoError(t, err)
	return r
}

func drawConfig(t *rapid.T) sim.Config {
	c := sim.Config{
		Seed:     rapid.Uint64().Draw(t, "seed"),
		Workers:  rapid.IntRange(1, 20).Draw(t, "workers"),
		Service:  time.Duration(rapid.IntRange(5, 200).Draw(t, "service")) * time.Millisecond,
		Shape:    sim.Shape(rapid.IntRange(0, 1).Draw(t, "shape")),
		Crowding: rapid.SampledFrom([]float64{0, 0.001, 1}).Draw(t, "crowding"),
		Users:    rapid.IntRange(1, 100).Draw(t, "users"),
		Timeout:  time.Duration(rapid.IntRange(1, 1000).Draw(t, "timeout")) * time.Millisecond,
		Attempts: rapid.IntRange(1, 4).Draw(t, "attempts"),
		Backoff:  time.Duration(rapid.IntRange(0, 500).Draw(t, "backoff")) * time.Millisecond,
	}
	for range rapid.IntRange(1, 3).Draw(t, "phases") {
		c.Phases = append(c.Phases, sim.Phase{
			For:  time.Duration(rapid.IntRange(1, 1000).Draw(t, "for")) * time.Millisecond,
			Load: rapid.Float64Range(0.1, 6).Draw(t, "load"),
		})
	}
	if rapid.Bool().Draw(t, "shares") {
		for i := range c.Classes {
			c.Classes[i].Share = rapid.Float64Range(0.1, 1).Draw(t, "share")
			c.Classes[i].Service = time.Duration(rapid.SampledFrom([]int{0, 5, 200}).Draw(t, "class")) * time.Millisecond
		}
	}
	c.Strategy = rapid.SampledFrom(sim.Strategies(c.Workers)).Draw(t, "strategy")
	return c
}

// Every request ends in one way, and every moment of the workers' time is accounted
// for. Run itself returns an error if a request ends twice.
func TestNothingIsLostNorCountedTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawConfig(t)
		r := run(t, c)
		bare := c
		bare.Strategy = sim.Strategy{}
		unprotected := run(t, bare)
		for i, class := range r.Classes {
			require.Equal(t, class.Requests, class.Answered+class.TimedOut+class.Refused+class.Throttled)
			require.Equal(t, unprotected.Classes[i].Requests, class.Requests, "all strategies see the same requests")
			require.Zero(t, unprotected.Classes[i].Refused+unprotected.Classes[i].Throttled)
			require.LessOrEqual(t, class.P50, class.P99)
			require.LessOrEqual(t, class.P99, c.Timeout)
		}
		// The end of a request is rounded up to nanoseconds.
		require.InDelta(t, 1, r.Goodput+r.Wasted+r.Refusing+r.Lost+r.Idle, 1e-3)
		for _, share := range []float64{r.Goodput, r.Wasted, r.Refusing, r.Lost, r.Idle} {
			require.GreaterOrEqual(t, share, -1e-9)
		}
		require.LessOrEqual(t, r.Amplification, float64(c.Attempts))
		require.GreaterOrEqual(t, r.Torn, 0.0)
		require.LessOrEqual(t, r.Torn, 1.0)
	})
}

func TestTheSameConfigGivesTheSameResult(t *testing.T) {
	for _, s := range sim.Strategies(32) {
		c := sim.Config{Seed: 7, Strategy: s, Phases: []sim.Phase{{For: 2 * time.Second, Load: 3}}}
		var results [2]sim.Result
		var both sync.WaitGroup
		for i := range results {
			both.Go(func() { results[i], _ = sim.Run(c) })
		}
		both.Wait()
		require.NotZero(t, results[0].Total().Requests)
		require.Equal(t, results[0], results[1], s.Name)
		c.Seed = 8
		require.NotEqual(t, results[0], run(t, c), s.Name)
	}
}

func TestTheWarmUpIsNotMeasured(t *testing.T) {
	c := sim.Config{Seed: 1, Phases: []sim.Phase{{For: 10 * time.Second, Load: 3}, {For: 100 * time.Second, Load: 0.5}}}
	c.Strategy = strategy(t, "codel")
	with := run(t, c)
	c.Warm = 12 * time.Second
	without := run(t, c)
	assert.NotZero(t, with.Total().Refused)
	assert.Zero(t, without.Total().Refused)
	assert.InDelta(t, 0.5, without.Goodput, 0.02)
	assert.InDelta(t, 98*320, without.Total().Requests, 4*math.Sqrt(98*320))
	assert.InDelta(t, 1, without.Goodput+without.Wasted+without.Refusing+without.Lost+without.Idle, 0.01)
}

func TestABadConfigIsNamed(t *testing.T) {
	good := func() sim.Config { return sim.Config{Phases: []sim.Phase{{For: time.Second, Load: 1}}} }
	run(t, good())
	for want, change := range map[string]func(c *sim.Config){
		"sim: Phases has length 0, expected 1 or more":                                func(c *sim.Config) { c.Phases = nil },
		"sim: Phases[0].For is 0s, expected more than 0 and up to 1000h0m0s":          func(c *sim.Config) { c.Phases[0].For = 0 },
		"sim: Phases[0].Load is NaN, expected more than 0 and finite":                 func(c *sim.Config) { c.Phases[0].Load = math.NaN() },
		"sim: Phases[0].Load is +Inf, expected more than 0 and finite":                func(c *sim.Config) { c.Phases[0].Load = math.Inf(1) },
		"sim: Warm is 1s, expected less than that of all Phases, 1s":                  func(c *sim.Config) { c.Warm = time.Second },
		"sim: Warm is -1ns, expected 0 to 1000h0m0s":                                  func(c *sim.Config) { c.Warm = -1 },
		"sim: Workers is -1, expected 0 to 1000000":                                   func(c *sim.Config) { c.Workers = -1 },
		"sim: Users is -1, expected 0 to 1000000":                                     func(c *sim.Config) { c.Users = -1 },
		"sim: Attempts is 1000001, expected 0 to 1000000":                             func(c *sim.Config) { c.Attempts = 1_000_001 },
		"sim: Service is -1ns, expected 0 to 1000h0m0s":                               func(c *sim.Config) { c.Service = -1 },
		"sim: Timeout is -1ns, expected 0 to 1000h0m0s":                               func(c *sim.Config) { c.Timeout = -1 },
		"sim: Backoff is -1ns, expected 0 to 1000h0m0s":                               func(c *sim.Config) { c.Backoff = -1 },
		"sim: Refusal is -1ns, expected 0 to 1000h0m0s":                               func(c *sim.Config) { c.Refusal = -1 },
		"sim: Shape is 2, expected Lognormal or Exponential":                          func(c *sim.Config) { c.Shape = 2 },
		"sim: Crowding is NaN, expected 0 or more and finite":                         func(c *sim.Config) { c.Crowding = math.NaN() },
		"sim: Classes[1].Share is -1, expected 0 or more and finite":                  func(c *sim.Config) { c.Classes[1].Share = -1 },
		"sim: Classes[3].Service is -1ns, expected 0 to 1000h0m0s":                    func(c *sim.Config) { c.Classes[3] = sim.Class{Share: 1, Service: -1} },
		"sim: Classes have shares of 0 in all, expected more than 0 and finite":       func(c *sim.Config) { c.Classes[0].Service = 1 },
		"sim: Strategy.Budget is NaN, expected 0 to 1000000":                          func(c *sim.Config) { c.Strategy.Budget = math.NaN() },
		"sim: Strategy.Signal is 3, expected Busy, InProgress or Demand":              func(c *sim.Config) { c.Strategy.Signal = 3 },
		"shed: ConcurrencyOptions.Limit is 0, expected 1 or more":                     func(c *sim.Config) { c.Strategy.Concurrency = &shed.ConcurrencyOptions{} },
		"shed: AdaptiveOptions.Min is -1, expected 0 or more":                         func(c *sim.Config) { c.Strategy.Adaptive = &shed.AdaptiveOptions{Min: -1} },
		"shed: ShedderOptions.High is -1, expected 0 or more":                         func(c *sim.Config) { c.Strategy.Shedder = &shed.ShedderOptions{High: -1} },
		"shed: ThrottleOptions.K is 0.5, expected 0 or a finite number of at least 1": func(c *sim.Config) { c.Strategy.Throttle = &shed.ThrottleOptions{K: 0.5} },
		"sim: Phases take 1800h0m0s in all, expected up to 1000h0m0s": func(c *sim.Config) {
			c.Phases = []sim.Phase{{For: 900 * time.Hour, Load: 1}, {For: 900 * time.Hour, Load: 1}}
		},
		"sim: Strategy.Concurrency and Strategy.Adaptive are set, expected one of them": func(c *sim.Config) {
			c.Strategy.Concurrency, c.Strategy.Adaptive = &shed.ConcurrencyOptions{Limit: 1}, &shed.AdaptiveOptions{}
		},
	} {
		c := good()
		change(&c)
		_, err := sim.Run(c)
		require.EqualError(t, err, want)
	}
}

func TestNamesAreText(t *testing.T) {
	assert.Equal(t, "lognormal exponential", sim.Lognormal.String()+" "+sim.Exponential.String())
	assert.Equal(t, "busy in-progress demand", sim.Busy.String()+" "+sim.InProgress.String()+" "+sim.Demand.String())
	seen := map[string]bool{}
	for _, s := range sim.Strategies(1) {
		assert.Regexp(t, `^[a-z0-9-]+$`, s.Name)
		assert.False(t, seen[s.Name], s.Name)
		seen[s.Name] = true
	}
}
