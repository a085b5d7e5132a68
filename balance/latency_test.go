package balance_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/balance"
)

func latency(o balance.LatencyOptions) balance.Strategy { return balance.LeastLatency(o) }

// take makes one request of a backend that lasts d and ends with err.
func (s *scene) take(id string, d time.Duration, err error) {
	p := s.pickOf(id)
	s.now += d
	p.Done(err)
}

// observe makes one request of each backend that takes as long as is said, all at the
// same time, so that none is left out because another is known to be faster.
func (s *scene) observe(all map[string]time.Duration) {
	picks := map[string]*balance.Pick[string]{}
	for missing := len(all); missing > 0; {
		p, err := s.Pick()
		require.NoError(s.t, err)
		defer p.Done(nil) // until then it is open, and the next pick another one
		p.Observe(0)
		if all[p.ID()] > 0 && picks[p.ID()] == nil {
			picks[p.ID()] = &p
			missing--
		}
	}
	for id, p := range picks {
		p.Observe(all[id])
	}
}

func (s *scene) requireLatency(want time.Duration, id string, slack float64) {
	if h, ok := s.t.(interface{ Helper() }); ok {
		h.Helper()
	}
	require.InDelta(s.t, float64(want), float64(s.stats(id).Latency), float64(want)*slack)
}

const exact = 1e-4

func TestALatencyAboveTheAverageReplacesItAndOneBelowFadesIn(t *testing.T) {
	t.Parallel()
	s := stage(t, latency(balance.LatencyOptions{Decay: 10 * time.Second}), balance.Options{}, 1)
	s.take("b0", 10*time.Millisecond, nil)
	s.requireLatency(10*time.Millisecond, "b0", exact)
	s.take("b0", 12*time.Millisecond, nil)
	s.requireLatency(12*time.Millisecond, "b0", exact)
	for _, want := range []time.Duration{18_000, 27_000, 40_500, 60_750, 70_000, 70_000} { // half more each time
		s.take("b0", 70*time.Millisecond, nil)
		s.requireLatency(want*time.Microsecond, "b0", exact)
	}
	s.now += 10*time.Second - 10*time.Millisecond
	s.take("b0", 10*time.Millisecond, nil)
	s.requireLatency(32_073*time.Microsecond, "b0", 0.01) // 10 + 60/e
}

// A request that was broken off took at least so long. That it was broken off early
// is not fast.
func TestWhatDidNotSucceedIsALowerBound(t *testing.T) {
	t.Parallel()
	for _, err := range []error{context.Canceled, context.DeadlineExceeded, errTest} {
		o := balance.Options{Health: balance.Health{MaxEjected: -1, Penalty: -1}}
		s := stage(t, latency(balance.LatencyOptions{}), o, 2)
		s.take("b0", 100*time.Millisecond, nil)
		s.now += time.Hour
		s.take("b0", time.Millisecond, err)
		s.requireLatency(100*time.Millisecond, "b0", exact)
		s.take("b0", 140*time.Millisecond, err)
		s.requireLatency(140*time.Millisecond, "b0", exact)
		s.take("b1", 30*time.Millisecond, err)
		require.Zero(t, s.stats("b1").Latency, "less than the mean, and nothing else is known")
		s.take("b1", time.Second, err)
		s.requireLatency(time.Second, "b1", exact)
	}
}

func TestAnObservedLatencyIsNotMeasured(t *testing.T) {
	t.Parallel()
	s := stage(t, latency(balance.LatencyOptions{}), balance.Options{}, 2)
	p := s.pickOf("b0")
	p.Observe(5 * time.Millisecond)
	s.now += time.Hour // the body of the answer
	p.Done(nil)
	p.Observe(time.Hour)
	s.requireLatency(5*time.Millisecond, "b0", exact)
	require.Zero(t, s.stats("b0").InFlight)

	p = s.pickOf("b1") // a stream
	p.Observe(0)
	s.now += time.Hour
	p.Done(errTest)
	require.Zero(t, s.stats("b1").Latency)
	require.EqualValues(t, 1, s.stats("b1").Failures)

	var none balance.Pick[string]
	none.Observe(1)
	none.Report(balance.Load{})
	none.Done(nil)
}

func TestEveryStrategyKeepsAnObservedLatency(t *testing.T) {
	t.Parallel()
	s := stage(t, balance.LeastRequest(balance.LeastRequestOptions{}), balance.Options{}, 6)
	p := s.pickOf("b0")
	p.Observe(5 * time.Millisecond)
	p.Done(nil)
	s.requireLatency(5*time.Millisecond, "b0", exact)
}

func TestTheFasterOfTwoIsPicked(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 4, 5, 20} {
		s := stage(t, latency(balance.LatencyOptions{}), balance.Options{}, n)
		all := map[string]time.Duration{}
		for i := range n {
			all[fmt.Sprint("b", i)] = 10 * time.Millisecond
		}
		all["b0"] = 11 * time.Millisecond
		s.observe(all)
		require.NotContains(t, s.shares(1000), "b0", "of %d", n)
	}
}

// With more requests under way on the fast one, the slow one is picked.
func TestRequestsUnderWayCountAsTheTimeThatTheyTake(t *testing.T) {
	t.Parallel()
	s := stage(t, latency(balance.LatencyOptions{}), balance.Options{}, 2)
	s.observe(map[string]time.Duration{"b0": 10 * time.Millisecond, "b1": 40 * time.Millisecond})
	for range 100 {
		_, err := s.Pick()
		require.NoError(t, err)
	}
	require.InDelta(t, 80, s.stats("b0").InFlight, 2)
}

// An idle slow backend is expected to be like the others, never to be faster.
func TestWhatIsKnownFadesTowardTheMean(t *testing.T) {
	t.Parallel()
	const n = 10
	s := stage(t, latency(balance.LatencyOptions{Decay: 10 * time.Second}), balance.Options{}, n)
	s.served = 10 * time.Millisecond
	all := map[string]time.Duration{"b0": time.Second}
	for i := 1; i < n; i++ {
		all[fmt.Sprint("b", i)] = 10 * time.Millisecond
	}
	s.observe(all)
	delete(all, "b0")
	// With the others busy enough, a hundredfold latency is worth less than a decay.
	for range 3 {
		s.now += 10 * time.Second
		s.observe(all)
		require.NotContains(t, s.shares(200), "b0")
	}
	for i := 1; i < n; i++ { // not all alike
		all[fmt.Sprint("b", i)] = time.Duration(8000+500*i) * time.Microsecond
	}
	for range 60 {
		s.now += time.Second
		s.observe(all)
	}
	s.served = 0
	require.InDelta(t, 0.1, s.shares(10_000)["b0"], 0.08, "it is tried again")
	require.Positive(t, s.shares(10_000)["b0"])

	// Of a backend that is new nothing is known: it is like the mean.
	require.NoError(t, s.Update(append(equals(n)[1:], balance.Backend[string]{ID: "new", Value: "new"})))
	s.now += time.Minute
	delete(all, "b1")
	s.observe(all)
	require.InDelta(t, 0.1, s.shares(10_000)["new"], 0.08)
	require.Positive(t, s.shares(10_000)["new"])
}

// A pick is blind if nothing is under way and nothing has been heard lately.
func TestBlindPicksAreCounted(t *testing.T) {
	t.Parallel()
	blind := func(s balance.Strategy, prepare func(*scene)) float64 {
		sc := stage(t, s, balance.Options{}, 10)
		require.Zero(t, sc.Blind())
		prepare(sc)
		sc.shares(20_000)
		return sc.Blind()
	}
	idle := func(*scene) {}
	busy := func(s *scene) {
		for range 100 {
			_, err := s.Pick()
			require.NoError(t, err)
		}
	}
	half := func(s *scene) { // of them busy: two idle ones are every fourth or fifth pair
		for i := range 5 {
			s.pickOf(fmt.Sprint("b", i))
		}
	}
	for _, choices := range []int{2, 3} {
		p2c := balance.LeastRequest(balance.LeastRequestOptions{Choices: choices})
		require.InDelta(t, 1, blind(p2c, idle), 0.01)
		require.InDelta(t, 0, blind(p2c, busy), 0.05)
	}
	require.InDelta(t, 2.0/9, blind(balance.LeastRequest(balance.LeastRequestOptions{}), half), 0.06)
	require.InDelta(t, 0, blind(latency(balance.LatencyOptions{}), busy), 0.05)
	require.InDelta(t, 1, blind(latency(balance.LatencyOptions{}), idle), 0.05)
	served := func(s *scene) { s.served = time.Millisecond }
	require.InDelta(t, 0, blind(latency(balance.LatencyOptions{}), served), 0.05, "latencies are known")

	b, err := balance.New[string](balance.Random(), balance.Options{})
	require.NoError(t, err)
	require.EqualValues(t, 1, b.Blind())
}

// Of two that are equally busy, the one that says it is less so is picked.
func TestReportsBreakTies(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 4, 5, 20} {
		for _, choices := range []int{2, 3} {
			s := stage(t, balance.LeastRequest(balance.LeastRequestOptions{Choices: choices}), balance.Options{}, n)
			for i := range n {
				p := s.pickOf(fmt.Sprint("b", i))
				p.Done(nil)
				p.Report(balance.Load{Utilization: float64(i)})
				p.Report(balance.Load{Utilization: math.NaN()}) // disregarded
				p.Report(balance.Load{InFlight: -1})
			}
			require.NotContains(t, s.shares(300), fmt.Sprint("b", n-1), "%d of %d", choices, n)
			s.now += 10*time.Second + time.Millisecond
			require.InDelta(t, 1/float64(n), s.shares(20_000)[fmt.Sprint("b", n-1)], 0.02, "reports grow old")
		}
	}
}

// Those that do not tell of their load hide nothing of the others'.
func TestReportsBreakTiesOfThoseThatReport(t *testing.T) {
	t.Parallel()
	for _, n := range []int{3, 4, 5} {
		s := stage(t, balance.LeastRequest(balance.LeastRequestOptions{Choices: 5}), balance.Options{}, n)
		for i := 1; i < n; i++ { // not b0
			p := s.pickOf(fmt.Sprint("b", i))
			p.Done(nil)
			p.Report(balance.Load{InFlight: int64(n - i)})
		}
		shares := s.shares(2000)
		require.Len(t, shares, 2, "of %d", n)
		require.InDelta(t, 0.5, shares["b0"], 0.06)
		require.InDelta(t, 0.5, shares[fmt.Sprint("b", n-1)], 0.06)

		s.now += time.Minute // what was told is too old
		p := s.pickOf("b0")
		p.Done(nil)
		p.Report(balance.Load{})
		require.Len(t, s.shares(2000), n)
	}
}

// However many write at the same time, the highest of them is not lost.
func TestNoPeakIsLost(t *testing.T) {
	t.Parallel()
	b, err := balance.New[string](latency(balance.LatencyOptions{}), balance.Options{Clock: func() time.Duration { return 0 }})
	require.NoError(t, err)
	require.NoError(t, b.Update(equals(1)))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 5000 {
				p, err := b.Pick()
				if err != nil {
					panic(err)
				}
				p.Observe(time.Duration(4*i+g) * time.Microsecond)
				p.Done(nil)
			}
		})
	}
	wg.Wait()
	for _, s := range b.Stats() {
		require.InEpsilon(t, 19_999*time.Microsecond, s.Latency, exact)
	}
}

func TestASampleKeepsItsValueAndAge(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.Float64Range(1e-9, 1e9).Draw(t, "value")
		// Past the wrap of the ticks, after 208 days.
		at := time.Duration(rapid.Int64Range(0, int64(3*208*24*time.Hour)).Draw(t, "at"))
		age := time.Duration(rapid.Int64Range(0, int64(208*24*time.Hour)).Draw(t, "age"))
		got, gotAge := balance.Unpack(balance.Pack(value, at), at+age)
		require.InEpsilon(t, value, got, 1.0/(1<<16))
		require.InDelta(t, float64(age), float64(gotAge), 1<<14)
		later := time.Duration(rapid.Int64Range(0, int64(17*time.Second)).Draw(t, "later"))
		_, gotAge = balance.Unpack(balance.Pack(value, at+later), at)
		require.LessOrEqual(t, gotAge, time.Duration(1<<14), "of the future is of now")
	})
}

func TestLatencyIsMeasuredByTheClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, err := balance.New[string](latency(balance.LatencyOptions{}), balance.Options{})
		require.NoError(t, err)
		require.NoError(t, b.Update(equals(1)))
		require.NoError(t, b.Do(t.Context(), func(context.Context, string) error {
			time.Sleep(123 * time.Millisecond)
			return nil
		}))
		for _, s := range b.Stats() {
			require.InEpsilon(t, 123*time.Millisecond, s.Latency, exact)
		}
	})
}

func TestLatencyOptionsOutOfRangeAreRefused(t *testing.T) {
	t.Parallel()
	_, err := balance.New[string](latency(balance.LatencyOptions{Decay: -1}), balance.Options{})
	require.ErrorContains(t, err, "LatencyOptions.Decay is -1ns")
}
