package balance_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
)

// scene is a balancer whose time the test sets.
type scene struct {
	*balance.Balancer[string]
	t       require.TestingT
	now     time.Duration
	changes []string
	served  time.Duration // what requests take, if it is set, and time stands still
}

// stage returns a scene with the backends b0 to b(n-1).
func stage(t require.TestingT, s balance.Strategy, o balance.Options, n int) *scene {
	sc := &scene{t: t}
	o.Rand = rand.New(rand.NewPCG(5, 6)).Uint64
	o.Clock = func() time.Duration { return sc.now }
	o.OnChange = func(id string, s balance.State) { sc.changes = append(sc.changes, fmt.Sprint(id, " ", s)) }
	b, err := balance.New[string](s, o)
	require.NoError(t, err)
	sc.Balancer = b
	require.NoError(t, b.Update(equals(n)))
	return sc
}

// pickOf picks until it gets the backend of an ID. If that takes long, it lets
// penalties fade.
func (s *scene) pickOf(id string) balance.Pick[string] {
	for i := range 100_000 {
		if i%1000 == 999 {
			s.now += 10 * time.Second
		}
		p, err := s.Pick()
		require.NoError(s.t, err)
		if p.ID() == id {
			return p
		}
		p.Observe(0) // nothing to learn
		p.Done(nil)
	}
	require.FailNow(s.t, "never picked", id)
	panic("unreachable")
}

// end makes the next requests of a backend end with err.
func (s *scene) end(id string, err error, times int) {
	for range times {
		p := s.pickOf(id)
		p.Done(err)
	}
}

func (s *scene) state(id string) balance.State { return s.stats(id).State }

func (s *scene) stats(id string) balance.Stats {
	for b, stats := range s.Stats() {
		if b.ID == id {
			return stats
		}
	}
	require.FailNow(s.t, "not in the set", id)
	panic("unreachable")
}

// shares returns the part of n picks, each done at once, that each backend gets.
func (s *scene) shares(n int) map[string]float64 {
	shares := map[string]float64{}
	for range n {
		p, err := s.Pick()
		require.NoError(s.t, err)
		shares[p.ID()] += 1 / float64(n)
		p.Observe(s.served)
		p.Done(nil)
	}
	return shares
}

func TestFailuresInARowEject(t *testing.T) {
	t.Parallel()
	s := stage(t, balance.Random(), balance.Options{}, 10)
	s.end("b3", errTest, 4)
	s.end("b3", nil, 1) // begins the row anew
	s.end("b3", errTest, 4)
	require.Equal(t, balance.Healthy, s.state("b3"))
	s.end("b3", errTest, 1)
	require.Equal(t, balance.Ejected, s.state("b3"))
	require.NotContains(t, s.shares(1000), "b3")
	require.Equal(t, []string{"b3 ejected"}, s.changes)
}

func TestALowSuccessRateEjects(t *testing.T) {
	t.Parallel()
	s := stage(t, balance.Random(), balance.Options{}, 10)
	three := func() { // of four, which no row of failures shows
		s.end("b3", nil, 3)
		s.end("b3", errTest, 1)
	}
	for range 24 {
		three()
	}
	require.Equal(t, balance.Healthy, s.state("b3"), "96 requests are less than Volume")
	three()
	require.Equal(t, balance.Ejected, s.state("b3"))

	s = stage(t, balance.Random(), balance.Options{}, 10)
	for range 200 {
		s.now += 500 * time.Millisecond // 80 in an interval
		three()
	}
	require.Equal(t, balance.Healthy, s.state("b3"), "less than Volume in each Interval")
	for range 200 {
		s.end("b3", nil, 5)
		s.end("b3", errTest, 1)
	}
	require.Equal(t, balance.Healthy, s.state("b3"), "five of six succeed")
}

func TestTheBoundsOfTheSuccessRateAreExact(t *testing.T) {
	t.Parallel()
	s := stage(t, balance.Random(), balance.Options{}, 10)
	for range 20 {
		s.end("b3", nil, 4)
		s.end("b3", errTest, 1)
	}
	require.Equal(t, balance.Healthy, s.state("b3"), "0.8 of 100 are not less")

	s.now += time.Minute // another interval, which begins with a failure
	for range 49 {
		s.end("b3", errTest, 1)
		s.end("b3", nil, 1)
	}
	s.end("b3", nil, 1)
	require.Equal(t, balance.Healthy, s.state("b3"))
	s.end("b3", errTest, 1)
	require.Equal(t, balance.Ejected, s.state("b3"), "the 100th")
}

func TestEjectionsEndByThemselvesAndGrow(t *testing.T) {
	t.Parallel()
	s := stage(t, balance.Random(), balance.Options{Health: balance.Health{SlowStart: -1}}, 10)
	lasts := func() time.Duration {
		s.end("b3", errTest, 5)
		require.Equal(t, balance.Ejected, s.state("b3"))
		start := s.now
		for s.state("b3") == balance.Ejected {
			s.now += time.Second
		}
		return s.now - start
	}
	for _, want := range []time.Duration{30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300} {
		require.Equal(t, want*time.Second, lasts())
	}
	s.now += 5 * 30 * time.Second // healthy for that long, five ejections are forgiven
	require.Equal(t, 180*time.Second, lasts())
	s.now += time.Hour
	require.Equal(t, 30*time.Second, lasts())
}

func TestAnEjectionEndsInAPick(t *testing.T) {
	t.Parallel()
	s := stage(t, balance.Random(), balance.Options{Health: balance.Health{SlowStart: -1}}, 4)
	s.end("b3", errTest, 5)
	s.now += 30*time.Second - 1
	require.NotContains(t, s.shares(1000), "b3")
	s.now++
	require.InDelta(t, 0.25, s.shares(10_000)["b3"], 0.02)
	require.Equal(t, []string{"b3 ejected", "b3 healthy"}, s.changes)
}

// However the failures race, no more are ejected than may be.
func TestNoMoreAreEjectedThanMayBe(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		n, want int
		health  balance.Health
	}{
		{n: 1, want: 0},
		{n: 2, want: 1},
		{n: 10, want: 1},
		{n: 29, want: 2},
		{n: 20, want: 10, health: balance.Health{MaxEjected: 0.5}},
		{n: 20, want: 17, health: balance.Health{MaxEjected: 1, Keep: 3}},
		{n: 20, want: 20, health: balance.Health{MaxEjected: 1, Keep: -1}},
		{n: 20, want: 0, health: balance.Health{MaxEjected: -1}},
	} {
		b, err := balance.New[string](balance.Random(), balance.Options{Health: c.health})
		require.NoError(t, err)
		require.NoError(t, b.Update(equals(c.n)))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 100 * c.n {
					p, err := b.Pick()
					if err != nil {
						panic(err)
					}
					p.Done(errTest)
				}
			})
		}
		wg.Wait()
		ejected := 0
		for _, s := range b.Stats() {
			if s.State == balance.Ejected {
				ejected++
			}
		}
		require.Equal(t, c.want, ejected, "%+v", c)
	}
}

func TestInPanicAllArePicked(t *testing.T) {
	t.Parallel()
	s := stage(t, balance.Random(), balance.Options{Health: balance.Health{MaxEjected: 1, Keep: -1}}, 10)
	for i := range 5 {
		s.end(fmt.Sprint("b", i), errTest, 5)
	}
	require.Len(t, s.shares(10_000), 5, "half of them are enough")
	s.end("b5", errTest, 5)
	for id, share := range s.shares(10_000) {
		require.InDelta(t, 0.1, share, 0.02, id)
	}
	for i := 6; i < 10; i++ {
		s.end(fmt.Sprint("b", i), errTest, 5)
	}
	require.Len(t, s.shares(10_000), 10, "all are ejected, and all are picked")
	s.now += 30 * time.Second
	s.shares(1)
	require.Equal(t, balance.Warming, s.state("b0"))

	never := stage(t, balance.Random(), balance.Options{Health: balance.Health{MaxEjected: 1, Panic: -1}}, 10)
	for i := range 9 {
		never.end(fmt.Sprint("b", i), errTest, 5)
	}
	require.Len(t, never.shares(1000), 1)

	none := stage(t, balance.Random(), balance.Options{Health: balance.Health{MaxEjected: 1, Keep: -1, Panic: -1}}, 10)
	for i := range 10 {
		none.end(fmt.Sprint("b", i), errTest, 5)
	}
	require.Len(t, none.shares(1000), 10, "there is always one to pick")
}

// askLater is a failure with the wish to be left alone.
type askLater struct {
	error
	d time.Duration
}

func (e askLater) RetryAfter() time.Duration { return e.d }

func TestABackendThatAsksForItIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := stage(t, balance.Random(), balance.Options{Health: balance.Health{SlowStart: -1}}, 4)
	s.end("b1", fmt.Errorf("call: %w", askLater{errTest, 7 * time.Second}), 1)
	require.Equal(t, balance.Ejected, s.state("b1"))
	s.now += 7*time.Second - 1
	require.NotContains(t, s.shares(1000), "b1")
	s.now++
	require.Contains(t, s.shares(1000), "b1")

	s.end("b1", errTest, 4)
	require.Equal(t, balance.Healthy, s.state("b1"), "its return begins a new row")
	s.end("b1", nil, 1)

	s.end("b1", askLater{errTest, 1 << 62}, 1)
	s.now += 5 * time.Minute
	require.Contains(t, s.shares(1000), "b1", "no longer than MaxEjection")

	for _, nothing := range []time.Duration{0, -1, -1 << 63} {
		s.end("b1", askLater{errTest, nothing}, 1)
		require.Equal(t, balance.Healthy, s.state("b1"))
	}

	// What it asked for does not make the next ejection longer.
	s.end("b1", errTest, 1)
	s.end("b1", askLater{errTest, -time.Hour}, 1)
	require.Equal(t, balance.Ejected, s.state("b1"), "the fifth in a row")
	s.now += 30 * time.Second
	require.Equal(t, balance.Healthy, s.state("b1"))
}

func TestTheClassifierDecidesWhatIsAFailure(t *testing.T) {
	t.Parallel()
	notFound := errors.New("not found")
	o := balance.Options{Classify: func(err error) balance.Outcome {
		switch {
		case errors.Is(err, notFound):
			return balance.Success
		case errors.Is(err, context.DeadlineExceeded):
			return balance.Ignored
		}
		return balance.Failure
	}}
	s := stage(t, balance.Random(), o, 4)
	s.end("b1", errTest, 4)
	s.end("b1", context.DeadlineExceeded, 10) // leaves the row as it is
	require.EqualValues(t, 4, s.stats("b1").Failures)
	s.end("b1", notFound, 1) // ends it
	s.end("b1", errTest, 4)
	require.Equal(t, balance.Healthy, s.state("b1"))
	s.end("b1", context.Canceled, 1)
	require.EqualValues(t, 9, s.stats("b1").Failures)
	require.Equal(t, balance.Ejected, s.state("b1"))
}

func TestACancelledRequestIsNoFailureAndALateOneIs(t *testing.T) {
	t.Parallel()
	s := stage(t, balance.Random(), balance.Options{}, 4)
	s.end("b1", fmt.Errorf("call: %w", context.Canceled), 20)
	require.Zero(t, s.stats("b1").Failures)
	require.Equal(t, balance.Healthy, s.state("b1"))
	s.end("b1", fmt.Errorf("call: %w", context.DeadlineExceeded), 5)
	require.EqualValues(t, 5, s.stats("b1").Failures)
	require.Equal(t, balance.Ejected, s.state("b1"))
}

// Without a penalty a backend that fails at once always looks idle, and gets up to
// twice its share.
func TestAFailingBackendAttractsLess(t *testing.T) {
	t.Parallel()
	for name, strategy := range map[string]balance.Strategy{
		"p2c":     balance.LeastRequest(balance.LeastRequestOptions{}),
		"p3c":     balance.LeastRequest(balance.LeastRequestOptions{Choices: 3}),
		"latency": balance.LeastLatency(balance.LatencyOptions{}),
	} {
		for _, penalty := range []time.Duration{0, -1} {
			// Ten backends of 10 ms, a request a millisecond; b0 fails at once.
			o := balance.Options{Health: balance.Health{Penalty: penalty, MaxEjected: -1}}
			s := stage(t, strategy, o, 10)
			type busy struct {
				balance.Pick[string]
				until time.Duration
			}
			var open []busy
			failed := 0
			const requests = 20_000
			for range requests {
				s.now += time.Millisecond
				for len(open) > 0 && open[0].until <= s.now {
					open[0].Done(nil)
					open = open[1:]
				}
				p, err := s.Pick()
				require.NoError(t, err)
				if p.ID() == "b0" {
					p.Done(errTest)
					failed++
					continue
				}
				open = append(open, busy{p, s.now + 10*time.Millisecond})
			}
			share := float64(failed) / requests
			if penalty == 0 {
				require.Less(t, share, 0.01, name)
				require.NotZero(t, failed, name)
			} else {
				require.Greater(t, share, 0.1, name)
			}
		}
	}
}

func TestPenaltiesFade(t *testing.T) {
	t.Parallel()
	s := stage(t, balance.LeastRequest(balance.LeastRequestOptions{}), balance.Options{}, 10)
	s.end("b0", errTest, 1)
	require.NotContains(t, s.shares(1000), "b0")
	s.now += time.Minute
	require.InDelta(t, 0.1, s.shares(10_000)["b0"], 0.02)
}

// Nothing else that happens makes the balancer forget a penalty, nor does an earlier
// one that has faded.
func TestPenaltiesLast(t *testing.T) {
	t.Parallel()
	s := stage(t, balance.LeastRequest(balance.LeastRequestOptions{}), balance.Options{}, 10)
	var others []string
	for i := 1; i < 10; i++ {
		others = append(others, fmt.Sprint("b", i))
	}
	two := func() (picks []balance.Pick[string]) { // of b0
		for range 2 {
			p, err := s.PickExcept(others...)
			require.NoError(t, err)
			picks = append(picks, p)
		}
		return picks
	}
	b0 := two()
	b0[0].Done(errTest)
	require.NoError(t, s.Update(equals(10)))
	b0[1].Done(nil)
	require.NotContains(t, s.shares(1000), "b0")
	s.now += 4 * time.Second
	require.NotContains(t, s.shares(1000), "b0")

	s = stage(t, balance.LeastRequest(balance.LeastRequestOptions{}), balance.Options{}, 10)
	b0 = two()
	b0[0].Done(errTest)
	s.now += 6 * time.Second
	b0[1].Done(errTest)
	s.now += 1500 * time.Millisecond
	require.NotContains(t, s.shares(1000), "b0")
}

// When all fail, that says nothing of any.
func TestBackendsThatAllFailArePickedEvenly(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		s := stage(t, strategy, balance.Options{Health: balance.Health{MaxEjected: -1}}, 12)
		shares := map[string]float64{}
		const rounds = 24_000
		for range rounds {
			s.now += time.Millisecond
			p, err := s.Pick()
			require.NoError(t, err)
			shares[p.ID()]++
			p.Done(errTest)
		}
		for id, share := range shares {
			require.InDelta(t, 1.0/12, share/rounds, 0.25/12, "%s %s", name, id)
		}
	}
}

func TestABackendKeepsItsStateAcrossUpdates(t *testing.T) {
	t.Parallel()
	s := stage(t, balance.Random(), balance.Options{}, 10)
	s.end("b4", errTest, 5)
	require.NoError(t, s.Update(equals(12)))
	require.Equal(t, balance.Ejected, s.state("b4"))
	require.NotContains(t, s.shares(1000), "b4")
	s.now += 30 * time.Second
	require.Contains(t, s.shares(10_000), "b4")
}

// The tokens of a removed backend cannot harm the one that bears its name after it.
func TestARemovedBackendComesBackAsAnother(t *testing.T) {
	t.Parallel()
	s := stage(t, balance.Random(), balance.Options{}, 10)
	var old []balance.Pick[string]
	for range 10 {
		old = append(old, s.pickOf("b9"))
	}
	require.NoError(t, s.Update(equals(9)))
	require.NoError(t, s.Update(equals(10)))
	for i := range old {
		old[i].Done(errTest)
	}
	require.Equal(t, balance.Stats{State: balance.Warming}, s.stats("b9"))
	require.Empty(t, s.changes)
}

func TestHealthOutOfRangeIsRefused(t *testing.T) {
	t.Parallel()
	for field, h := range map[string]balance.Health{
		"SuccessRate":  {SuccessRate: 1.1},
		"MaxEjected":   {MaxEjected: math.NaN()},
		"Panic":        {Panic: math.Inf(-1)},
		"Interval":     {Interval: -1},
		"Volume":       {Volume: -1},
		"BaseEjection": {BaseEjection: -1},
		"MaxEjection":  {BaseEjection: time.Hour, MaxEjection: time.Minute},
	} {
		_, err := balance.New[string](balance.Random(), balance.Options{Health: h})
		require.ErrorContains(t, err, "Health."+field)
	}
}

// With the machine's clock, and nothing running in the background.
func TestEjectionFollowsTheClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, err := balance.New[string](balance.LeastRequest(balance.LeastRequestOptions{}), balance.Options{})
		require.NoError(t, err)
		require.NoError(t, b.Update(equals(6)))
		for {
			p, err := b.Pick()
			require.NoError(t, err)
			if p.ID() != "b0" {
				p.Done(nil)
				continue
			}
			if p.Done(errTest); stateOf(b, "b0") == balance.Ejected {
				break
			}
			time.Sleep(time.Minute) // the penalty
		}
		time.Sleep(30*time.Second - 1)
		require.Equal(t, balance.Ejected, stateOf(b, "b0"))
		time.Sleep(time.Nanosecond)
		require.Equal(t, balance.Warming, stateOf(b, "b0"))
	})
}

func stateOf(b *balance.Balancer[string], id string) balance.State {
	for backend, s := range b.Stats() {
		if backend.ID == id {
			return s.State
		}
	}
	panic("not in the set")
}
