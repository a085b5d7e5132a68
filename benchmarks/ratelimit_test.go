package benchmarks

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/stretchr/testify/require"
	"go.uber.org/ratelimit"
	"golang.org/x/time/rate"

	"github.com/evenkeel-go/evenkeel/benchmarks/ratio"
	ours "github.com/evenkeel-go/evenkeel/ratelimit"
)

const perSecond = 500_000_000 // so that everything is admitted, and nothing waits

func allow(t testing.TB) ratio.Op {
	l, err := ours.NewLimiter(ours.Per(perSecond, time.Second))
	require.NoError(t, err)
	return func(n int) {
		for range n {
			l.Allow()
		}
	}
}

func xtimeAllow() ratio.Op {
	l := rate.NewLimiter(perSecond, perSecond)
	return func(n int) {
		for range n {
			l.Allow()
		}
	}
}

func uberTake() ratio.Op {
	l := ratelimit.New(perSecond)
	return func(n int) {
		for range n {
			l.Take()
		}
	}
}

// clock is the floor: a look at the monotonic clock.
func clock() ratio.Op {
	epoch := time.Now()
	return func(n int) {
		for range n {
			sink += uint64(time.Since(epoch))
		}
	}
}

func keyedAllow(t testing.TB, keys []string) ratio.Op {
	l, err := ours.NewKeyed[string](ours.Per(1_000_000, time.Second), ours.KeyedOptions{Capacity: 4 * len(keys)})
	require.NoError(t, err)
	return func(n int) {
		for i := range n {
			l.Allow(keys[i%len(keys)])
		}
	}
}

func sethvargoTake(t testing.TB, keys []string) ratio.Op {
	s, err := memorystore.New(&memorystore.Config{Tokens: 1_000_000, Interval: time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return func(n int) {
		for i := range n {
			if _, _, _, _, err := s.Take(context.Background(), keys[i%len(keys)]); err != nil {
				panic(err)
			}
		}
	}
}

func BenchmarkRateLimitAllow(b *testing.B) {
	for name, op := range map[string]ratio.Op{"floor": clock(), "evenkeel": allow(b), "xtime": xtimeAllow(), "uber": uberTake()} {
		b.Run(fmt.Sprintf("impl=%s", name), run(op))
	}
}

func BenchmarkRateLimitKeyed(b *testing.B) {
	for _, n := range []int{1, 4096} {
		for name, op := range map[string]ratio.Op{"floor": clock(), "evenkeel": keyedAllow(b, keys[:n]), "sethvargo": sethvargoTake(b, keys[:n])} {
			b.Run(fmt.Sprintf("impl=%s/keys=%d", name, n), run(op))
		}
	}
}

// clockAndSwap is the floor of a decision on the real clock: one reading of the monotonic
// clock and one compare-and-swap of a word that several goroutines may share.
func clockAndSwap() ratio.Op {
	epoch := time.Now()
	var word atomic.Int64
	return func(n int) {
		for range n {
			now := int64(time.Since(epoch))
			for old := word.Load(); !word.CompareAndSwap(old, max(old, now)+1); old = word.Load() {
			}
		}
	}
}

// swap is the floor of a decision at a given time: one compare-and-swap.
func swap() ratio.Op {
	var word atomic.Int64
	return func(n int) {
		for range n {
			old := word.Load()
			word.CompareAndSwap(old, old+1)
		}
	}
}

func takeAt(t testing.TB) ratio.Op {
	l := limiterOf(t, ours.Per(perSecond, time.Second).Burst(1<<50))
	now := time.Now()
	return func(n int) {
		for range n {
			l.TakeAt(now, 1)
		}
	}
}

// both runs an operation on two goroutines, so that they contend. It is compared to another
// of its kind only.
func both(op ratio.Op) ratio.Op {
	return func(n int) {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { op(n) })
		}
		wg.Wait()
	}
}

// onOne runs a measurement with one processor.
func onOne(measure func()) {
	before := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(before)
	measure()
}

// The slices of operations that start goroutines are long against their start.
const contendedSlice, contendedPairs = 4 * time.Millisecond, 101

func TestRatioRateLimit(t *testing.T) {
	t.Run("allow against clock and swap, one processor", func(t *testing.T) {
		onOne(func() { ratio.AtMost(t, 1.4, allow(t), clockAndSwap()) })
	})
	t.Run("allow against clock and swap, contended", func(t *testing.T) {
		ratio.AtMostSlices(t, 1.6, both(allow(t)), both(clockAndSwap()), contendedSlice, contendedPairs)
	})
	t.Run("take at a time against a swap", func(t *testing.T) { ratio.AtMost(t, 15, takeAt(t), swap()) })
	t.Run("allow against x/time", func(t *testing.T) { ratio.AtMost(t, 0.8, allow(t), xtimeAllow()) })
	t.Run("allow against x/time, contended", func(t *testing.T) {
		ratio.AtMostSlices(t, 0.9, both(allow(t)), both(xtimeAllow()), contendedSlice, contendedPairs)
	})
	t.Run("allow against uber", func(t *testing.T) { ratio.AtMost(t, 1.1, allow(t), uberTake()) })
}

func TestRatioRateLimitKeyed(t *testing.T) {
	t.Run("one hot key against go-limiter", func(t *testing.T) {
		ratio.AtMost(t, 1.2, keyedAllow(t, keys[:1]), sethvargoTake(t, keys[:1]))
	})
	many := make([]string, 1<<20)
	for i := range many {
		many[i] = "user:" + strconv.Itoa(i)
	}
	t.Run("a million keys in stride against go-limiter", func(t *testing.T) {
		mine, theirs := strided(keyedAt(t, many)), strided(sethvargoAt(t, many))
		ratio.AtMostSlices(t, 1, mine, theirs, 2*time.Millisecond, 201)
	})
	t.Run("memory and the garbage collector", func(t *testing.T) { keyedMemory(t, many) })
}

// strided asks for key after key, far apart.
func strided(ask func(i int)) ratio.Op {
	at := 0
	return func(n int) {
		for range n {
			at = (at + 7919) & (1<<20 - 1)
			ask(at)
		}
	}
}

func keyedAt(t testing.TB, keys []string) func(i int) {
	l := keyedOf(t, ours.Per(1_000_000, time.Second), len(keys))
	for _, key := range keys {
		l.Allow(key)
	}
	return func(i int) { l.Allow(keys[i]) }
}

func sethvargoAt(t testing.TB, keys []string) func(i int) {
	s, err := memorystore.New(&memorystore.Config{Tokens: 1_000_000, Interval: time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	ask := func(i int) {
		if _, _, _, _, err := s.Take(context.Background(), keys[i]); err != nil {
			panic(err)
		}
	}
	for i := range keys {
		ask(i)
	}
	return ask
}

// keyedMemory counts the bytes of a million keys that are all in debt, and compares a whole
// collection with them to one without.
func keyedMemory(t *testing.T, keys []string) {
	live := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := live()
	l := keyedOf(t, ours.Per(1, time.Hour), len(keys))
	for _, key := range keys {
		l.Allow(key)
	}
	each := float64(live()-before) / float64(len(keys))
	collect := func(n int) {
		for range n {
			runtime.GC()
		}
	}
	with := ratio.MeasureSlices(collect, func(int) {}, time.Millisecond, 11).A
	st := l.Stats()
	runtime.KeepAlive(l)
	l = nil
	without := ratio.MeasureSlices(collect, func(int) {}, time.Millisecond, 11).A
	t.Logf("%.1f bytes a key, %d of %d in debt have a slot; a collection with them %v, without %v", each, st.Live, len(keys), with, without)
	require.Less(t, each, 40.0)
}
