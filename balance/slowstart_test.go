package balance_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
)

func TestABackendThatJoinsStartsSlowly(t *testing.T) {
	t.Parallel()
	for name, strategy := range exactStrategies() {
		s := stage(t, strategy, balance.Options{}, 9)
		s.now += time.Minute
		require.Equal(t, balance.Healthy, s.state("b0"), "the first backends have no others to be protected by")
		require.NoError(t, s.Update(equals(10)))
		for _, c := range []struct{ after, warmth float64 }{{0, 0.1}, {0.5, 0.1}, {3, 0.3}, {5, 0.5}, {8, 0.8}} {
			start := s.now
			s.now += time.Duration(c.after * float64(time.Second))
			require.Equal(t, balance.Warming, s.state("b9"), name)
			want := c.warmth / (9 + c.warmth)
			require.InDelta(t, want, s.shares(40_000)["b9"], 0.1*want+0.003, "%s after %v s", name, c.after)
			s.now = start
		}
		s.now += 10 * time.Second
		require.InDelta(t, 0.1, s.shares(40_000)["b9"], 0.01, name)
		require.Equal(t, balance.Healthy, s.state("b9"))
		require.Equal(t, []string{"b9 healthy"}, s.changes)
	}
}

func TestABackendThatReturnsStartsSlowly(t *testing.T) {
	t.Parallel()
	for name, strategy := range exactStrategies() {
		s := stage(t, strategy, balance.Options{}, 10)
		s.end("b4", errTest, 5)
		s.now += 30 * time.Second
		require.InDelta(t, 0.1/9.1, s.shares(20_000)["b4"], 0.004, name)
		require.Equal(t, []string{"b4 ejected", "b4 warming"}, s.changes, name)
	}
}

// Nothing is drawn in vain when all backends are new.
func TestADeployCostsNoDraws(t *testing.T) {
	t.Parallel()
	draws := 0
	b, err := balance.New[string](balance.Random(), balance.Options{Rand: func() uint64 { draws++; return 1 << 40 }})
	require.NoError(t, err)
	require.NoError(t, b.Update(equals(3)))
	require.NoError(t, b.Update(equals(20)[3:]))
	for range 100 {
		_, err := b.Pick()
		require.NoError(t, err)
	}
	require.Equal(t, 100, draws)
}

// Under load a warming backend holds its part of the requests, however often it is
// drawn.
func TestAWarmingBackendHoldsItsPart(t *testing.T) {
	t.Parallel()
	for name, strategy := range exactStrategies() {
		s := stage(t, strategy, balance.Options{}, 9)
		require.NoError(t, s.Update(equals(10)))
		s.now += 5 * time.Second
		for range 9500 {
			_, err := s.Pick()
			require.NoError(t, err)
		}
		slack := 20.0
		if name == "random" || name == "roundrobin" {
			slack = 100
		}
		require.InDelta(t, 500, s.stats("b9").InFlight, slack, name)
	}
}

func TestABackendThatIsEjectedWarmsNoMore(t *testing.T) {
	t.Parallel()
	s := stage(t, balance.Random(), balance.Options{}, 9)
	require.NoError(t, s.Update(equals(10)))
	s.end("b9", errTest, 5)
	s.now += 20 * time.Second
	s.shares(1)
	require.Equal(t, []string{"b9 ejected"}, s.changes)
}

// A deploy that replaces all backends at once must not starve any of them.
func TestSlowStartIsRelative(t *testing.T) {
	t.Parallel()
	for name, strategy := range exactStrategies() {
		s := stage(t, strategy, balance.Options{}, 3)
		next := equals(24)[12:]
		require.NoError(t, s.Update(next))
		for id, share := range s.shares(24_000) {
			require.InDelta(t, 1.0/12, share, 0.02, "%s %s", name, id)
		}
		s.now += 4 * time.Second
		require.NoError(t, s.Update(equals(25)[12:]))
		shares := s.shares(24_000)
		// A tenth against four tenths, a quarter.
		require.InDelta(t, 0.25/12.25, shares["b24"], 0.006, name)
		youngestFirst := equals(25)[12:]
		slices.Reverse(youngestFirst)
		require.NoError(t, s.Update(youngestFirst))
		require.InDelta(t, 0.25/12.25, s.shares(24_000)["b24"], 0.006, name)
	}
}
