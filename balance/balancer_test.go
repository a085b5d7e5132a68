package balance_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/balance"
)

// strategies are all of them, with the options that matter.
func strategies() map[string]balance.Strategy {
	return map[string]balance.Strategy{
		"random":     balance.Random(),
		"roundrobin": balance.RoundRobin(),
		"p2c":        balance.LeastRequest(balance.LeastRequestOptions{}),
		"p5c":        balance.LeastRequest(balance.LeastRequestOptions{Choices: 5}),
		"p16c":       balance.LeastRequest(balance.LeastRequestOptions{Choices: 16}),
		"latency":    balance.LeastLatency(balance.LatencyOptions{}),
		"prequal":    balance.Prequal(noLoad{}, balance.PrequalOptions{Go: func(probe func()) { probe() }}),
	}
}

// exactStrategies are those that give each backend exactly its share: Prequal's depends
// on which backends it has probed.
func exactStrategies() map[string]balance.Strategy {
	all := strategies()
	delete(all, "prequal")
	return all
}

// noLoad is of backends that are all idle.
type noLoad struct{}

func (noLoad) Probe(context.Context, string) (balance.Load, error) { return balance.Load{}, nil }

// seeded returns a balancer whose picks can be repeated, and whose time stands still.
func seeded(t require.TestingT, s balance.Strategy, seed uint64) *balance.Balancer[string] {
	rng := rand.New(rand.NewPCG(seed, 0))
	b, err := balance.New[string](s, balance.Options{Rand: rng.Uint64, Clock: func() time.Duration { return 0 }})
	require.NoError(t, err)
	return b
}

// fromTheFirst returns a RoundRobin whose turns begin at the first backend.
func fromTheFirst(t require.TestingT) *balance.Balancer[string] {
	b, err := balance.New[string](balance.RoundRobin(), balance.Options{Rand: func() uint64 { return 0 }})
	require.NoError(t, err)
	return b
}

var errTest = errors.New("failed")

// equals returns n backends of weight 1 whose values are their IDs.
func equals(n int) []balance.Backend[string] {
	set := make([]balance.Backend[string], n)
	for i := range set {
		set[i] = balance.Backend[string]{ID: fmt.Sprint("b", i), Value: fmt.Sprint("b", i)}
	}
	return set
}

func inFlight(b *balance.Balancer[string]) map[string]int64 {
	m := map[string]int64{}
	for backend, s := range b.Stats() {
		m[backend.ID] = s.InFlight
	}
	return m
}

// The model keeps the open picks of each backend by hand. Whatever the strategy and
// however the set changes, the balancer's counts are those of the model.
func TestInFlightEqualsTheOpenPicks(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				b := seeded(t, strategy, rapid.Uint64().Draw(t, "seed"))
				type life struct {
					open, picks, failures int64
				}
				model := map[string]*life{} // the members, by ID
				type open struct {
					pick balance.Pick[string]
					of   *life
				}
				var picks []*open
				add := func(t *rapid.T, p balance.Pick[string], err error) {
					if len(model) == 0 {
						require.ErrorIs(t, err, balance.ErrNoBackends)
						return
					}
					require.NoError(t, err)
					require.NotNil(t, model[p.Value], "a member")
					require.Equal(t, p.Value, p.ID())
					model[p.Value].open++
					model[p.Value].picks++
					picks = append(picks, &open{p, model[p.Value]})
				}
				t.Repeat(map[string]func(*rapid.T){
					"update": func(t *rapid.T) {
						set := equals(30)
						for i := range set {
							set[i].Weight = rapid.SampledFrom([]float64{0, 1, 1, 8}).Draw(t, "weight")
						}
						set = set[rapid.IntRange(0, 15).Draw(t, "from"):rapid.IntRange(15, 30).Draw(t, "to")]
						require.NoError(t, b.Update(set))
						next := map[string]*life{}
						for _, backend := range set {
							if next[backend.ID] = model[backend.ID]; next[backend.ID] == nil {
								next[backend.ID] = &life{}
							}
						}
						model = next
					},
					"bad update": func(t *rapid.T) {
						require.ErrorIs(t, b.Update([]balance.Backend[string]{{ID: "b1"}, {ID: "b1"}}), balance.ErrBadBackend)
					},
					"pick": func(t *rapid.T) {
						p, err := b.Pick()
						add(t, p, err)
					},
					"pick except": func(t *rapid.T) {
						except := rapid.SliceOfN(rapid.SampledFrom(equals(30)), 0, 40).Draw(t, "except")
						var ids []string
						untried := len(model)
						for _, e := range except {
							if model[e.ID] != nil && !slices.Contains(ids, e.ID) {
								untried--
							}
							ids = append(ids, e.ID)
						}
						p, err := b.PickExcept(ids...)
						add(t, p, err)
						if err == nil && untried > 0 {
							require.NotContains(t, ids, p.ID())
						}
					},
					"done": func(t *rapid.T) {
						if len(picks) == 0 {
							t.Skip("no open pick")
						}
						i := rapid.IntRange(0, len(picks)-1).Draw(t, "which")
						o := picks[i]
						picks = slices.Delete(picks, i, i+1)
						outcome := rapid.SampledFrom([]error{nil, errTest, context.Canceled, fmt.Errorf("wrapped: %w", context.Canceled)}).Draw(t, "outcome")
						for range rapid.IntRange(1, 3).Draw(t, "times") { // the first counts
							o.pick.Done(outcome)
						}
						require.Equal(t, o.pick.Value, o.pick.ID(), "also when done")
						o.of.open--
						if outcome != nil && !errors.Is(outcome, context.Canceled) {
							o.of.failures++
						}
					},
					"": func(t *rapid.T) {
						share := 0.0
						n := 0
						for backend, s := range b.Stats() {
							l := model[backend.ID]
							require.Equal(t, life{s.InFlight, s.Picks, s.Failures}, *l, backend.ID)
							share += s.Share
							n++
						}
						require.Len(t, model, n)
						if n > 0 && share != 0 {
							require.InDelta(t, 1, share, 1e-9)
						}
					},
				})
			})
		})
	}
}

func TestARemovedBackendComesBackAsANewOne(t *testing.T) {
	t.Parallel()
	b := seeded(t, balance.LeastRequest(balance.LeastRequestOptions{}), 1)
	require.NoError(t, b.Update(equals(1)))
	old, err := b.Pick()
	require.NoError(t, err)
	require.NoError(t, b.Update(nil))
	require.NoError(t, b.Update(equals(1)))
	_, err = b.Pick()
	require.NoError(t, err)
	old.Done(errors.New("late"))
	for _, s := range b.Stats() {
		require.Equal(t, balance.Stats{InFlight: 1, Picks: 1, Share: 1}, s)
	}
}

func TestUpdateRefusesABadSetAndKeepsTheOld(t *testing.T) {
	t.Parallel()
	b := seeded(t, balance.Random(), 1)
	require.NoError(t, b.Update(equals(2)))
	for want, set := range map[string][]balance.Backend[string]{
		"number 1 has an empty ID, expected": {{ID: "a"}, {}},
		`ID "a" occurs twice`:                {{ID: "a"}, {ID: "b"}, {ID: "a"}},
		`"a": Weight is -1, expected`:        {{ID: "a", Weight: -1}},
		`"a": Weight is NaN, expected`:       {{ID: "a", Weight: math.NaN()}},
		`"a": Weight is +Inf, expected`:      {{ID: "a", Weight: math.Inf(1)}},
	} {
		err := b.Update(set)
		require.ErrorIs(t, err, balance.ErrBadBackend)
		require.ErrorContains(t, err, want)
		require.Equal(t, map[string]int64{"b0": 0, "b1": 0}, inFlight(b), want)
	}
}

func TestUpdateCopiesItsArgument(t *testing.T) {
	t.Parallel()
	b := seeded(t, balance.Random(), 1)
	set := equals(1)
	require.NoError(t, b.Update(set))
	set[0].Value = "changed"
	p, err := b.Pick()
	require.NoError(t, err)
	require.Equal(t, "b0", p.Value)
}

func TestNewRefusesBadOptions(t *testing.T) {
	t.Parallel()
	_, err := balance.New[int](nil, balance.Options{})
	require.ErrorContains(t, err, "strategy is nil")
	for _, choices := range []int{-1, 1, 17} {
		_, err := balance.New[int](balance.LeastRequest(balance.LeastRequestOptions{Choices: choices}), balance.Options{})
		require.ErrorContains(t, err, fmt.Sprintf("Choices is %d", choices))
	}
}

func TestTheZeroBalancerHasNoBackends(t *testing.T) {
	t.Parallel()
	var b balance.Balancer[int]
	_, err := b.Pick()
	require.ErrorIs(t, err, balance.ErrNoBackends)
	_, err = b.PickExcept("a")
	require.ErrorIs(t, err, balance.ErrNoBackends)
	for range b.Stats() {
		t.Fatal("yielded")
	}
	require.ErrorContains(t, b.Update([]balance.Backend[int]{{ID: "a"}}), "expected one from New")
	var p balance.Pick[int]
	p.Done(errors.New("failed"))
	require.Empty(t, p.ID())
}

func TestDoEndsThePickHoweverItsFunctionEnds(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for name, f := range map[string]struct {
		f        func()
		failures int64
	}{
		"return": {func() {}, 0},
		"panic":  {func() { panic(boom) }, 1},
		"goexit": {runtime.Goexit, 1},
	} {
		b := fromTheFirst(t)
		require.NoError(t, b.Update(equals(3)))
		var caller sync.WaitGroup
		caller.Go(func() {
			defer func() { _ = recover() }()
			_ = b.Do(t.Context(), func(context.Context, string) error {
				require.Equal(t, int64(1), inFlight(b)["b0"])
				f.f()
				return nil
			})
		})
		caller.Wait()
		for backend, s := range b.Stats() {
			require.Zero(t, s.InFlight, name)
			if backend.ID == "b0" {
				require.Equal(t, f.failures, s.Failures, name)
			}
		}
	}
	b := seeded(t, balance.RoundRobin(), 1)
	require.ErrorIs(t, b.Do(t.Context(), func(context.Context, string) error { panic("called") }), balance.ErrNoBackends)
	require.NoError(t, b.Update(equals(1)))
	require.Equal(t, boom, b.Do(t.Context(), func(context.Context, string) error { return boom }))
}

// Picks run while the set changes all the time. Each is of a backend that is or was
// a member, and when all are done nothing is under way.
func TestPicksDuringUpdatesAreWhole(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := balance.New[string](strategy, balance.Options{})
			require.NoError(t, err)
			require.NoError(t, b.Update(equals(20)))
			var workers sync.WaitGroup
			for range 4 {
				workers.Go(func() {
					for range 2000 {
						p, err := b.Pick()
						if err != nil || p.ID() != p.Value {
							t.Errorf("pick of %q is %q: %v", p.ID(), p.Value, err)
							return
						}
						p.Done(nil)
					}
				})
			}
			workers.Go(func() {
				for i := range 300 {
					set := equals(20)[i%10 : i%10+1+i%11]
					for j := range set {
						set[j].Weight = float64(1 + (i+j)%3)
					}
					if err := b.Update(set); err != nil {
						t.Error(err)
					}
				}
			})
			workers.Wait()
			for id, n := range inFlight(b) {
				require.Zero(t, n, id)
			}
		})
	}
}

// Two updates at once, and a pick right after each: a pick that finds the set of the
// one is not forgotten by the other.
func TestConcurrentUpdatesKeepEachOthersState(t *testing.T) {
	t.Parallel()
	set := equals(5000) // for updates that last long enough to overlap
	for range 30 {
		b, err := balance.New[string](balance.Random(), balance.Options{})
		require.NoError(t, err)
		var ready atomic.Int32
		var updates sync.WaitGroup
		for range 2 {
			updates.Go(func() {
				for ready.Add(1); ready.Load() < 2; {
					runtime.Gosched()
				}
				if err := b.Update(set); err != nil {
					t.Error(err)
				}
				if _, err := b.Pick(); err != nil {
					t.Error(err)
				}
			})
		}
		updates.Wait()
		open := int64(0)
		for _, n := range inFlight(b) {
			open += n
		}
		require.Equal(t, int64(2), open)
	}
}

func TestStatsStopsWhenAsked(t *testing.T) {
	t.Parallel()
	b := seeded(t, balance.Random(), 1)
	require.NoError(t, b.Update(equals(3)))
	for backend := range b.Stats() {
		require.Equal(t, "b0", backend.ID)
		break
	}
}

func TestEachNodeFillsACacheLine(t *testing.T) {
	t.Parallel()
	require.Equal(t, uintptr(64), balance.NodeSize)
	for _, n := range []int{1, 20, 1000} {
		b := seeded(t, balance.Random(), 1)
		require.NoError(t, b.Update(equals(n)))
		for _, at := range balance.NodeAddresses(b) {
			require.Zero(t, at%64)
		}
	}
}

func TestPicksAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for name, strategy := range strategies() {
		if name == "prequal" {
			continue // its probes do
		}
		for _, weight := range []float64{1, 3} {
			b, err := balance.New[string](strategy, balance.Options{})
			require.NoError(t, err)
			set := equals(20)
			set[0].Weight = weight
			require.NoError(t, b.Update(set))
			require.Zero(t, testing.AllocsPerRun(200, func() {
				p, _ := b.Pick()
				q, _ := b.PickExcept(p.ID())
				q.Done(context.Canceled)
				p.Done(errTest)
				_ = b.Do(t.Context(), func(context.Context, string) error { return nil })
			}), name)
		}
	}
}

// Who waits until nothing is under way, and then looks, sees every failure.
func TestAFailureIsCountedBeforeItsRequestHasEnded(t *testing.T) {
	t.Parallel()
	var b *balance.Balancer[string]
	underWay := int64(-1)
	b, err := balance.New[string](balance.Random(), balance.Options{Classify: func(error) balance.Outcome {
		underWay = inFlight(b)["b0"]
		return balance.Failure
	}})
	require.NoError(t, err)
	require.NoError(t, b.Update(equals(1)))
	p, err := b.Pick()
	require.NoError(t, err)
	p.Done(errTest)
	require.EqualValues(t, 1, underWay)
	require.Zero(t, inFlight(b)["b0"])
}
