package balance_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/balance"
)

// picks returns how often each of n idle backends is picked, by index.
func idlePicks(t require.TestingT, s balance.Strategy, weights []float64, rounds int) []float64 {
	b := seeded(t, s, 42)
	set := equals(len(weights))
	for i := range set {
		set[i].Weight = weights[i]
	}
	require.NoError(t, b.Update(set))
	counts := map[string]float64{}
	for range rounds {
		p, err := b.Pick()
		require.NoError(t, err)
		counts[p.Value]++
		p.Done(nil)
	}
	all := make([]float64, len(set))
	for i := range set {
		all[i] = counts[set[i].ID]
	}
	return all
}

// chiSquare is Pearson's statistic of counts against expected counts.
func chiSquare(counts, expected []float64) (x float64) {
	for i := range counts {
		x += (counts[i] - expected[i]) * (counts[i] - expected[i]) / expected[i]
	}
	return x
}

// limit is a bound that a chi-square value with df degrees of freedom passes once
// in some millions of runs; the seeds are fixed, so a run that passes always passes.
func limit(df int) float64 { return float64(df) + 5*math.Sqrt(2*float64(df)) + 10 }

// A draw that steps on when both candidates are the same favours neighbours, which
// no count of single backends shows.
func TestEveryPairOfCandidatesIsEquallyLikely(t *testing.T) {
	t.Parallel()
	const n, rounds = 10, 900_000
	rng := rand.New(rand.NewPCG(3, 4))
	counts := make([]float64, n*n)
	for range rounds {
		a, b := balance.Pair(rng.Uint64(), n)
		require.NotEqual(t, a, b)
		counts[a*n+b]++
	}
	var pairs, expected []float64
	for a := range n {
		for b := range n {
			if a != b {
				pairs = append(pairs, counts[a*n+b])
				expected = append(expected, rounds/(n*(n-1)))
			}
		}
	}
	require.Less(t, chiSquare(pairs, expected), limit(len(pairs)-1))
}

func TestIdleBackendsArePickedByWeight(t *testing.T) {
	t.Parallel()
	const rounds = 200_000
	for name, strategy := range strategies() {
		for _, weights := range [][]float64{
			slices.Repeat([]float64{1}, 3), slices.Repeat([]float64{1}, 12),
			{1, 2, 5},
			{1, 1, 1, 1, 1, 8, 1, 1},
			{0.5, 1, 0, 2, 4, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
		} {
			counts := idlePicks(t, strategy, weights, rounds)
			sum := 0.0
			for _, w := range weights {
				sum += max(w, btoi(w == 0))
			}
			for i, w := range weights {
				want := max(w, btoi(w == 0)) / sum
				// A hundredth of an average share for the table of turns, and chance.
				slack := 0.015/float64(len(weights)) + 5*math.Sqrt(want/rounds)
				require.InDelta(t, want, counts[i]/rounds, slack, "%s %v: backend %d", name, weights, i)
			}
		}
	}
}

func btoi(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func TestAliasTableHasTheWeightsShares(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		weights := anyWeights().Draw(t, "weights")
		sum := 0.0
		for _, w := range weights {
			sum += w
		}
		for i, share := range balance.AliasShares(weights) {
			require.InDelta(t, weights[i]/sum, share, 1e-8)
		}
	})
}

// anyWeights draws weights of which the heaviest is 1.
func anyWeights() *rapid.Generator[[]float64] {
	return rapid.Custom(func(t *rapid.T) []float64 {
		weights := rapid.SliceOfN(rapid.Float64Range(1e-12, 1), 1, 50).Draw(t, "weights")
		heaviest := slices.Max(weights)
		for i := range weights {
			weights[i] /= heaviest
		}
		return weights
	})
}

func TestScheduleGivesEachItsTurnsEvenlySpread(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		weights := anyWeights().Draw(t, "weights")
		sum := 0.0
		for _, w := range weights {
			sum += w
		}
		schedule := balance.ScheduleOf(weights)
		turns := make([][]int, len(weights))
		for at, i := range schedule {
			turns[i] = append(turns[i], at)
		}
		for i, at := range turns {
			want := max(1, weights[i]/sum*64*float64(len(weights)))
			require.InDelta(t, want, len(at), 0.5001, "backend %d", i)
			// Between two turns of one backend the others take theirs: no gap is much
			// longer than the average one.
			gap := float64(len(schedule)) / float64(len(at))
			for k := 1; k < len(at); k++ {
				require.Less(t, float64(at[k]-at[k-1]), gap+float64(len(weights))+1)
			}
		}
	})
}

func TestRoundRobinTakesTurnsAndGoesOnAfterAnUpdate(t *testing.T) {
	t.Parallel()
	b := seeded(t, balance.RoundRobin(), 1)
	var order []string
	for range 6 {
		require.NoError(t, b.Update(equals(3)))
		p, err := b.Pick()
		require.NoError(t, err)
		order = append(order, p.Value)
		p.Done(nil)
	}
	require.Equal(t, []string{"b0", "b1", "b2", "b0", "b1", "b2"}, order)
}

// With one backend busy, two choices give it only what it draws against itself:
// nothing, since the candidates are distinct.
func TestLeastRequestAvoidsTheBusyOne(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		if name == "random" || name == "roundrobin" {
			continue
		}
		for _, n := range []int{2, 3, 4, 5, 50} {
			for _, weight := range []float64{1, 3} {
				b := seeded(t, strategy, 9)
				set := equals(n)
				set[n-1].Weight = weight
				require.NoError(t, b.Update(set[:1]))
				for range 5 {
					_, err := b.Pick() // of b0, and never done
					require.NoError(t, err)
				}
				require.NoError(t, b.Update(set))
				for range 300 {
					p, err := b.Pick()
					require.NoError(t, err)
					require.NotEqual(t, "b0", p.Value, "%s of %d", name, n)
					p.Done(nil)
				}
			}
		}
	}
}

// n requests that never end: with two choices the most loaded of n backends has
// about log log n / log 2 more than the average (Azar, Broder, Karlin and Upfal
// 1994), at random about log n / log log n.
func TestTwoChoicesFlattenTheLoad(t *testing.T) {
	t.Parallel()
	longest := func(s balance.Strategy) int64 {
		b := seeded(t, s, 5)
		require.NoError(t, b.Update(equals(1000)))
		for range 1000 {
			_, err := b.Pick()
			require.NoError(t, err)
		}
		most := int64(0)
		for _, n := range inFlight(b) {
			most = max(most, n)
		}
		return most
	}
	require.LessOrEqual(t, longest(balance.LeastRequest(balance.LeastRequestOptions{})), int64(4))
	require.GreaterOrEqual(t, longest(balance.Random()), int64(5))
	require.Equal(t, int64(1), longest(balance.RoundRobin()))
}

// The share of requests follows the weights also under load: a backend of weight 8
// among 10 of weight 1 holds eight times as many.
func TestLeastRequestFillsByWeight(t *testing.T) {
	t.Parallel()
	b := seeded(t, balance.LeastRequest(balance.LeastRequestOptions{}), 7)
	set := equals(11)
	set[3].Weight = 8
	require.NoError(t, b.Update(set))
	for range 1800 {
		_, err := b.Pick()
		require.NoError(t, err)
	}
	for id, n := range inFlight(b) {
		want := 100.0
		if id == "b3" {
			want = 800
		}
		require.InEpsilon(t, want, n, 0.1, id)
	}
}

func TestExtremeWeightsDoNotBreakTheChoice(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		b := seeded(t, strategy, 11)
		set := equals(8)
		for i, w := range []float64{math.MaxFloat64, math.SmallestNonzeroFloat64, 1, math.MaxFloat64, 1e-300, 1e300, 0, 5} {
			set[i].Weight = w
		}
		for _, members := range [][]balance.Backend[string]{set, set[:3]} {
			require.NoError(t, b.Update(members))
			heavy := 0
			for range 300 {
				p, err := b.Pick()
				require.NoError(t, err)
				if i := slices.IndexFunc(set, func(s balance.Backend[string]) bool { return s.ID == p.Value }); i == 0 || i == 3 {
					heavy++
				}
			}
			require.Greater(t, heavy, 200, "%s of %d", name, len(members))
		}
	}
}

func TestPickExceptPrefersTheLeastBusyOfTheUntried(t *testing.T) {
	t.Parallel()
	b := seeded(t, balance.LeastRequest(balance.LeastRequestOptions{}), 13)
	require.NoError(t, b.Update(equals(40)))
	var tried []string
	for range 40 { // each try is of another backend
		p, err := b.PickExcept(tried...)
		require.NoError(t, err)
		require.NotContains(t, tried, p.ID())
		tried = append(tried, p.ID())
	}
	p, err := b.PickExcept(tried...)
	require.NoError(t, err, "all were tried")
	require.NotEmpty(t, p.ID())
	require.Equal(t, fmt.Sprint(1), fmt.Sprint(slices.Min(values(inFlight(b)))))
}

func values(m map[string]int64) (all []int64) {
	for _, v := range m {
		all = append(all, v)
	}
	return all
}
