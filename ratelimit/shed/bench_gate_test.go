package shed_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// gateFloor is what any gate with a lock pays: the lock and the counter twice and, to
// learn from latencies, two readings of the clock.
type gateFloor struct {
	mu       sync.Mutex
	epoch    time.Time
	inflight int
	latency  time.Duration
}

func (f *gateFloor) add(n int) {
	f.mu.Lock()
	f.inflight += n
	f.mu.Unlock()
}

func (f *gateFloor) op() {
	f.add(1)
	f.add(-1)
}

func (f *gateFloor) timed() {
	f.add(1)
	start := time.Since(f.epoch)
	latency := time.Since(f.epoch) - start
	f.mu.Lock()
	f.inflight--
	f.latency += latency
	f.mu.Unlock()
}

type gateBench struct {
	name string
	op   func()
}

func runGates(b *testing.B, benches []gateBench) {
	for _, bm := range benches {
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

func BenchmarkConcurrency(b *testing.B) {
	ctx := context.Background()
	free := newConcurrency(b, shed.ConcurrencyOptions{Limit: 1000})
	queue := newConcurrency(b, shed.ConcurrencyOptions{Limit: 1000, Queue: shed.Queue{Max: 100}})
	full := newConcurrency(b, shed.ConcurrencyOptions{Limit: 1})
	_, err := full.Acquire(ctx, shed.Default)
	require.NoError(b, err)
	acquire := func(c *shed.Concurrency) func() {
		return func() {
			p, _ := c.Acquire(ctx, shed.Default)
			p.Release(shed.Success)
		}
	}
	floor := new(gateFloor)
	runGates(b, []gateBench{
		{"op=floor", floor.op},
		{"op=acquire", acquire(free)},
		{"op=acquire-with-queue", acquire(queue)},
		{"op=refuse", acquire(full)},
	})
}

func BenchmarkAdaptive(b *testing.B) {
	ctx := context.Background()
	for _, algorithm := range []shed.Algorithm{shed.Gradient2, shed.Vegas} {
		a := newAdaptive(b, shed.AdaptiveOptions{Algorithm: algorithm})
		full := newAdaptive(b, shed.AdaptiveOptions{Algorithm: algorithm, Max: 1})
		_, err := full.Acquire(ctx, shed.Default)
		require.NoError(b, err)
		acquire := func(a *shed.Adaptive) func() {
			return func() {
				p, _ := a.Acquire(ctx, shed.Default)
				p.Release(shed.Success)
			}
		}
		floor := &gateFloor{epoch: time.Now()}
		b.Run("algorithm="+algorithm.String(), func(b *testing.B) {
			runGates(b, []gateBench{
				{"op=floor", floor.timed},
				{"op=acquire", acquire(a)},
				{"op=refuse", acquire(full)},
			})
		})
	}
}

func BenchmarkKeyedConcurrency(b *testing.B) {
	for _, count := range []int{1, 1 << 16} {
		keys := make([]string, count)
		floors := map[string]int{}
		for i := range keys {
			keys[i] = "user:" + strconv.Itoa(i)
			floors[keys[i]] = i
		}
		gate, err := shed.NewKeyedConcurrency[string](20)
		require.NoError(b, err)
		name := "keys=" + strconv.Itoa(count)
		b.Run("op=floor/"+name, func(b *testing.B) {
			b.ReportAllocs()
			sum := 0
			for i := 0; b.Loop(); i += 7919 {
				sum += floors[keys[i&(count-1)]]
			}
			require.GreaterOrEqual(b, sum, 0)
		})
		b.Run("op=acquire/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i += 7919 {
				p, _ := gate.Acquire(keys[i&(count-1)])
				p.Release(shed.Success)
			}
		})
	}
}

func newConcurrency(tb testing.TB, o shed.ConcurrencyOptions) *shed.Concurrency {
	tb.Helper()
	c, err := shed.NewConcurrency(o)
	require.NoError(tb, err)
	return c
}

func newAdaptive(tb testing.TB, o shed.AdaptiveOptions) *shed.Adaptive {
	tb.Helper()
	a, err := shed.NewAdaptive(o)
	require.NoError(tb, err)
	return a
}
