package coalesce_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

type node = coalesce.Node[int]

func owners(t require.TestingT, nodes ...node) *coalesce.Owners[int] {
	var o coalesce.Owners[int]
	require.NoError(t, o.Update(nodes))
	return &o
}

func owner(t require.TestingT, o *coalesce.Owners[int], key string) string {
	n, err := o.Owner(key)
	require.NoError(t, err)
	return n.ID
}

func drawNodes(t *rapid.T, least int) []node {
	ids := rapid.SliceOfNDistinct(rapid.StringN(1, 8, -1), least, 12, rapid.ID[string]).Draw(t, "ids")
	weighted := rapid.Bool().Draw(t, "weighted")
	var nodes []node
	for _, id := range ids {
		n := node{ID: id}
		if weighted {
			n.Weight = rapid.Float64Range(0, 10).Draw(t, "weight")
		}
		nodes = append(nodes, n)
	}
	return nodes
}

func TestAllProcessesAgreeOnTheOwner(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := drawNodes(t, 1)
		a := owners(t, nodes...)
		b := owners(t, rapid.Permutation(nodes).Draw(t, "order")...)
		for _, key := range rapid.SliceOfN(rapid.String(), 1, 50).Draw(t, "keys") {
			ranked := slices.Collect(a.Ranked(key))
			require.Equal(t, ranked, slices.Collect(b.Ranked(key)))
			require.ElementsMatch(t, nodes, ranked)
			require.Equal(t, ranked[0].ID, owner(t, a, key))
			require.Equal(t, ranked[0].ID, owner(t, b, key))
		}
	})
}

// Who owns what is a contract between versions too: a fleet is upgraded one
// process at a time.
func TestOwnersAreTheSameInEveryVersion(t *testing.T) {
	equal := owners(t, node{ID: "a"}, node{ID: "b"}, node{ID: "c"})
	weighted := owners(t, node{ID: "a", Weight: 1}, node{ID: "b", Weight: 2}, node{ID: "c", Weight: 4})
	var got strings.Builder
	for i := range 20 {
		key := fmt.Sprintf("channel/%d", i)
		got.WriteString(owner(t, equal, key) + owner(t, weighted, key) + " ")
	}
	require.Equal(t, "cc cc ac aa aa bb aa bb aa ac cc ab aa bb bc aa aa bb cc bb ", got.String())
}

// A node that joins takes keys, and no other key moves; the same backwards is a
// node that leaves, whose keys go to those that were next.
func TestAChangeMovesNoKeyButThoseOfItsNode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := drawNodes(t, 2)
		few, all := owners(t, nodes[1:]...), owners(t, nodes...)
		for i := range 100 {
			key := fmt.Sprintf("channel/%d", i)
			if before, after := owner(t, few, key), owner(t, all, key); after != nodes[0].ID {
				require.Equal(t, before, after)
			}
			ranked := slices.Collect(all.Ranked(key))
			if ranked[0].ID == nodes[0].ID {
				require.Equal(t, ranked[1].ID, owner(t, few, key))
			}
		}
	})
}

func TestAHigherWeightOnlyDrawsKeysToItsNode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := drawNodes(t, 2)
		for i := range nodes {
			nodes[i].Weight = max(nodes[i].Weight, 0.1)
		}
		before := owners(t, nodes...)
		nodes[0].Weight *= rapid.Float64Range(1, 10).Draw(t, "more")
		after := owners(t, nodes...)
		for i := range 100 {
			key := fmt.Sprintf("channel/%d", i)
			if now := owner(t, after, key); now != nodes[0].ID {
				require.Equal(t, owner(t, before, key), now)
			}
		}
	})
}

// The chi-square statistic of the keys per node stays below the 99.99 % quantile
// for 9 degrees of freedom, 33.7. The keys are fixed, so that the test is too.
func TestKeysAreSpreadByWeight(t *testing.T) {
	for name, weight := range map[string]func(i int) float64{
		"equal":    func(int) float64 { return 0 },
		"weighted": func(i int) float64 { return float64(i + 1) },
	} {
		t.Run(name, func(t *testing.T) {
			var nodes []node
			sum := 0.0
			for i := range 10 {
				n := node{ID: fmt.Sprintf("10.0.0.%d:8080", i), Value: i, Weight: weight(i)}
				nodes = append(nodes, n)
				sum += max(n.Weight, map[bool]float64{true: 1}[n.Weight == 0])
			}
			o := owners(t, nodes...)
			const keys = 100_000
			got := map[string]float64{}
			for i := range keys {
				got[owner(t, o, fmt.Sprintf("channel/%d", i))]++
			}
			chi := 0.0
			for _, n := range nodes {
				want := keys * max(n.Weight, map[bool]float64{true: 1}[n.Weight == 0]) / sum
				chi += (got[n.ID] - want) * (got[n.ID] - want) / want
			}
			require.Less(t, chi, 33.7, "%v", got)
		})
	}
}

// The keys of a node that leaves are spread over all others, so that its end is
// not the next one's end too.
func TestKeysOfANodeThatLeavesAreSpread(t *testing.T) {
	var nodes []node
	for i := range 5 {
		nodes = append(nodes, node{ID: fmt.Sprint("node-", i)})
	}
	o, next := owners(t, nodes...), map[string]int{}
	for i := range 20_000 {
		ranked := slices.Collect(o.Ranked(fmt.Sprint("key-", i)))
		if ranked[0].ID == "node-0" {
			next[ranked[1].ID]++
		}
	}
	require.Len(t, next, 4)
	for id, n := range next {
		require.InDelta(t, 1000, n, 120, id) // 4 standard deviations
	}
}

func TestUpdateRefusesWhatIsNotAFleet(t *testing.T) {
	o := owners(t, node{ID: "a", Value: 7})
	for want, nodes := range map[string][]node{
		`coalesce: node 1 has no ID`:                                             {{ID: "b"}, {}},
		`coalesce: node "b" is given twice`:                                      {{ID: "b"}, {ID: "b"}},
		`coalesce: node "b" has Weight -1, want a positive number, or 0 for 1`:   {{ID: "b", Weight: -1}},
		`coalesce: node "b" has Weight NaN, want a positive number, or 0 for 1`:  {{ID: "b", Weight: math.NaN()}},
		`coalesce: node "b" has Weight +Inf, want a positive number, or 0 for 1`: {{ID: "b", Weight: math.Inf(1)}},
	} {
		require.EqualError(t, o.Update(nodes), want)
		n, err := o.Owner("k")
		require.NoError(t, err)
		require.Equal(t, node{ID: "a", Value: 7}, n, "nothing changes")
	}
}

func TestNobodyOwnsAnythingInAnEmptyFleet(t *testing.T) {
	var o coalesce.Owners[int]
	for range 2 {
		_, err := o.Owner("k")
		require.ErrorIs(t, err, coalesce.ErrNoNodes)
		require.Empty(t, slices.Collect(o.Ranked("k")))
		require.NoError(t, o.Update(nil))
	}
}

// A caller sees one fleet or the other, never a mixture.
func TestUpdateIsSeenWhole(t *testing.T) {
	var o coalesce.Owners[int]
	fleet := func(v int) []node { return []node{{ID: "a", Value: v}, {ID: "b", Value: v}, {ID: "c", Value: v}} }
	require.NoError(t, o.Update(fleet(0)))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 500 {
				values := map[int]bool{}
				for n := range o.Ranked("k") {
					values[n.Value] = true
				}
				if len(values) != 1 {
					t.Errorf("nodes of %v", slices.Collect(maps.Keys(values)))
				}
			}
		})
	}
	for v := range 500 {
		require.NoError(t, o.Update(fleet(v)))
	}
	all.Wait()
}

func TestOwnerAllocatesNothing(t *testing.T) {
	skipUnderRace(t)
	o := owners(t, node{ID: "a"}, node{ID: "b", Weight: 2})
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = o.Owner("channel/1") }))
}

func BenchmarkOwner(b *testing.B) {
	for _, n := range []int{3, 30, 300} {
		for _, weighted := range []bool{false, true} {
			b.Run(fmt.Sprintf("nodes=%d/weighted=%v", n, weighted), func(b *testing.B) {
				var nodes []node
				for i := range n {
					nodes = append(nodes, node{ID: fmt.Sprint(i)})
					if weighted {
						nodes[i].Weight = float64(i + 1)
					}
				}
				o := owners(b, nodes...)
				b.ReportAllocs()
				for b.Loop() {
					_, _ = o.Owner("channel/1/messages/latest")
				}
			})
		}
	}
}
