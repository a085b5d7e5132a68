package balance_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/balance"
)

// loads are what the backends answer to probes; those without an entry fail.
type loads map[string]balance.Load

func (l loads) Probe(_ context.Context, id string) (balance.Load, error) {
	load, ok := l[id]
	if !ok {
		return balance.Load{}, errTest
	}
	return load, nil
}

// same is n backends with the same load.
func same(n int, l balance.Load) loads {
	all := loads{}
	for i := range n {
		all[fmt.Sprint("b", i)] = l
	}
	return all
}

func inline(probe func()) { probe() }

// probed returns a scene whose probes are answered at once.
func probed(t require.TestingT, p balance.Prober, o balance.PrequalOptions, n int) *scene {
	o.Go = inline
	s := stage(t, balance.Prequal(p, o), balance.Options{}, n)
	s.served = 10 * time.Millisecond
	return s
}

func TestTheColdBackendOfTheLowestLatencyIsPicked(t *testing.T) {
	t.Parallel()
	all := same(10, balance.Load{InFlight: 10, Latency: 50 * time.Millisecond})
	for i := range 4 { // cold, since more than 0.6 of the backends have 10
		all[fmt.Sprint("b", i)] = balance.Load{InFlight: int64(i), Latency: 20 * time.Millisecond}
	}
	all["b3"] = balance.Load{InFlight: 3, Latency: 10 * time.Millisecond}
	all["b9"] = balance.Load{InFlight: 20, Latency: time.Millisecond} // fast, but hot
	shares := probed(t, all, balance.PrequalOptions{Probes: 16}, 10).shares(1000)
	require.Greater(t, shares["b3"], 0.9)
	require.Less(t, shares["b9"], 0.01)
}

func TestOfHotBackendsTheLeastBusyIsPicked(t *testing.T) {
	t.Parallel()
	all := loads{}
	for i := range 10 {
		all[fmt.Sprint("b", i)] = balance.Load{InFlight: int64(10 + i), Latency: time.Duration(20-i) * time.Millisecond}
	}
	shares := probed(t, all, balance.PrequalOptions{Probes: 16, Hot: -1}, 10).shares(1000)
	require.Greater(t, shares["b0"], 0.9, "latency is not heeded")
}

// A pick counts in the probe that it was made by, so that one good answer does not
// attract a herd.
func TestAPickCountsInItsProbe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		hot        float64
		good, rest balance.Load
	}{
		"by load":    {-1, balance.Load{}, balance.Load{InFlight: 1}},
		"by latency": {0.9, balance.Load{InFlight: 1, Latency: 10 * time.Millisecond}, balance.Load{InFlight: 1, Latency: 12 * time.Millisecond}},
	} {
		all := same(20, c.rest)
		all["b0"] = c.good
		for i := 10; i < 20; i++ { // so that one request more does not make a backend hot
			all[fmt.Sprint("b", i)] = balance.Load{InFlight: 10, Latency: time.Second}
		}
		// Probes that never come back but the first ones.
		calls := 0
		once := proberFunc(func(ctx context.Context, id string) (balance.Load, error) {
			if calls++; calls > 20 {
				return balance.Load{InFlight: -1}, nil // disregarded
			}
			return all.Probe(ctx, id)
		})
		s := probed(t, once, balance.PrequalOptions{Probes: 10, Pool: 20, MaxAge: time.Hour, Hot: c.hot}, 20)
		for calls <= 20 {
			_, err := s.Pick()
			require.NoError(t, err)
		}
		before := s.stats("b0").Picks
		for range 8 {
			_, err := s.Pick()
			require.NoError(t, err)
		}
		require.LessOrEqual(t, s.stats("b0").Picks-before, int64(2), name)
		require.Positive(t, s.stats("b0").Picks, name)
	}
}

type proberFunc func(ctx context.Context, id string) (balance.Load, error)

func (f proberFunc) Probe(ctx context.Context, id string) (balance.Load, error) { return f(ctx, id) }

func TestOldProbesAreNotHeeded(t *testing.T) {
	t.Parallel()
	all := same(10, balance.Load{InFlight: 3, Latency: 10 * time.Millisecond})
	all["b0"] = balance.Load{Latency: time.Millisecond}
	for maxAge, old := range map[time.Duration]time.Duration{
		time.Second: 1100 * time.Millisecond,
		0:           22 * time.Millisecond, // the latency is 10
	} {
		s := probed(t, all, balance.PrequalOptions{MaxAge: maxAge, Probes: 10}, 10)
		require.Greater(t, s.shares(1000)["b0"], 0.9)
		share := 0.0
		for range 1000 {
			s.now += old
			share += s.shares(1)["b0"] / 1000
		}
		require.InDelta(t, 0.1, share, 0.05)
	}
}

func TestABackendThatFailsLosesItsProbes(t *testing.T) {
	t.Parallel()
	// b0 fails at once, and looks idle to every probe.
	all := same(10, balance.Load{InFlight: 3, Latency: 50 * time.Millisecond})
	all["b0"] = balance.Load{Latency: time.Millisecond}
	s := stage(t, balance.Prequal(all, balance.PrequalOptions{Go: inline}), balance.Options{Health: balance.Health{MaxEjected: -1}}, 10)
	failed := 0
	const requests = 20_000
	for range requests {
		s.now += time.Millisecond
		p, err := s.Pick()
		require.NoError(t, err)
		if p.ID() == "b0" {
			failed++
			p.Done(errTest)
			continue
		}
		p.Observe(50 * time.Millisecond)
		p.Done(nil)
	}
	require.Less(t, failed, requests/50)
	require.Positive(t, failed)
}

// What it answered before it failed is not believed, even if a failure costs nothing.
func TestAFailureForgetsTheProbe(t *testing.T) {
	t.Parallel()
	never := proberFunc(func(context.Context, string) (balance.Load, error) { return balance.Load{InFlight: -1}, nil })
	o := balance.PrequalOptions{MaxAge: time.Hour, Hot: -1, Go: inline}
	s := stage(t, balance.Prequal(never, o), balance.Options{Health: balance.Health{Penalty: -1}}, 10)
	picks := make([]balance.Pick[string], 10)
	for i := range picks {
		picks[i] = s.pickOf(fmt.Sprint("b", i))
	}
	for i := range picks {
		picks[i].Report(balance.Load{InFlight: int64(1 + (i+6)%10)})
	}
	picks[4].Done(errTest) // the one that said it was the least busy
	p, err := s.Pick()
	require.NoError(t, err)
	require.Equal(t, "b5", p.ID())
}

// One whose probes fail cannot be reached.
func TestABackendThatFailsProbesGetsLess(t *testing.T) {
	t.Parallel()
	all := same(10, balance.Load{})
	delete(all, "b0")
	s := probed(t, all, balance.PrequalOptions{}, 10)
	require.Less(t, s.shares(10_000)["b0"], 0.01)
	require.Zero(t, s.stats("b0").Failures)

	// Also while there are no probes to choose by.
	others := proberFunc(func(_ context.Context, id string) (balance.Load, error) {
		if id == "b0" {
			return balance.Load{}, errTest
		}
		return balance.Load{InFlight: -1}, nil
	})
	require.Less(t, probed(t, others, balance.PrequalOptions{}, 10).shares(10_000)["b0"], 0.01)
}

func TestReportsAreProbes(t *testing.T) {
	t.Parallel()
	require.Equal(t, "b4", reported(t, 10, 7, 8, 9, 10, 1, 2, 3, 4, 5, 6).next())
}

// reported returns a scene of n backends whose pool holds nothing but what the first of
// them reported, in order.
func reported(t *testing.T, n int, loads ...int64) *scene {
	never := proberFunc(func(context.Context, string) (balance.Load, error) { return balance.Load{InFlight: -1}, nil })
	s := probed(t, never, balance.PrequalOptions{MaxAge: time.Hour, Hot: -1}, n)
	var picks []balance.Pick[string]
	for i := range loads {
		picks = append(picks, s.pickOf(fmt.Sprint("b", i)))
	}
	for i := range picks {
		picks[i].Report(balance.Load{InFlight: loads[i]})
		picks[i].Done(nil)
	}
	return s
}

func (s *scene) next() string {
	p, err := s.Pick()
	require.NoError(s.t, err)
	return p.ID()
}

func TestAPickRemovesTheWorstProbeOrTheOldestByTurns(t *testing.T) {
	t.Parallel()
	s := reported(t, 10, 100, 101, 102, 103, 104, 105, 106, 107, 108, 0)
	for range 3 {
		require.Equal(t, "b9", s.next())
	}
	p, err := s.Pick()
	require.NoError(t, err)
	require.Equal(t, "b9", p.ID())
	p.Done(errTest) // which leaves b2 to b6
	require.Equal(t, "b2", s.next())
}

// By the paper's formula: twice, with 64 backends.
func TestAProbeIsUsedSoOften(t *testing.T) {
	t.Parallel()
	s := reported(t, 64, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 0)
	require.Equal(t, "b11", s.next())
	require.Equal(t, "b11", s.next())
	require.NotEqual(t, "b11", s.next())
}

// One probe alone has no other to be better than.
func TestOneProbeDecidesNothing(t *testing.T) {
	t.Parallel()
	picked := 0
	for n := range 20 {
		if reported(t, 10+n, 0).next() == "b0" {
			picked++
		}
	}
	require.Less(t, picked, 8)
}

func TestALatencyThatIsUnknownIsNotTheLowest(t *testing.T) {
	t.Parallel()
	all := same(10, balance.Load{InFlight: 5, Latency: 10 * time.Millisecond})
	all["b0"] = balance.Load{InFlight: 3, Latency: 10 * time.Millisecond}
	all["b9"] = balance.Load{InFlight: 4}
	shares := probed(t, all, balance.PrequalOptions{Probes: 16}, 10).shares(1000)
	require.Greater(t, shares["b0"], 0.9)
	require.Less(t, shares["b9"], 0.01)
}

// A warming backend gets less, although its probes say that it is idle.
func TestPrequalHeedsSlowStart(t *testing.T) {
	t.Parallel()
	all := same(10, balance.Load{InFlight: 3, Latency: 20 * time.Millisecond})
	all["b9"] = balance.Load{}
	s := probed(t, all, balance.PrequalOptions{}, 9)
	s.now += time.Minute
	require.NoError(t, s.Update(equals(10)))
	require.Less(t, s.shares(10_000)["b9"], 0.2)
	s.now += time.Minute
	require.Greater(t, s.shares(10_000)["b9"], 0.5)
}

func TestPrequalDividesByWeight(t *testing.T) {
	t.Parallel()
	s := probed(t, same(10, balance.Load{InFlight: 4}), balance.PrequalOptions{Hot: -1}, 10)
	set := equals(10)
	set[0].Weight = 8
	require.NoError(t, s.Update(set))
	require.Greater(t, s.shares(10_000)["b0"], 0.3)
}

// Whatever comes and goes, picks are of members.
func TestPrequalPicksMembers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := probed(t, same(12, balance.Load{InFlight: 1}), balance.PrequalOptions{Pool: rapid.IntRange(2, 64).Draw(t, "pool")}, 0)
		members := map[string]bool{}
		t.Repeat(map[string]func(*rapid.T){
			"update": func(t *rapid.T) {
				clear(members)
				set := rapid.SliceOfNDistinct(rapid.SampledFrom(equals(12)), 0, 12, func(b balance.Backend[string]) string { return b.ID }).Draw(t, "set")
				for _, b := range set {
					members[b.ID] = true
				}
				require.NoError(t, s.Update(set))
			},
			"pick": func(t *rapid.T) {
				for range 5 {
					p, err := s.Pick()
					if len(members) == 0 {
						require.ErrorIs(t, err, balance.ErrNoBackends)
						return
					}
					require.NoError(t, err)
					require.True(t, members[p.ID()])
					if rapid.Bool().Draw(t, "fails") {
						p.Done(errTest)
					}
					p.Done(nil)
				}
			},
			"wait": func(t *rapid.T) { s.now += time.Duration(rapid.IntRange(0, int(time.Minute)).Draw(t, "wait")) },
		})
	})
}

// A prober that hangs holds up no pick, is told to stop, and there is a bound to the
// probes under way.
func TestProbesAreBoundedAndEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var underWay, most atomic.Int64
		hang := proberFunc(func(ctx context.Context, _ string) (balance.Load, error) {
			most.Store(max(most.Load(), underWay.Add(1)))
			defer underWay.Add(-1)
			<-ctx.Done()
			return balance.Load{}, ctx.Err()
		})
		b, err := balance.New[string](balance.Prequal(hang, balance.PrequalOptions{}), balance.Options{})
		require.NoError(t, err)
		require.NoError(t, b.Update(equals(100)))
		start := time.Now()
		for range 1000 {
			p, err := b.Pick()
			require.NoError(t, err)
			p.Done(nil)
		}
		require.Zero(t, time.Since(start))
		synctest.Wait()
		require.EqualValues(t, 64, underWay.Load())
		require.EqualValues(t, 64, most.Load())
		time.Sleep(time.Second)
		synctest.Wait()
		require.Zero(t, underWay.Load())
	})
}

// A probe that panics, in a Go that recovers, is under way no longer.
func TestProbesThatPanicEnd(t *testing.T) {
	t.Parallel()
	calls := 0
	boom := proberFunc(func(context.Context, string) (balance.Load, error) {
		calls++
		panic("boom")
	})
	recovers := func(probe func()) {
		defer func() { _ = recover() }()
		probe()
	}
	s := stage(t, balance.Prequal(boom, balance.PrequalOptions{Go: recovers, Pool: 2}), balance.Options{}, 10)
	s.shares(100)
	require.Equal(t, 300, calls)
}

func TestPrequalMayBeUsedByManyGoroutines(t *testing.T) {
	t.Parallel()
	b, err := balance.New[string](balance.Prequal(same(20, balance.Load{InFlight: 2, Latency: 1}), balance.PrequalOptions{}), balance.Options{})
	require.NoError(t, err)
	require.NoError(t, b.Update(equals(20)))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 2000 {
				p, err := b.Pick()
				if err != nil {
					panic(err)
				}
				if i%500 == 0 {
					if err := b.Update(equals(10 + i%20)); err != nil {
						panic(err)
					}
				}
				p.Report(balance.Load{InFlight: int64(i)})
				p.Done(nil)
			}
		})
	}
	wg.Wait()
	for _, s := range b.Stats() {
		require.Zero(t, s.InFlight)
	}
}

func TestPrequalOptionsOutOfRangeAreRefused(t *testing.T) {
	t.Parallel()
	_, err := balance.New[string](balance.Prequal(nil, balance.PrequalOptions{}), balance.Options{})
	require.ErrorContains(t, err, "Prober")
	for field, o := range map[string]balance.PrequalOptions{
		"Probes":  {Probes: math.NaN()},
		"Probes ": {Probes: 17},
		"Pool":    {Pool: 1},
		"Pool ":   {Pool: 65},
		"MaxAge":  {MaxAge: -1},
		"Hot":     {Hot: 1.5},
		"Hot ":    {Hot: math.Inf(-1)},
		"Timeout": {Timeout: -1},
	} {
		_, err := balance.New[string](balance.Prequal(loads{}, o), balance.Options{})
		require.ErrorContains(t, err, "PrequalOptions."+strings.TrimSpace(field))
	}
}
