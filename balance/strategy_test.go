package balance_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/balance"
)

// idlePicks returns how often each of n idle backends is picked, by index.
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
	rounds := 200_000
	if raceEnabled {
		rounds = 20_000
	}
	for name, strategy := range exactStrategies() {
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
				slack := 0.015/float64(len(weights)) + 5*math.Sqrt(want/float64(rounds))
				require.InDelta(t, want, counts[i]/float64(rounds), slack, "%s %v: backend %d", name, weights, i)
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
			// In average shares.
			share := float64(len(at)) / float64(len(schedule)) * float64(len(weights))
			fair := weights[i] / sum * float64(len(weights))
			require.InDelta(t, fair, share, max(1, fair)/50, "backend %d", i)
			// Between two turns of one backend the others take theirs: no gap is much
			// longer than the average one.
			gap := float64(len(schedule)) / float64(len(at))
			for k := 1; k < len(at); k++ {
				require.Less(t, float64(at[k]-at[k-1]), gap+float64(len(weights))+1)
			}
		}
	})
}

// Many clients that all began at the first would go round in step.
func TestRoundRobinBeginsAnywhere(t *testing.T) {
	t.Parallel()
	first := map[string]int{}
	for seed := range uint64(400) {
		b := seeded(t, balance.RoundRobin(), seed)
		require.NoError(t, b.Update(equals(4)))
		p, err := b.Pick()
		require.NoError(t, err)
		first[p.ID()]++
	}
	for id, n := range first {
		require.InDelta(t, 100, n, 40, id)
	}
}

func TestRoundRobinTakesTurnsAndGoesOnAfterAnUpdate(t *testing.T) {
	t.Parallel()
	b := fromTheFirst(t)
	var order []string
	for range 6 {
		require.NoError(t, b.Update(equals(3)))
		p, err := b.Pick()
		require.NoError(t, err)
		order = append(order, p.Value)
		p.Done(nil)
	}
	require.Equal(t, []string{"b0", "b1", "b2", "b0", "b1", "b2"}, order)
	for _, want := range []string{"b0", "b2", "b0"} {
		p, err := b.PickExcept("b1")
		require.NoError(t, err)
		require.Equal(t, want, p.Value, "a retry takes its turn too")
		p.Done(nil)
	}
}

// The light ones do not take their turns in a row, in which the heavy one would wait.
func TestScheduleSpreadsTheTurnsOfEqualBackends(t *testing.T) {
	t.Parallel()
	weights := slices.Repeat([]float64{0.01}, 200)
	weights[17] = 1
	wait := 0
	for _, i := range balance.ScheduleOf(weights) {
		if wait++; i == 17 {
			wait = 0
		}
		require.LessOrEqual(t, wait, 6) // two thirds of the turns are others'
	}
}

// With one backend busy, two choices give it only what it draws against itself:
// nothing, since the candidates are distinct.
func TestLeastRequestAvoidsTheBusyOne(t *testing.T) {
	t.Parallel()
	for name, strategy := range exactStrategies() {
		if name == "random" || name == "roundrobin" {
			continue
		}
		for _, n := range []int{2, 3, 4, 5, 50} {
			for _, weights := range [][2]float64{{1, 1}, {1, 3}, {100, 1}} { // of the busy one and of the last
				b := seeded(t, strategy, 9)
				set := equals(n)
				set[0].Weight, set[n-1].Weight = weights[0], weights[1]
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

// Two draws of three or four would often be the two bad ones.
func TestSmallSetsAreComparedWhole(t *testing.T) {
	t.Parallel()
	for _, n := range []int{3, 4} {
		for _, weight := range []float64{1, 3} {
			b := seeded(t, balance.LeastRequest(balance.LeastRequestOptions{}), 23)
			set := equals(n)
			set[0].Weight = weight
			require.NoError(t, b.Update(set[1:]))
			for _, s := range set[1:] {
				for range 2 {
					pickOnly(t, b, set[1:], s.ID)
				}
			}
			require.NoError(t, b.Update(set))
			for range 300 {
				p, err := b.Pick()
				require.NoError(t, err)
				require.Equal(t, "b0", p.Value)
				p.Done(nil)
			}
		}
	}
}

// With the heaviest busy, the second heaviest gets most: a draw that hits the first
// candidate again is repeated by weight before any other will do.
func TestTheSecondCandidateIsDrawnByWeightToo(t *testing.T) {
	t.Parallel()
	b := seeded(t, balance.LeastRequest(balance.LeastRequestOptions{}), 29)
	set := equals(12)
	set[0].Weight, set[1].Weight = 100, 50
	require.NoError(t, b.Update(set))
	pickOnly(t, b, set, "b0")
	second := 0.0
	const rounds = 20_000
	for range rounds {
		p, err := b.Pick()
		require.NoError(t, err)
		if p.Value == "b1" {
			second++
		}
		p.Done(nil)
	}
	// Drawn first, or after b0 at the first, second or last attempt.
	h, l := 100.0/160, 50.0/160
	require.InDelta(t, l+h*(l+h*(l+h/11)), second/rounds, 0.02)
}

func TestMoreChoicesFindTheIdleOneMoreOften(t *testing.T) {
	t.Parallel()
	for _, weight := range []float64{1, 2} {
		b := seeded(t, balance.LeastRequest(balance.LeastRequestOptions{Choices: 16}), 31)
		set := equals(30)
		set[29].Weight = weight
		require.NoError(t, b.Update(set))
		for _, s := range set[1:] {
			for range 2 {
				pickOnly(t, b, set, s.ID)
			}
		}
		idle := 0
		for range 1000 {
			p, err := b.Pick()
			require.NoError(t, err)
			if p.Value == "b0" {
				idle++
			}
			p.Done(nil)
		}
		require.Greater(t, idle, 350, "two choices would find it 67 times")
	}
}

func TestEqualRandomBitsGiveEqualPicks(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		for _, weight := range []float64{1, 3} {
			var order [2][]string
			for i := range order {
				b := seeded(t, strategy, 37)
				set := equals(20)
				set[4].Weight = weight
				require.NoError(t, b.Update(set))
				for range 50 {
					p, err := b.Pick()
					require.NoError(t, err)
					q, err := b.PickExcept(p.ID())
					require.NoError(t, err)
					order[i] = append(order[i], p.Value, q.Value)
				}
			}
			require.Equal(t, order[0], order[1], name)
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
	for name, strategy := range exactStrategies() {
		if name == "random" || name == "roundrobin" {
			continue
		}
		for _, n := range []int{4, 11, 30} {
			b := seeded(t, strategy, 7)
			set := equals(n)
			set[3].Weight = 8
			require.NoError(t, b.Update(set))
			for range 100 * (n + 7) {
				_, err := b.Pick()
				require.NoError(t, err)
			}
			for id, open := range inFlight(b) {
				want := 100.0
				if id == "b3" {
					want = 800
				}
				require.InEpsilon(t, want, open, 0.1, "%s of %d: %s", name, n, id)
			}
		}
	}
}

// pickOnly picks one backend of a set.
func pickOnly(t *testing.T, b *balance.Balancer[string], set []balance.Backend[string], id string) {
	var others []string
	for _, s := range set {
		if s.ID != id {
			others = append(others, s.ID)
		}
	}
	p, err := b.PickExcept(others...)
	require.NoError(t, err)
	require.Equal(t, id, p.Value)
}

// When no two backends are equally busy, the pick is the least busy candidate, and
// how often it is the least busy but r of all tells whether every set of candidates
// is equally likely, wherever in the set they are.
func TestEverySetOfCandidatesIsEquallyLikely(t *testing.T) {
	t.Parallel()
	const n, rounds = 8, 20_000
	choose := func(n, k int) float64 {
		c := 1.0
		for i := range k {
			c = c * float64(n-i) / float64(i+1)
		}
		return c
	}
	for _, choices := range []int{2, 3, 5} {
		for first := range n { // the least busy is here, the others in order after it
			b := seeded(t, balance.LeastRequest(balance.LeastRequestOptions{Choices: choices}), uint64(first))
			set := equals(n)
			require.NoError(t, b.Update(set))
			rank := map[string]int{}
			for i, s := range set {
				rank[s.ID] = (i - first + n) % n
			}
			for id, r := range rank {
				for range r {
					pickOnly(t, b, set, id)
				}
			}
			counts := make([]float64, n)
			for range rounds {
				p, err := b.Pick()
				require.NoError(t, err)
				counts[rank[p.Value]]++
				p.Done(nil)
			}
			var expected []float64
			for r := range n - choices + 1 {
				expected = append(expected, rounds*choose(n-1-r, choices-1)/choose(n, choices))
			}
			for _, never := range counts[len(expected):] {
				require.Zero(t, never)
			}
			require.Less(t, chiSquare(counts[:len(expected)], expected), limit(len(expected)-1), "%d choices from %d", choices, first)
		}
	}
}

func TestExtremeWeightsDoNotBreakTheChoice(t *testing.T) {
	t.Parallel()
	for name, strategy := range exactStrategies() {
		b := seeded(t, strategy, 11)
		set := equals(8)
		for i, w := range []float64{math.MaxFloat64, math.SmallestNonzeroFloat64, 1, math.MaxFloat64, 1e-300, 1e300, 0, 5} {
			set[i].Weight = w
		}
		require.NoError(t, b.Update(set[1:3])) // the lightest is the first
		for range 100 {
			_, err := b.Pick()
			require.NoError(t, err)
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

func TestPickExceptTriesEveryBackendBeforeOneTwice(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		b := seeded(t, strategy, 13)
		require.NoError(t, b.Update(equals(40)))
		var tried []string
		for range 40 {
			p, err := b.PickExcept(tried...)
			require.NoError(t, err)
			require.NotContains(t, tried, p.ID(), name)
			tried = append(tried, p.ID())
		}
		p, err := b.PickExcept(tried...)
		require.NoError(t, err, "all were tried")
		require.NotEmpty(t, p.ID())
	}
}

// 37 of 40 have been tried, so the strategy seldom finds one of the others. They
// must not profit from their places in the set.
func TestPickExceptPicksTheFewUntriedByWeight(t *testing.T) {
	t.Parallel()
	const rounds = 20_000
	for _, weights := range [][]float64{{1, 1, 1}, {1, 2, 5}} {
		b := seeded(t, balance.LeastRequest(balance.LeastRequestOptions{}), 17)
		set := equals(40)
		var tried []string
		for i := range set {
			if i < 20 || i > 22 {
				tried = append(tried, set[i].ID)
			} else {
				set[i].Weight = weights[i-20]
			}
		}
		require.NoError(t, b.Update(set))
		counts := map[string]float64{}
		for range rounds {
			p, err := b.PickExcept(tried...)
			require.NoError(t, err)
			counts[p.Value]++
			p.Done(nil)
		}
		sum := weights[0] + weights[1] + weights[2]
		for i, w := range weights {
			want := w / sum
			require.InDelta(t, want, counts[set[20+i].ID]/rounds, 5*math.Sqrt(want/rounds), "%v: %d", weights, i)
		}
	}
}

func TestPickExceptPrefersTheLeastBusyOfTheUntried(t *testing.T) {
	t.Parallel()
	for _, at := range []int{10, 40} {
		for _, weight := range []float64{1, 2} {
			b := seeded(t, balance.LeastRequest(balance.LeastRequestOptions{}), 19)
			set := equals(50)
			busy := set[at]
			require.NoError(t, b.Update([]balance.Backend[string]{busy}))
			for range 3 {
				_, err := b.Pick() // never done
				require.NoError(t, err)
			}
			idle := set[30]
			set[30].Weight = weight
			require.NoError(t, b.Update(set))
			var tried []string
			for _, s := range set {
				if s.ID != busy.ID && s.ID != idle.ID {
					tried = append(tried, s.ID)
				}
			}
			for range 100 {
				p, err := b.PickExcept(tried...)
				require.NoError(t, err)
				require.Equal(t, idle.ID, p.Value)
				p.Done(nil)
			}
		}
	}
}
