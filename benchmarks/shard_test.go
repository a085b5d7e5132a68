package benchmarks

import (
	"fmt"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/dgryski/go-jump"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/benchmarks/ratio"
	"github.com/evenkeel-go/evenkeel/shard"
)

var keys = func() []string {
	keys := make([]string, 4096)
	for i := range keys {
		keys[i] = fmt.Sprintf("channel:%08d", i)
	}
	return keys
}()

func lookup(t testing.TB, n int) ratio.Op {
	ranges, err := shard.EvenRanges(n)
	require.NoError(t, err)
	shards := make([]shard.Shard, n)
	for i, r := range ranges {
		shards[i].Range = r
	}
	m, err := shard.NewMap(1, shards...)
	require.NoError(t, err)
	return func(n int) {
		for i := range n {
			sink += uint64(len(m.Lookup(shard.XXHash(keys[i%len(keys)])).Name))
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

func hashAndTable() ratio.Op {
	table := make([]int32, 4096)
	return func(n int) {
		for i := range n {
			sink += uint64(table[xxhash.Sum64String(keys[i%len(keys)])>>52])
		}
	}
}

func BenchmarkShardLookup(b *testing.B) {
	for _, n := range []int{4, 256, 4096} {
		for name, op := range map[string]ratio.Op{"floor": hashAndTable(), "evenkeel": lookup(b, n), "jump": jumpHash(n)} {
			b.Run(fmt.Sprintf("impl=%s/shards=%d", name, n), run(op))
		}
	}
}

func TestRatioShard(t *testing.T) {
	t.Run("lookup of 4096 against hash and table", func(t *testing.T) { ratio.AtMost(t, 2, lookup(t, 4096), hashAndTable()) })
	t.Run("lookup of 4096 against jump hash", func(t *testing.T) { ratio.AtMost(t, 0.5, lookup(t, 4096), jumpHash(4096)) })
}
