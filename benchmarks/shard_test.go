package benchmarks

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/cespare/xxhash/v2"
	"github.com/dgryski/go-jump"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/benchmarks/ratio"
	"github.com/evenkeel-go/evenkeel/shard"
)

// keys have 16 bytes, and ids are their points.
var keys, ids = func() ([]string, []shard.ID) {
	keys, ids := make([]string, 4096), make([]shard.ID, 4096)
	for i := range keys {
		keys[i] = fmt.Sprintf("channel:%08d", i)
		ids[i] = shard.XXHash(keys[i])
	}
	return keys, ids
}()

func evenMap(t testing.TB, n int) *shard.Map {
	ranges, err := shard.EvenRanges(n)
	require.NoError(t, err)
	return mapOf(t, ranges)
}

// skewedMap has n shards of random sizes, half of them in 1/65536 of the ring.
func skewedMap(t testing.TB, n int) *shard.Map {
	rng := rand.New(rand.NewPCG(7, uint64(n)))
	cuts := map[shard.ID]bool{}
	for i := 0; len(cuts) < n-1; i++ {
		cuts[shard.ID(rng.Uint64()>>(16*(i%2))|1)] = true
	}
	ranges := []shard.Range{{}}
	for cut := range cuts {
		for i, r := range ranges {
			if r.Contains(cut) {
				halves, err := r.Split(cut)
				require.NoError(t, err)
				ranges = append(append(ranges[:i:i], halves...), ranges[i+1:]...)
				break
			}
		}
	}
	return mapOf(t, ranges)
}

func mapOf(t testing.TB, ranges []shard.Range) *shard.Map {
	shards := make([]shard.Shard, len(ranges))
	for i, r := range ranges {
		shards[i].Range = r
	}
	m, err := shard.NewMap(1, shards...)
	require.NoError(t, err)
	return m
}

// lookup goes from a text to its shard.
func lookup(m *shard.Map) ratio.Op {
	return func(n int) {
		for i := range n {
			sink += at(m.Lookup(shard.XXHash(keys[i%len(keys)])))
		}
	}
}

// at uses a shard without reading it, and without a branch that may be guessed wrong.
func at(s *shard.Shard) uint64 { return uint64(uintptr(unsafe.Pointer(s))) }

// lookupHashed goes from a point to its shard.
func lookupHashed(m *shard.Map) ratio.Op {
	return func(n int) {
		for i := range n {
			sink += at(m.Lookup(ids[i%len(ids)]))
		}
	}
}

// route is a Router's way from a text to the handle of its node.
func route(t testing.TB, m *shard.Map) ratio.Op {
	r, err := shard.NewRouter(shard.XXHash, m, func(string) (int, error) { return 1, nil }, shard.RouterOptions[int]{})
	require.NoError(t, err)
	return func(n int) {
		for i := range n {
			sink += uint64(r.Route(keys[i%len(keys)]).Node)
		}
	}
}

func jumpHash(n int) ratio.Op {
	return func(times int) {
		for i := range times {
			sink += uint64(jump.Hash(xxhash.Sum64String(keys[i%len(keys)]), n))
		}
	}
}

// hashAndTable and table are the floors: one read of a table of 4096 entries.
func hashAndTable() ratio.Op {
	table := make([]int32, 4096)
	return func(n int) {
		for i := range n {
			sink += uint64(table[xxhash.Sum64String(keys[i%len(keys)])>>52])
		}
	}
}

func table() ratio.Op {
	table := make([]int32, 4096)
	return func(n int) {
		for i := range n {
			sink += uint64(table[ids[i%len(ids)]>>52])
		}
	}
}

func BenchmarkShardLookup(b *testing.B) {
	for _, n := range []int{4, 256, 4096} {
		even := evenMap(b, n)
		for name, op := range map[string]ratio.Op{
			"floor": hashAndTable(), "evenkeel": lookup(even), "skewed": lookup(skewedMap(b, n)), "router": route(b, even),
			"jump": jumpHash(n), "vitess": vitessScan(b, n),
		} {
			b.Run(fmt.Sprintf("impl=%s/shards=%d", name, n), run(op))
		}
	}
}

func TestRatioShard(t *testing.T) {
	for _, n := range []int{4, 256, 4096} {
		even, skewed := evenMap(t, n), skewedMap(t, n)
		t.Run(fmt.Sprintf("hashed key, %d shards, against a table", n), func(t *testing.T) { ratio.AtMost(t, 4, lookupHashed(even), table()) })
		t.Run(fmt.Sprintf("hashed key, %d skewed shards, against a table", n), func(t *testing.T) { ratio.AtMost(t, 5, lookupHashed(skewed), table()) })
		t.Run(fmt.Sprintf("text, %d shards, against hash and table", n), func(t *testing.T) { ratio.AtMost(t, 2.5, lookup(even), hashAndTable()) })
		t.Run(fmt.Sprintf("text, %d skewed shards, against hash and table", n), func(t *testing.T) { ratio.AtMost(t, 2.5, lookup(skewed), hashAndTable()) })
		t.Run(fmt.Sprintf("router, %d shards, against hash and table", n), func(t *testing.T) { ratio.AtMost(t, 3, route(t, even), hashAndTable()) })
	}
	t.Run("text, 4096 shards, against jump hash", func(t *testing.T) { ratio.AtMost(t, 0.6, lookup(evenMap(t, 4096)), jumpHash(4096)) })
	t.Run("text, 4096 shards, against Vitess", func(t *testing.T) {
		ratio.AtMost(t, 0.01, lookup(evenMap(t, 4096)), vitessScan(t, 4096))
	})
}

// Jump of package shard is jump consistent hash.
func TestJumpIsGoJump(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id, n := rapid.Uint64().Draw(t, "id"), rapid.IntRange(1, 1<<30).Draw(t, "n")
		require.Equal(t, int(jump.Hash(id, n)), shard.Jump(shard.ID(id), n))
	})
}
