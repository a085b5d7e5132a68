package sim_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed/sim"
)

// These tests hold what the documentation of the package says. Each asserts with room
// to spare, for two seeds.

func strategy(t *testing.T, name string) sim.Strategy {
	t.Helper()
	for _, s := range sim.Strategies(32) {
		if s.Name == name {
			return s
		}
	}
	require.Fail(t, "no such strategy", name)
	return sim.Strategy{}
}

// warm is how long a run goes on at a load that every day has, unmeasured, so that what
// learns has learnt.
const warm = 5 * time.Second

func steady(load float64) []sim.Phase { return onset(load, 35*time.Second) }

func onset(load float64, length time.Duration) []sim.Phase {
	return []sim.Phase{{For: warm, Load: min(load, 0.8)}, {For: length, Load: load}}
}

func peak(after time.Duration) []sim.Phase {
	return []sim.Phase{{For: 10 * time.Second, Load: 0.8}, {For: 30 * time.Second, Load: 3}, {For: after, Load: 0.8}}
}

func seeds(t *testing.T, test func(of func(s sim.Strategy, phases []sim.Phase) sim.Result)) {
	t.Helper()
	if raceEnabled {
		t.Skip("a simulation has one goroutine")
	}
	t.Parallel()
	for _, seed := range []uint64{1, 2} {
		test(func(s sim.Strategy, phases []sim.Phase) sim.Result {
			return run(t, sim.Config{Seed: seed, Strategy: s, Phases: phases, Warm: warm})
		})
	}
}

func TestHalfTheLoadIsServed(t *testing.T) {
	seeds(t, func(of func(sim.Strategy, []sim.Phase) sim.Result) {
		for _, s := range sim.Strategies(32) {
			total := of(s, steady(0.5)).Total()
			if s.Adaptive == nil {
				assert.Equal(t, 1.0, total.Goodput(), s.Name)
			} else { // it begins with a limit of 20, and probes
				assert.Greater(t, total.Goodput(), 0.98, s.Name)
			}
		}
	})
}

func TestWithoutLimitOverloadIsCollapse(t *testing.T) {
	seeds(t, func(of func(sim.Strategy, []sim.Phase) sim.Result) {
		for _, name := range []string{"none", "fifo"} {
			s := strategy(t, name)
			for _, load := range []float64{2, 3} {
				r := of(s, steady(load))
				assert.Less(t, r.Goodput, 0.1, name)
				assert.Less(t, r.Of(shed.Critical).Goodput(), 0.1, name)
				assert.Greater(t, r.Wasted+r.Lost, 0.9, name)
				assert.Greater(t, r.Amplification, 2.5, name)
			}
			r := of(s, peak(20*time.Second))
			assert.Equal(t, sim.Never, r.Recovery, "%s stays down when the peak is over", name)
		}
	})
}

// Four seconds of overload are over, and the retries they have caused keep the queue as
// long as it is: a metastable failure. With few retries the server works it off.
func TestRetriesKeepAnOverloadAlive(t *testing.T) {
	seeds(t, func(of func(sim.Strategy, []sim.Phase) sim.Result) {
		burst := []sim.Phase{{For: 10 * time.Second, Load: 0.7}, {For: 4 * time.Second, Load: 1.5}, {For: 40 * time.Second, Load: 0.7}}
		s := strategy(t, "fifo")
		r := of(s, burst)
		assert.Equal(t, sim.Never, r.Recovery)
		assert.Greater(t, r.Amplification, 2.3)
		s.Budget = 0.1
		r = of(s, burst)
		assert.LessOrEqual(t, r.Recovery, 15*time.Second)
		assert.Less(t, r.Amplification, 1.1)
	})
}

func TestALimitKeepsTheServerAtWork(t *testing.T) {
	seeds(t, func(of func(sim.Strategy, []sim.Phase) sim.Result) {
		for _, name := range []string{"fixed", "codel", "gradient2", "gradient2-codel", "vegas", "vegas-codel"} {
			r := of(strategy(t, name), steady(3))
			assert.Greater(t, r.Goodput, 0.9, name)
			assert.Less(t, r.Wasted, 0.01, name)
		}
	})
}

func TestTheQueueKnowsTheClasses(t *testing.T) {
	seeds(t, func(of func(sim.Strategy, []sim.Phase) sim.Result) {
		for without, with := range map[string]string{"fixed": "codel", "gradient2": "gradient2-codel", "vegas": "vegas-codel"} {
			r := of(strategy(t, without), steady(3))
			assert.InDelta(t, r.Of(shed.Background).Goodput(), r.Of(shed.Critical).Goodput(), 0.03, without)
			r = of(strategy(t, with), steady(3))
			assert.Greater(t, r.Of(shed.Critical).Goodput(), 0.99, with)
			assert.Less(t, r.Of(shed.Background).Goodput(), 0.01, with)
			inOrder(t, with, r)
		}
	})
}

func inOrder(t *testing.T, name string, r sim.Result) {
	t.Helper()
	for i := 1; i < len(r.Classes); i++ {
		assert.GreaterOrEqual(t, r.Classes[i].Goodput(), r.Classes[i-1].Goodput()-0.01, "%s: class %d", name, i)
	}
}

func TestTheRecommendedKeepsTheCriticalUnharmed(t *testing.T) {
	seeds(t, func(of func(sim.Strategy, []sim.Phase) sim.Result) {
		s := strategy(t, "recommended")
		alone := of(s, steady(0.5)).Of(shed.Critical)
		for _, load := range []float64{1, 2, 3} {
			r := of(s, steady(load))
			assert.Greater(t, r.Goodput, 0.9, "load %v", load)
			assert.GreaterOrEqual(t, r.Of(shed.Critical).Goodput(), 0.99, "load %v", load)
			assert.Less(t, r.Of(shed.Critical).P99, 2*alone.P99, "load %v", load)
			assert.Less(t, r.Amplification, 1.2, "load %v", load)
			inOrder(t, s.Name, r)
		}
		// Critical requests alone are all that the server can do.
		r := of(s, steady(5))
		assert.Greater(t, r.Goodput, 0.9)
		assert.Greater(t, r.Of(shed.Critical).Goodput(), 0.9)
	})
}

func TestGatesRecoverAtOnce(t *testing.T) {
	seeds(t, func(of func(sim.Strategy, []sim.Phase) sim.Result) {
		for _, name := range []string{"fixed", "codel", "gradient2-codel", "vegas-codel"} {
			assert.LessOrEqual(t, of(strategy(t, name), peak(30*time.Second)).Recovery, 3*time.Second, name)
		}
		r := of(strategy(t, "recommended"), peak(3*time.Minute))
		assert.LessOrEqual(t, r.Of(shed.Critical).Recovery, time.Second)
		assert.LessOrEqual(t, r.Recovery, 150*time.Second, "the shedder lets one class in after the other")
	})
}

func TestAShedderAloneIsTooLate(t *testing.T) {
	seeds(t, func(of func(sim.Strategy, []sim.Phase) sim.Result) {
		r := of(strategy(t, "shedder"), steady(3))
		assert.Less(t, r.Goodput, 0.1)
		assert.Less(t, r.Of(shed.Critical).Goodput(), 0.1)
	})
}

// What a shedder lets in again, it lets in until the utilization is at Low: behind a gate,
// bounds below what the server can do cost answers, and time to recover.
func TestLowBoundsOfAShedderCostAnswers(t *testing.T) {
	seeds(t, func(of func(sim.Strategy, []sim.Phase) sim.Result) {
		s := strategy(t, "recommended")
		wide := []sim.Result{of(s, steady(1)), of(s, peak(4*time.Minute))}
		s.Signal = sim.Busy
		s.Shedder = &shed.ShedderOptions{High: 0.9, Low: 0.72, RestoreOver: 100 * time.Second}
		low := []sim.Result{of(s, steady(1)), of(s, peak(4*time.Minute))}
		assert.Less(t, low[0].Goodput, wide[0].Goodput-0.03)
		assert.Greater(t, low[1].Recovery, wide[1].Recovery+time.Minute)
	})
}

func TestAShedderTearsFewerUsers(t *testing.T) {
	seeds(t, func(of func(sim.Strategy, []sim.Phase) sim.Result) {
		s := strategy(t, "recommended")
		with := of(s, steady(3)).Torn
		s.Shedder = nil
		assert.Less(t, with, 0.9*of(s, steady(3)).Torn)
	})
}

// A throttle saves the server the refusals, and forgets an overload as slowly as its
// window is long. A budget of retries saves it less, and has nothing to forget.
func TestAThrottleForgetsSlowly(t *testing.T) {
	seeds(t, func(of func(sim.Strategy, []sim.Phase) sim.Result) {
		s := strategy(t, "codel")
		s.Throttle = &shed.ThrottleOptions{Window: 10 * time.Second}
		short := of(s, peak(3*time.Minute))
		s.Throttle = &shed.ThrottleOptions{Window: 2 * time.Minute}
		long := of(s, peak(3*time.Minute))
		assert.Less(t, long.Refusing, 0.001)
		assert.LessOrEqual(t, short.Recovery, 2*time.Minute)
		assert.Equal(t, sim.Never, long.Recovery)
		s.Throttle, s.Budget = nil, 0.1
		budget := of(s, peak(3*time.Minute))
		assert.LessOrEqual(t, budget.Recovery, time.Second)
		assert.Less(t, budget.Amplification, 1.15)
	})
}
