package coalesce_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

var cacheConfigs = []struct {
	name string
	o    stringOptions
}{
	{"endless", stringOptions{}},
	{"ttl", stringOptions{TTL: time.Hour}},
	{"all", stringOptions{TTL: time.Hour, Jitter: 0.1, Stale: time.Hour, StaleIfError: time.Hour, NegativeTTL: time.Hour, Beta: 1}},
}

func cacheKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("channel/%d/messages/latest", i)
	}
	return keys
}

func one(context.Context, string) (int, error) { return 1, nil }

// BenchmarkCacheHit reads what is there: one key that all read, or many. The
// floor is a map that nobody writes, and the clock where values expire.
func BenchmarkCacheHit(b *testing.B) {
	keys := cacheKeys(1024)
	ctx := context.Background()
	rows := []struct {
		name string
		mask int
	}{{"hot", 0}, {"spread", 1023}}
	run := func(config, impl string, get func(key string) int) {
		for _, row := range rows {
			b.Run("keys="+row.name+"/config="+config+"/impl="+impl, func(b *testing.B) {
				b.ReportAllocs()
				var start atomic.Int64
				b.RunParallel(func(pb *testing.PB) {
					for i := int(start.Add(331)); pb.Next(); i++ {
						if get(keys[i&row.mask]) != 1 {
							b.Error("not there")
						}
					}
				})
			})
		}
	}
	floor := map[string]*int{}
	for _, key := range keys {
		v := 1
		floor[key] = &v
	}
	epoch := time.Now()
	for _, config := range cacheConfigs {
		config.o.Capacity = 4096
		c := newCache(b, config.o, one)
		for _, key := range keys {
			c.Set(key, 1)
		}
		run(config.name, "evenkeel", func(key string) int { v, _ := c.Get(ctx, key); return v })
		if config.o.TTL == 0 {
			run(config.name, "floor", func(key string) int { return *floor[key] })
		} else {
			run(config.name, "floor", func(key string) int {
				if time.Since(epoch) < 0 {
					return 0
				}
				return *floor[key]
			})
		}
	}
}

// BenchmarkCacheMiss reads keys that are not there, in a cache that is full, so
// that each load also evicts. The floor is the flight alone, without a cache
// around it.
func BenchmarkCacheMiss(b *testing.B) {
	keys := cacheKeys(1 << 14)
	for _, c := range contexts(b) {
		run := func(impl string, get func(key string)) {
			b.Run("ctx="+c.name+"/impl="+impl, func(b *testing.B) {
				b.ReportAllocs()
				var next atomic.Int64
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						get(keys[next.Add(1)&(1<<14-1)])
					}
				})
			})
		}
		cache := newCache(b, stringOptions{Capacity: 1024, TTL: time.Hour}, one)
		run("evenkeel", func(key string) { _, _ = cache.Get(c.ctx, key) })
		var g coalesce.Group[string, int]
		run("floor", func(key string) { _, _ = g.Do(c.ctx, key, work) })
	}
}

// BenchmarkCacheRefresh loads what is there already.
func BenchmarkCacheRefresh(b *testing.B) {
	for _, c := range contexts(b) {
		b.Run("ctx="+c.name+"/impl=evenkeel", func(b *testing.B) {
			b.ReportAllocs()
			cache := newCache(b, stringOptions{Capacity: 1024, TTL: time.Hour}, one)
			cache.Set("key", 1)
			for b.Loop() {
				_, _ = cache.Refresh(c.ctx, "key")
			}
		})
		b.Run("ctx="+c.name+"/impl=floor", func(b *testing.B) {
			b.ReportAllocs()
			var g coalesce.Group[string, int]
			for b.Loop() {
				_, _ = g.Do(c.ctx, "key", work)
			}
		})
	}
}

// BenchmarkCacheGetAll reads a hundred keys, all of which are there or none.
func BenchmarkCacheGetAll(b *testing.B) {
	keys := cacheKeys(100)
	rows := map[string]int{}
	for i, key := range keys {
		rows[key] = i
	}
	batcher := &coalesce.Batcher[string, int]{Fetch: func(context.Context, []string) (map[string]int, error) { return rows, nil }}
	c, err := coalesce.NewBatchCache(batcher, stringOptions{Capacity: 1024, TTL: time.Hour})
	require.NoError(b, err)
	for _, state := range []string{"hit", "miss"} {
		b.Run("state="+state, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if state == "miss" {
					c.Clear()
				}
				for _, r := range c.GetAll(context.Background(), keys) {
					if r.Err != nil {
						b.Fatal(r.Err)
					}
				}
			}
		})
	}
}

// BenchmarkCacheHitRatio says how good the choice of what to evict is: the share
// of requests that miss, for a Zipf trace over ten times as many keys as fit,
// with and without a scan in between.
func BenchmarkCacheHitRatio(b *testing.B) {
	const capacity = 1000
	type policy interface{ request(key int) bool }
	for _, trace := range []string{"zipf", "zipf-and-scan"} {
		for _, impl := range []string{"evenkeel", "lru"} {
			b.Run("trace="+trace+"/impl="+impl, func(b *testing.B) {
				var p policy = &lru{capacity: capacity}
				if impl == "evenkeel" {
					p = newCountedCache(b, capacity)
				}
				r := rand.New(rand.NewPCG(1, 2))
				zipf := rand.NewZipf(r, 1.05, 1, 10*capacity-1)
				scan, misses, requests := 1_000_000, 0, 0
				for b.Loop() {
					for i := range 1000 {
						key := int(zipf.Uint64())
						if i%3 == 0 && trace == "zipf-and-scan" {
							key, scan = scan, scan+1
						}
						if requests++; !p.request(key) {
							misses++
						}
					}
				}
				b.ReportMetric(100*float64(misses)/float64(requests), "missed%")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(requests), "ns/request")
			})
		}
	}
}
