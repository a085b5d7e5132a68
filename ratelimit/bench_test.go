package ratelimit_test

import (
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// plenty is a limit that no benchmark reaches.
var plenty = ratelimit.Per(1_000_000_000, time.Second).Burst(1 << 40)

// scarce is a limit that every benchmark has used up.
var scarce = ratelimit.Per(1, 24*time.Hour)

func newLimiter(tb testing.TB, limit ratelimit.Limit) *ratelimit.Limiter {
	tb.Helper()
	l, err := ratelimit.NewLimiter(limit)
	require.NoError(tb, err)
	return l
}

func newKeyed[K comparable](tb testing.TB, limit ratelimit.Limit, capacity int) *ratelimit.Keyed[K] {
	tb.Helper()
	k, err := ratelimit.NewKeyed[K](limit, ratelimit.KeyedOptions{Capacity: capacity})
	require.NoError(tb, err)
	return k
}

// floor is what any limiter on the real clock pays: one reading of the monotonic
// clock and one compare-and-swap.
type floor struct {
	epoch time.Time
	word  atomic.Int64
}

func (f *floor) allow() bool {
	now := int64(time.Since(f.epoch))
	for {
		old := f.word.Load()
		if f.word.CompareAndSwap(old, max(old, now)+1) {
			return true
		}
	}
}

func BenchmarkAllow(b *testing.B) {
	f := &floor{epoch: time.Now()}
	admit := newLimiter(b, plenty)
	refuse := newLimiter(b, scarce)
	refuse.Allow()
	for _, bm := range []struct {
		name string
		op   func() bool
	}{
		{"op=floor", f.allow},
		{"op=admit", admit.Allow},
		{"op=refuse", refuse.Allow},
		{"op=take", func() bool { return admit.Take(1).Allowed }},
		{"op=reserve", func() bool { _, err := admit.Reserve(1, 0); return err == nil }},
		{"op=wait", func() bool { return admit.Wait(b.Context(), 1) == nil }},
	} {
		b.Run(bm.name+"/contended=no", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bm.op()
			}
		})
		b.Run(bm.name+"/contended=yes", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					bm.op()
				}
			})
		})
	}
}

func BenchmarkTakeAt(b *testing.B) {
	start := time.Now()
	b.Run("op=floor", func(b *testing.B) {
		var word atomic.Int64
		b.ReportAllocs()
		for i := int64(0); b.Loop(); i++ {
			word.CompareAndSwap(i, i+1)
		}
	})
	admit, refuse := newLimiter(b, plenty), newLimiter(b, scarce)
	b.Run("op=admit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			admit.TakeAt(start, 1)
		}
	})
	b.Run("op=refuse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			refuse.TakeAt(start, 1)
		}
	})
}

func BenchmarkKeyed(b *testing.B) {
	keys := make([]string, 1<<20)
	for i := range keys {
		keys[i] = "user:" + strconv.Itoa(i)
	}
	// The floor of many keys is one look-up in a map of as many.
	floors := map[string]int64{}
	for _, key := range keys {
		floors[key] = 1
	}
	epoch := time.Now()
	var sink atomic.Int64
	for _, count := range []int{1, len(keys)} {
		limiter := newKeyed[string](b, plenty.Burst(1_000_000), count)
		for _, key := range keys[:count] {
			limiter.Allow(key)
		}
		for _, bm := range []struct {
			name string
			op   func(string)
		}{
			{"op=floor", func(key string) { sink.Store(floors[key] + int64(time.Since(epoch))) }},
			{"op=allow", func(key string) { limiter.Allow(key) }},
		} {
			name := bm.name + "/keys=" + strconv.Itoa(count)
			b.Run(name+"/contended=no", func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i += 7919 {
					bm.op(keys[i&(count-1)])
				}
			})
			b.Run(name+"/contended=yes", func(b *testing.B) {
				var start atomic.Int64
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for i := int(start.Add(104729)); pb.Next(); i += 7919 {
						bm.op(keys[i&(count-1)])
					}
				})
			})
		}
	}
}

func BenchmarkAll(b *testing.B) {
	site := newLimiter(b, plenty)
	tenants, users := newKeyed[string](b, plenty.Burst(1e6), 1000), newKeyed[string](b, plenty.Burst(1e6), 1000)
	scarce := newLimiter(b, scarce)
	scarce.Allow()
	for _, bm := range []struct {
		name string
		op   func() bool
	}{
		{"op=floor", func() bool { return users.Allow("ann") && tenants.Allow("acme") && site.Allow() }}, // charges one by one
		{"op=admit", func() bool {
			return ratelimit.All(users.Want("ann", 1), tenants.Want("acme", 1), site.Want(1)).Allowed
		}},
		{"op=refuse", func() bool {
			return ratelimit.All(users.Want("ann", 1), tenants.Want("acme", 1), scarce.Want(1)).Allowed
		}},
	} {
		b.Run(bm.name+"/contended=no", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bm.op()
			}
		})
		b.Run(bm.name+"/contended=yes", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					bm.op()
				}
			})
		})
	}
}
