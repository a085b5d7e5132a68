package shard_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
)

// Shards that crowd at every scale: the ring's halves, quarters… down to single points,
// and four thousand in a millionth of it. Points are drawn around the cuts, where a table
// would be wrong first.
func TestLookupIsRightWhereShardsCrowd(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 5))
	var halves, cluster, mixed []shard.ID
	for i := range 64 {
		halves = append(halves, 1<<i)
	}
	for i := range shard.ID(4096) {
		cluster = append(cluster, 0xabcd<<48|i<<24, 0xff<<56+i)
		mixed = append(mixed, shard.ID(rng.Uint64())>>(i%60))
	}
	for name, cuts := range map[string][]shard.ID{"halves": halves, "cluster": cluster, "mixed": mixed} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shards := tiles(cuts)
			m := newMap(t, 1, shards...)
			for i, s := range shards {
				for _, id := range []shard.ID{s.Range.Start, s.Range.Start + (s.Range.End-s.Range.Start)/2, s.Range.End - 1} {
					require.Equal(t, shards[i].Range, m.Lookup(id).Range, "%v", id)
				}
			}
		})
	}
}

// The tables must not grow with where the cuts are: at most 200 bytes a shard and 2 kB.
func TestTheIndexIsSmall(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 16, 256, 4096} {
		for name, cut := range map[string]func(i int) shard.ID{
			"even":     func(i int) shard.ID { return shard.ID(uint64(i) * (1 << 63 / uint64(n) * 2)) },
			"adjacent": func(i int) shard.ID { return shard.ID(i) },
			"halves":   func(i int) shard.ID { return 1 << (i % 64) },
			"pairs":    func(i int) shard.ID { return shard.ID(i/6)<<40 + shard.ID(i%6) },
		} {
			t.Run(fmt.Sprint(name, n), func(t *testing.T) {
				t.Parallel()
				var cuts []shard.ID
				for i := range n {
					cuts = append(cuts, cut(i))
				}
				shards := tiles(cuts)
				require.LessOrEqual(t, newMap(t, 1, shards...).IndexBytes(), 2048+200*len(shards))
			})
		}
	}
}

// A table whose last bucket reaches past the end of the ring, with several cuts in it.
func TestLookupIsRightAtTheEndOfTheRing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var cuts []shard.ID
		for range rapid.IntRange(1, 30).Draw(t, "spread") {
			cuts = append(cuts, -shard.ID(rapid.Uint64Range(1, 1<<50).Draw(t, "back")>>rapid.IntRange(0, 49).Draw(t, "by")))
		}
		for i := range shard.ID(rapid.IntRange(0, 8).Draw(t, "last")) {
			cuts = append(cuts, -i-1)
		}
		shards := tiles(cuts)
		m := newMap(t, 1, shards...)
		for _, s := range shards {
			for _, id := range []shard.ID{s.Range.Start - 1, s.Range.Start, s.Range.End - 1} {
				require.Equal(t, naiveOwner(shards, id), m.Lookup(id).Range, "%v", id)
			}
		}
	})
}

// The tables are as deep as they need be. A look-up is bounded wherever the cuts are.
func TestALookupTakesFewSteps(t *testing.T) {
	t.Parallel()
	worst := map[string]int{}
	for name, cut := range map[string]func(i int) shard.ID{
		"even":     func(i int) shard.ID { return shard.ID(i) << 52 },
		"adjacent": func(i int) shard.ID { return shard.ID(i) },
		"halves":   func(i int) shard.ID { return 1 << (i % 64) },
		"fives":    func(i int) shard.ID { return shard.ID(i%5+1) << (60 - i/5*4%60) },
		"random":   func(i int) shard.ID { return shard.XXHash(fmt.Sprint(i)) },
		"spread":   func(i int) shard.ID { return shard.XXHash(fmt.Sprint(i)) >> (i % 60) },
	} {
		var cuts []shard.ID
		for i := range 4096 {
			cuts = append(cuts, cut(i))
		}
		shards := tiles(cuts)
		m := newMap(t, 1, shards...)
		for _, s := range shards {
			worst[name] = max(worst[name], m.Steps(s.Range.Start), m.Steps(s.Range.End-1))
		}
	}
	t.Log(worst)
	for name, most := range map[string]int{"even": 0, "adjacent": 1, "halves": 12, "fives": 7, "random": 4, "spread": 8} {
		require.LessOrEqual(t, worst[name], most, name)
	}
}
