package sim_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/sim"
)

// queues is the config of many servers that are independent of each other, since
// requests are spread at random: the figures are those of one queue.
func queues(rho float64, g sim.Group, d sim.Dist) sim.Config {
	g.Count = 100
	return sim.Config{
		Seed: 1, Jobs: jobs(600_000), Utilization: rho, Service: d, Strategy: balance.Random(),
		Servers: []sim.Group{g},
	}
}

// tolerance widens a tolerance for runs that are a tenth as long.
func tolerance(x float64) float64 {
	if raceEnabled {
		return 4 * x
	}
	return x
}

func TestFirstComeFirstServedIsTheMM1Queue(t *testing.T) {
	t.Parallel()
	for _, rho := range []float64{0.3, 0.5, 0.8} {
		r := run(t, queues(rho, sim.Group{}, sim.Exponential()))
		assert.InEpsilon(t, 1/(1-rho), r.Mean, tolerance(0.02), "utilisation %v", rho)
		// The whole distribution, which another order of service would change.
		assert.InEpsilon(t, math.Log(2)/(1-rho), r.P50, tolerance(0.02))
		assert.InEpsilon(t, math.Log(100)/(1-rho), r.P99, tolerance(0.06))
		assert.InEpsilon(t, math.Log(1000)/(1-rho), r.P999, tolerance(0.1))
	}
}

// Pollaczek and Khinchine: the mean depends on the variation of the sizes.
func TestFirstComeFirstServedIsTheMG1Queue(t *testing.T) {
	t.Parallel()
	const rho = 0.6
	for name, c := range map[string]struct {
		dist      sim.Dist
		variation float64
	}{
		"constant":         {sim.Constant(), 0},
		"exponential":      {sim.Exponential(), 1},
		"hyperexponential": {sim.Hyperexponential(4), 4},
		"lognormal":        {sim.Lognormal(3), 3},
	} {
		r := run(t, queues(rho, sim.Group{}, c.dist))
		assert.InEpsilon(t, 1+rho*(1+c.variation)/(2*(1-rho)), r.Mean, tolerance(0.03), name)
	}
}

// Erlang's formula for the probability of waiting.
func TestWorkersAreTheMMcQueue(t *testing.T) {
	t.Parallel()
	const c, rho = 4, 0.8
	term, sum := 1.0, 0.0
	for k := range c {
		sum += term
		term *= c * rho / float64(k+1)
	}
	waits := term / (1 - rho) / (sum + term/(1-rho))
	r := run(t, queues(rho, sim.Group{Workers: c}, sim.Exponential()))
	assert.InEpsilon(t, 1+waits/(c*(1-rho)), r.Mean, tolerance(0.02))
}

// Processor sharing is insensitive to the distribution of the sizes, and slows small
// and large requests down alike.
func TestSharingIsFair(t *testing.T) {
	t.Parallel()
	const rho = 0.6
	for name, d := range map[string]sim.Dist{
		"constant":         sim.Constant(),
		"exponential":      sim.Exponential(),
		"hyperexponential": sim.Hyperexponential(4),
		"pareto":           sim.Pareto(1.8, 100),
	} {
		var took, size [2]float64 // of small and of large requests
		c := queues(rho, sim.Group{Sharing: true}, d)
		c.Trace = func(r sim.Request) {
			i := 0
			if r.Size > 1 {
				i = 1
			}
			took[i] += r.Latency
			size[i] += r.Size
		}
		r := run(t, c)
		assert.InEpsilon(t, 1/(1-rho), r.Mean, tolerance(0.03), name)
		for i := range took {
			if size[i] > 0 {
				assert.InEpsilon(t, 1/(1-rho), took[i]/size[i], tolerance(0.05), name)
			}
		}
	}
}

func TestSpeedDividesTime(t *testing.T) {
	t.Parallel()
	for _, sharing := range []bool{false, true} {
		slow := run(t, queues(0.7, sim.Group{Workers: 2, Sharing: sharing}, sim.Exponential()))
		fast := run(t, queues(0.7, sim.Group{Workers: 2, Sharing: sharing, Speed: 4}, sim.Exponential()))
		assert.InEpsilon(t, slow.Mean/4, fast.Mean, 1e-4)
		assert.InEpsilon(t, slow.P99/4, fast.P99, 1e-2)
	}
}

// slowdown is a time in which a server is slower.
type slowdown struct{ from, to, factor float64 }

// naive serves requests by the definition: between two moments at which something
// changes, every request in service gets its part of the processors.
func naive(arrivals, sizes []float64, workers int, sharing bool, slowed []slowdown) (ends []float64) {
	type request struct {
		number int
		left   float64
	}
	var present []request // in the order of arrival
	ends = make([]float64, len(arrivals))
	now, next := 0.0, 0
	for next < len(arrivals) || len(present) > 0 {
		rate, until := 1.0, math.Inf(1)
		for _, s := range slowed {
			if now >= s.from && now < s.to {
				rate *= s.factor
				until = min(until, s.to)
			} else if now < s.from {
				until = min(until, s.from)
			}
		}
		served := min(len(present), workers)
		if sharing {
			rate *= float64(served) / max(1, float64(len(present)))
			served = len(present)
		}
		if next < len(arrivals) {
			until = min(until, arrivals[next])
		}
		first := -1
		for i := range served {
			if rate > 0 && now+present[i].left/rate <= until {
				first, until = i, now+present[i].left/rate
			}
		}
		for i := range served {
			present[i].left -= (until - now) * rate
		}
		now = until
		switch {
		case first >= 0:
			ends[present[first].number] = now
			present = append(present[:first], present[first+1:]...)
		case next < len(arrivals) && now == arrivals[next]:
			present = append(present, request{next, sizes[next]})
			next++
		}
	}
	return ends
}

// Every request ends when it should, with one processor and several, that are shared
// or not, whose speed changes or is 0 for a while.
func TestServersMatchANaiveModel(t *testing.T) {
	t.Parallel()
	slowed := []slowdown{{100, 200, 0.5}, {150, 170, 0}, {300, 320, 0}, {400, 600, 0.25}}
	for workers := 1; workers <= 3; workers++ {
		for _, sharing := range []bool{false, true} {
			const n = 3000
			c := sim.Config{
				Seed: uint64(workers), Jobs: n, Utilization: 0.8, Strategy: balance.Random(),
				Servers: []sim.Group{{Count: 1, Workers: workers, Sharing: sharing}},
				Service: sim.Hyperexponential(3),
			}
			for _, s := range slowed {
				c.Events = append(c.Events, sim.Event{At: s.from, For: s.to - s.from, Do: sim.Slow, Factor: s.factor})
			}
			arrivals, sizes, ends := make([]float64, n), make([]float64, n), make([]float64, n)
			c.Trace = func(r sim.Request) {
				arrivals[r.Number], sizes[r.Number], ends[r.Number] = r.Start, r.Size, r.Start+r.Latency
			}
			run(t, c)
			for i, want := range naive(arrivals, sizes, workers, sharing, slowed) {
				require.InDelta(t, want, ends[i], 1e-5, "request %d, %d workers, sharing %v", i, workers, sharing)
			}
		}
	}
}

func TestRequestsAreServedInOrder(t *testing.T) {
	c := queues(0.9, sim.Group{Workers: 3}, sim.Exponential())
	c.Jobs = 50_000
	c.Servers[0].Count = 5
	requests := make([]sim.Request, c.Jobs)
	c.Trace = func(r sim.Request) { requests[r.Number] = r }
	run(t, c)
	var last [5]float64
	for _, r := range requests {
		began := r.Start + r.Latency - r.Size
		require.GreaterOrEqual(t, began, last[r.Server]-1e-5, "request %d overtakes", r.Number)
		last[r.Server] = began
	}
}

// moments are the mean and the squared coefficient of variation of sizes in a run.
func moments(t *testing.T, d sim.Dist) (mean, variation float64) {
	var n, sum, squares float64
	run(t, sim.Config{
		Jobs: jobs(500_000), Utilization: 0.01, Service: d, Strategy: balance.Random(), Servers: []sim.Group{{Count: 1}},
		Trace: func(r sim.Request) {
			n++
			sum += r.Size
			squares += r.Size * r.Size
		},
	})
	mean = sum / n
	return mean, squares/n/(mean*mean) - 1
}

func TestDistributionsHaveMeanOneAndTheirVariation(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		dist      sim.Dist
		variation float64
	}{
		"zero":             {sim.Dist{}, 1},
		"exponential":      {sim.Exponential(), 1},
		"constant":         {sim.Constant(), 0},
		"hyperexponential": {sim.Hyperexponential(10), 10},
		"lognormal":        {sim.Lognormal(2), 2},
		"custom":           {sim.Custom(func(r *rand.Rand) float64 { return 2 * r.Float64() }), 1.0 / 3},
		// By numerical integration of x^2 over the density.
		"pareto":      {sim.Pareto(1.5, 100), paretoVariation(1.5, 100)},
		"pareto of 1": {sim.Pareto(1, 1000), paretoVariation(1, 1000)},
		"pareto of 2": {sim.Pareto(2, 50), paretoVariation(2, 50)},
	} {
		mean, variation := moments(t, c.dist)
		assert.InDelta(t, 1, mean, tolerance(0.01), name)
		assert.InDelta(t, c.variation, variation, tolerance(0.03+0.06*c.variation), name)
	}
}

func paretoVariation(shape, ratio float64) float64 {
	var mass, mean, square float64
	const steps = 1_000_000
	for i := range steps { // in the logarithm of the size
		x := math.Exp((float64(i) + 0.5) / steps * math.Log(ratio))
		p := math.Pow(x, -shape)
		mass, mean, square = mass+p, mean+p*x, square+p*x*x
	}
	mean /= mass
	return square/mass/(mean*mean) - 1
}

// nanAfter draws ones, and then no number.
func nanAfter(n int) func(*rand.Rand) float64 {
	return func(*rand.Rand) float64 {
		if n--; n < 0 {
			return math.NaN()
		}
		return 1
	}
}
