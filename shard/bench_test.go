package shard_test

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"testing"
	"unsafe"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
)

var sink int

// BenchmarkLookup compares ways from a 16-byte key to its shard. The floor hashes
// the key and reads one table entry.
func BenchmarkLookup(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	keys := make([]string, 4096)
	for i := range keys {
		keys[i] = fmt.Sprintf("%016x", rng.Uint64())
	}
	for _, cuts := range []string{"even", "random", "crowded"} {
		for _, n := range []int{4, 256, 4096} {
			m, starts := benchMap(b, cuts, n)
			table := make([]int, 4096)
			run := func(impl string, lookup func(key string) int) {
				b.Run(fmt.Sprintf("impl=%s/cuts=%s/shards=%d", impl, cuts, n), func(b *testing.B) {
					b.ReportAllocs()
					for i := 0; b.Loop(); i++ {
						sink += lookup(keys[i%len(keys)])
					}
				})
			}
			run("floor", func(key string) int { return table[xxhash.Sum64String(key)>>52] })
			run("map", func(key string) int { return int(uintptr(unsafe.Pointer(m.Lookup(shard.XXHash(key))))) })
			run("halving", func(key string) int {
				id := shard.XXHash(key)
				return sort.Search(len(starts), func(i int) bool { return starts[i] > id }) - 1
			})
		}
	}
}

func benchMap(b *testing.B, cuts string, n int) (*shard.Map, []shard.ID) {
	rng := rand.New(rand.NewPCG(7, uint64(n)))
	var points []shard.ID
	for i := 1; i < n; i++ {
		switch cuts {
		case "even":
			points = append(points, shard.ID(uint64(i)*(1<<63/uint64(n)*2)))
		case "random":
			points = append(points, shard.ID(rng.Uint64()))
		case "crowded": // half of the shards in 1/65536 of the ring
			points = append(points, shard.ID(rng.Uint64()>>(16*(i%2))))
		}
	}
	shards := tiles(points)
	m, err := shard.NewMap(1, shards...)
	require.NoError(b, err)
	var starts []shard.ID
	for s := range m.All() {
		starts = append(starts, s.Range.Start)
	}
	return m, starts
}
