package sim_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed/sim"
)

// Where queueing theory has closed forms, the simulator agrees with them: without
// overload, timeouts, retries and a price of crowding.

const service = 50 * time.Millisecond

func theoretical(workers int, load float64, s sim.Strategy) sim.Config {
	return sim.Config{
		Seed: 3, Workers: workers, Service: service, Shape: sim.Exponential, Strategy: s,
		Crowding: 1e-12, Refusal: 1, Timeout: time.Hour, Attempts: 1, Users: 1,
		Phases: []sim.Phase{{For: time.Duration(float64(service) * 200_000 / float64(workers)), Load: load}},
	}
}

// line is a queue in the order of arrival without end.
func line(workers int) sim.Strategy {
	return sim.Strategy{Blind: true, Concurrency: &shed.ConcurrencyOptions{
		Limit: workers, Queue: shed.Queue{Max: 1_000_000, Target: time.Hour, Interval: time.Hour},
	}}
}

// erlangB is the probability that all of c servers without a queue are busy, at a load
// of a Erlang.
func erlangB(c int, a float64) float64 {
	b := 1.0
	for i := 1; i <= c; i++ {
		b = a * b / (float64(i) + a*b)
	}
	return b
}

// erlangC is the probability that an arrival at c servers with a queue has to wait.
func erlangC(c int, a float64) float64 {
	b := erlangB(c, a)
	return b / (1 - a/float64(c)*(1-b))
}

func skipTheory(t *testing.T) {
	if raceEnabled {
		t.Skip("a simulation has one goroutine, and theory needs long runs")
	}
	t.Parallel()
}

func TestTheMeanWaitIsThatOfErlang(t *testing.T) {
	skipTheory(t)
	for _, workers := range []int{1, 4, 32} {
		for _, load := range []float64{0.5, 0.8} {
			r := run(t, theoretical(workers, load, line(workers)))
			c := float64(workers)
			wait := erlangC(workers, load*c) * service.Seconds() / (c * (1 - load))
			assert.InEpsilon(t, service.Seconds()+wait, r.Mean.Seconds(), 0.04, "%d workers, load %v", workers, load)
			assert.InDelta(t, load, r.Goodput, 0.02*load)
			assert.InDelta(t, 1-load, r.Idle, 0.02*load)
		}
	}
}

func TestTheLatencyOfOneWorkerIsExponential(t *testing.T) {
	skipTheory(t)
	r := run(t, theoretical(1, 0.7, line(1)))
	mean := service.Seconds() / 0.3
	assert.InEpsilon(t, mean*math.Ln2, r.P50.Seconds(), 0.05)
	assert.InEpsilon(t, mean*math.Log(100), r.P99.Seconds(), 0.08)
}

// A server that shares its time has a mean that depends on nothing but the load.
func TestSharingIsInsensitiveToTheShape(t *testing.T) {
	skipTheory(t)
	for _, shape := range []sim.Shape{sim.Lognormal, sim.Exponential} {
		c := theoretical(1, 0.7, sim.Strategy{})
		c.Shape = shape
		assert.InEpsilon(t, service.Seconds()/0.3, run(t, c).Mean.Seconds(), 0.05, shape)
	}
}

func TestTheRefusalsOfAFixedLimitAreThoseOfErlang(t *testing.T) {
	skipTheory(t)
	for _, shape := range []sim.Shape{sim.Lognormal, sim.Exponential} {
		for _, load := range []float64{0.8, 1, 3} {
			c := theoretical(8, load, sim.Strategy{Concurrency: &shed.ConcurrencyOptions{Limit: 8}})
			c.Shape = shape
			total := run(t, c).Total()
			assert.InEpsilon(t, erlangB(8, 8*load), float64(total.Refused)/float64(total.Requests), 0.04, "%v, load %v", shape, load)
		}
	}
}
