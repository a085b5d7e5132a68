package balance_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
)

const day = 24 * time.Hour

func TestAClockMayBeginAnywhere(t *testing.T) {
	t.Parallel()
	for _, start := range []time.Duration{-time.Hour, -1, 1, 57 * 365 * day} {
		for name, strategy := range strategies() {
			s := &scene{t: t, now: start, served: time.Millisecond}
			b, err := balance.New[string](strategy, balance.Options{Clock: func() time.Duration { return s.now }})
			require.NoError(t, err)
			s.Balancer = b
			require.NoError(t, s.Update(equals(10)))
			s.end("b3", errTest, 5)
			require.Equal(t, balance.Ejected, s.state("b3"), "%s from %v", name, start)
			require.NotContains(t, s.shares(200), "b3")
			s.now += 30 * time.Second
			require.Equal(t, balance.Warming, s.state("b3"))
			s.now += 10 * time.Second
			require.Equal(t, balance.Healthy, s.state("b3"))
		}
	}
}

// The longest times are for ever, and not less than nothing.
func TestTimesMayBeForEver(t *testing.T) {
	t.Parallel()
	const forEver = time.Duration(math.MaxInt64)
	for name, h := range map[string]balance.Health{
		"base": {BaseEjection: forEver, SlowStart: forEver},
		"max":  {BaseEjection: 1000 * day, MaxEjection: forEver, SlowStart: forEver, Penalty: forEver},
	} {
		s := stage(t, balance.Random(), balance.Options{Health: h}, 10) // which heeds no penalty
		s.now += time.Second
		if name == "base" {
			s.end("b3", errTest, 5)
		} else {
			s.end("b3", askLater{errTest, forEver}, 1)
		}
		require.Equal(t, balance.Ejected, s.state("b3"), name)
		s.now += 365 * day
		require.Equal(t, balance.Ejected, s.state("b3"), name)
		require.NoError(t, s.Update(equals(11)))
		s.now += 365 * day
		require.Equal(t, balance.Warming, s.state("b10"), name)
		require.Equal(t, []string{"b3 ejected"}, s.changes, name)
	}

	// A penalty that does not fade.
	s := stage(t, balance.LeastRequest(balance.LeastRequestOptions{}), balance.Options{Health: balance.Health{Penalty: forEver}}, 10)
	s.end("b0", errTest, 1)
	s.now += day
	require.NotContains(t, s.shares(1000), "b0")
}

// A sample is of one of 208 days. One that is half of that old is not one of the
// future, which would be as good as new.
func TestWhatIsLongPastIsNotOfNow(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{day, 105 * day, 150 * day, 208 * day} {
		s := stage(t, latency(balance.LatencyOptions{}), balance.Options{}, 10)
		s.served = 10 * time.Millisecond
		s.shares(1000)
		p := s.pickOf("b0")
		p.Observe(11 * time.Millisecond)
		p.Done(errTest)
		s.now += after
		require.InDelta(t, 0.1, s.shares(20_000)["b0"], 0.03, "after %v", after)
		p = s.pickOf("b0")
		p.Observe(time.Millisecond)
		p.Done(nil)
	}
}

// With many requests a second, each step of a fading average is less than the last bit
// of what keeps it. It fades nonetheless.
func TestAnAverageFadesHoweverManyRequestsThereAre(t *testing.T) {
	t.Parallel()
	for _, every := range []time.Duration{20 * time.Microsecond, time.Millisecond} {
		s := stage(t, latency(balance.LatencyOptions{}), balance.Options{}, 1)
		observe := func(d time.Duration) {
			p, err := s.Pick()
			require.NoError(t, err)
			p.Observe(d)
			p.Done(nil)
		}
		observe(100 * time.Millisecond)
		for range 10 * time.Second / every {
			s.now += every
			observe(time.Millisecond)
		}
		want := time.Millisecond + time.Duration(99*math.Exp(-1)*float64(time.Millisecond))
		s.requireLatency(want, "b0", 0.05)
	}
}

// The number of picks starts again at 0, and nothing else does.
func TestPicksMayStartAgain(t *testing.T) {
	t.Parallel()
	for _, left := range []uint64{1, 50, 99, 150} {
		s := stage(t, balance.Random(), balance.Options{Health: balance.Health{Consecutive: -1}}, 10)
		balance.SetPicks(s.Balancer, 1<<40-left)
		s.now += time.Minute
		rounds := 0
		for ; s.state("b3") == balance.Healthy && rounds < 300; rounds++ {
			s.end("b3", nil, 1)
			s.end("b3", errTest, 1)
		}
		if want := left/2 + 50; left < 100 {
			require.LessOrEqual(t, s.stats("b3").Picks, int64(200))
			require.InDelta(t, want, rounds, 2, "as many as Volume, in a window that begins with them")
		} else {
			require.InDelta(t, 50, rounds, 2)
		}
		require.Equal(t, balance.Ejected, s.state("b3"), "%d left", left)
		for id, n := range inFlight(s.Balancer) {
			require.Zero(t, n, id)
		}
	}
}

// What a backend did before it was ejected was its fault, and is forgiven.
func TestABackendThatReturnsIsJudgedAnew(t *testing.T) {
	t.Parallel()
	h := balance.Health{BaseEjection: time.Second, SlowStart: -1, Interval: time.Hour}
	s := stage(t, balance.Random(), balance.Options{Health: h}, 10)
	for s.state("b3") == balance.Healthy {
		s.end("b3", nil, 1)
		s.end("b3", errTest, 1)
	}
	s.now += time.Second
	for range 49 {
		s.end("b3", errTest, 1)
		require.Equal(t, balance.Healthy, s.state("b3"))
		s.end("b3", nil, 1)
	}
	s.end("b3", errTest, 1)
	require.Equal(t, balance.Healthy, s.state("b3"), "99 requests")
	s.end("b3", errTest, 1)
	require.Equal(t, balance.Ejected, s.state("b3"))
}

// 0.57 of 100 is a little less than 57 to a computer, and 0.55 of 20 more than 11.
func TestPartsOfBackendsAreExact(t *testing.T) {
	t.Parallel()
	s := stage(t, balance.Random(), balance.Options{Health: balance.Health{MaxEjected: 0.57, Panic: -1}}, 100)
	for i := range 58 {
		s.end(fmt.Sprint("b", i), errTest, 5)
	}
	require.Len(t, s.shares(10_000), 43)

	s = stage(t, balance.Random(), balance.Options{Health: balance.Health{MaxEjected: 1, Panic: 0.55}}, 20)
	for i := range 9 {
		s.end(fmt.Sprint("b", i), errTest, 5)
	}
	require.Len(t, s.shares(10_000), 11)
	s.end("b10", errTest, 5)
	require.Len(t, s.shares(10_000), 20)
}
