package coalesce_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

func BenchmarkCacheHit(b *testing.B) {
	keys := make([]string, 1024)
	for i := range keys {
		keys[i] = fmt.Sprintf("channel/%d/messages/latest", i)
	}
	ctx := context.Background()
	run := func(impl string, get func(key string) int) {
		for name, mask := range map[string]int{"hot": 0, "spread": 1023} {
			b.Run("keys="+name+"/impl="+impl, func(b *testing.B) {
				b.ReportAllocs()
				var start atomic.Int64
				b.RunParallel(func(pb *testing.PB) {
					for i := int(start.Add(331)); pb.Next(); i++ {
						if get(keys[i&mask]) != 1 {
							b.Error("not there")
						}
					}
				})
			})
		}
	}
	for name, o := range map[string]coalesce.CacheOptions[string, int]{
		"evenkeel":     {Capacity: 4096},
		"evenkeel-ttl": {Capacity: 4096, TTL: time.Hour},
		"evenkeel-all": {Capacity: 4096, TTL: time.Hour, Stale: time.Hour, StaleIfError: time.Hour, Jitter: 0.1, Beta: 1},
	} {
		c, err := coalesce.NewCache(func(context.Context, string) (int, error) { return 1, nil }, o)
		require.NoError(b, err)
		for _, key := range keys {
			c.Set(key, 1)
		}
		run(name, func(key string) int { v, _ := c.Get(ctx, key); return v })
	}
	m := map[string]*int{}
	for _, key := range keys {
		m[key] = new(int)
		*m[key] = 1
	}
	epoch := time.Now()
	run("floor", func(key string) int {
		if time.Since(epoch) < 0 {
			return 0
		}
		return *m[key]
	})
}
