package shard_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
)

// The vectors are those of Guava's test of Hashing.consistentHash, the same function.
func TestJumpIsJumpConsistentHash(t *testing.T) {
	t.Parallel()
	for i, want := range []int{0, 55, 62, 8, 45, 59, 86, 97, 82, 59, 73, 37, 17, 56, 86, 21, 90, 37, 38, 83} {
		require.Equal(t, want, shard.Jump(shard.ID(i), 100))
	}
	require.Equal(t, 6, shard.Jump(10863919174838991, 11))
	require.Equal(t, 3, shard.Jump(2016238256797177309, 11))
	require.Equal(t, 5, shard.Jump(1673758223894951030, 11))
	for _, n := range []int{0, -1} {
		require.Equal(t, -1, shard.Jump(7, n))
	}
}

func TestJumpMovesKeysOnlyToTheNewBucket(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id, n := anyID().Draw(t, "id"), rapid.IntRange(1, 5000).Draw(t, "n")
		before, after := shard.Jump(id, n), shard.Jump(id, n+1)
		require.Less(t, before, n)
		if after != before {
			require.Equal(t, n, after)
		}
	})
}

func TestRendezvousDependsOnNamesAndNotOnTheirOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := anyID().Draw(t, "id")
		nodes := rapid.SliceOfNDistinct(rapid.StringN(0, 8, -1), 1, 20, rapid.ID[string]).Draw(t, "nodes")
		owner := nodes[shard.Rendezvous(id, nodes)]
		shuffled := slices.Clone(nodes)
		rand.New(rand.NewPCG(uint64(id), 1)).Shuffle(len(nodes), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		require.Equal(t, owner, shuffled[shard.Rendezvous(id, shuffled)])

		gone := rapid.IntRange(0, len(nodes)-1).Draw(t, "gone")
		if rest := slices.Delete(slices.Clone(nodes), gone, gone+1); nodes[gone] != owner {
			require.Equal(t, owner, rest[shard.Rendezvous(id, rest)])
		}
	})
	require.Equal(t, -1, shard.Rendezvous(7, nil))
	require.Zero(t, shard.Rendezvous(7, []string{"a", "a"}))
}

func TestRendezvousSpreadsEvenly(t *testing.T) {
	t.Parallel()
	nodes := make([]string, 10)
	for i := range nodes {
		nodes[i] = fmt.Sprint("node", i)
	}
	counts := make([]int, len(nodes))
	rng := rand.New(rand.NewPCG(1, 1))
	for range 20000 {
		counts[shard.Rendezvous(shard.ID(rng.Uint64()), nodes)]++
	}
	for _, n := range counts {
		require.InDelta(t, 2000, n, 200) // some 4.7 standard deviations
	}
}

// The greatest weight wins, and stays what it is: owners may not move with a
// version of the package.
func TestRendezvousIsStable(t *testing.T) {
	t.Parallel()
	var got []int
	for id := range shard.ID(12) {
		got = append(got, shard.Rendezvous(id<<60, []string{"a", "b", "c", "d", "e"}))
	}
	require.Equal(t, []int{1, 3, 1, 1, 1, 3, 4, 0, 2, 2, 3, 4}, got)
}

// A jump beyond the greatest int64 must not wrap: on amd64 it went on for ever.
func TestJumpEndsForAnyNumberOfBuckets(t *testing.T) {
	t.Parallel()
	done := make(chan int, 1)
	go func() { done <- shard.Jump(1, math.MaxInt) }()
	select {
	case b := <-done:
		require.GreaterOrEqual(t, b, 0)
	case <-time.After(5 * time.Second):
		t.Fatal("endless loop")
	}
}
