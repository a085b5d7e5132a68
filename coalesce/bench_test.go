package coalesce_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// Rows: evenkeel is this package. xsync is golang.org/x/sync/singleflight, whose
// Do cannot obey a context, and xsync-chan is the idiom that can: DoChan and a
// select. floor is the same work by hand with no library around it: no hashing
// of the shard, no panics, no contexts for the work, no statistics.

func work(context.Context) (int, error) { return 1, nil }

func workAny() (any, error) { return 1, nil }

// contexts are the two kinds of caller: one that can never leave, whose work
// runs inline, and one that can, whose work needs a goroutine.
func contexts(b *testing.B) []struct {
	name string
	ctx  context.Context
} {
	cancellable, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	return []struct {
		name string
		ctx  context.Context
	}{{"background", context.Background()}, {"cancellable", cancellable}}
}

// A flightFloor is as large as a flight with a string for a key.
type flightFloor [96]byte

type shardFloor struct {
	mu sync.Mutex
	m  map[string]*flightFloor
	_  [48]byte
}

func (s *shardFloor) do(key string, run func()) {
	s.mu.Lock()
	if s.m[key] == nil {
		s.m[key] = new(flightFloor)
	}
	s.mu.Unlock()
	run()
	s.mu.Lock()
	delete(s.m, key)
	s.mu.Unlock()
}

// BenchmarkDistinct has callers with nothing to share: what a Group costs when
// it does not help.
func BenchmarkDistinct(b *testing.B) {
	keys := make([]string, 1024)
	for i := range keys {
		keys[i] = fmt.Sprintf("channel/%d/messages/latest", i)
	}
	for _, c := range contexts(b) {
		run := func(impl string, call func(i int)) {
			b.Run("ctx="+c.name+"/impl="+impl, func(b *testing.B) {
				b.ReportAllocs()
				var start atomic.Int64
				b.RunParallel(func(pb *testing.PB) {
					for i := int(start.Add(331)); pb.Next(); i++ {
						call(i & 1023)
					}
				})
			})
		}
		var g coalesce.Group[string, int]
		run("evenkeel", func(i int) { _, _ = g.Do(c.ctx, keys[i], work) })
		var x singleflight.Group
		run("xsync", func(i int) { _, _, _ = x.Do(keys[i], workAny) })
		run("xsync-chan", func(i int) {
			select {
			case <-x.DoChan(keys[i], workAny):
			case <-c.ctx.Done():
			}
		})
		shards := make([]shardFloor, 64)
		for i := range shards {
			shards[i].m = map[string]*flightFloor{}
		}
		inner := func() {}
		if c.ctx.Done() != nil {
			inner = func() {
				ch := make(chan int, 1)
				go func() { ch <- 1 }()
				select {
				case <-ch:
				case <-c.ctx.Done():
				}
			}
		}
		run("floor", func(i int) { shards[i&63].do(keys[i], inner) })
	}
}

// A hotFloor coalesces one key.
type hotFloor struct {
	mu      sync.Mutex
	running bool
	waiting []chan struct{}
}

func (f *hotFloor) do(ctx context.Context, mine chan struct{}, run func()) {
	f.mu.Lock()
	if f.running {
		f.waiting = append(f.waiting, mine)
		f.mu.Unlock()
		if ctx.Done() == nil {
			<-mine
			return
		}
		select {
		case <-mine:
		case <-ctx.Done():
		}
		return
	}
	f.running = true
	f.mu.Unlock()
	run()
	f.mu.Lock()
	f.running = false
	for _, ch := range f.waiting {
		ch <- struct{}{}
	}
	f.waiting = f.waiting[:0]
	f.mu.Unlock()
}

// BenchmarkHot has 256 goroutines a processor that all ask for one key. The work
// takes 20 microseconds and leaves the processor to the others meanwhile, as a
// query does: nearly every call joins. calls/execution tells how many share.
func BenchmarkHot(b *testing.B) {
	var executions atomic.Int64
	query := func() {
		executions.Add(1)
		for begin := time.Now(); time.Since(begin) < 20*time.Microsecond; {
			runtime.Gosched()
		}
	}
	for _, c := range contexts(b) {
		run := func(impl string, caller func() (call func())) {
			b.Run("ctx="+c.name+"/impl="+impl, func(b *testing.B) {
				b.ReportAllocs()
				b.SetParallelism(256)
				executions.Store(0)
				b.RunParallel(func(pb *testing.PB) {
					for call := caller(); pb.Next(); {
						call()
					}
				})
				b.ReportMetric(float64(b.N)/float64(executions.Load()), "calls/execution")
			})
		}
		var g coalesce.Group[string, int]
		fn := func(context.Context) (int, error) { query(); return 1, nil }
		run("evenkeel", func() func() { return func() { _, _ = g.Do(c.ctx, "hot", fn) } })
		var x singleflight.Group
		fx := func() (any, error) { query(); return 1, nil }
		run("xsync", func() func() { return func() { _, _, _ = x.Do("hot", fx) } })
		run("xsync-chan", func() func() {
			return func() {
				select {
				case <-x.DoChan("hot", fx):
				case <-c.ctx.Done():
				}
			}
		})
		var floor hotFloor
		run("floor", func() func() {
			mine := make(chan struct{}, 1)
			return func() { floor.do(c.ctx, mine, query) }
		})
	}
}

// BenchmarkContext has work that asks its context for Done, as most clients of
// databases do, and thereby makes it real.
func BenchmarkContext(b *testing.B) {
	for _, c := range contexts(b) {
		b.Run("ctx="+c.name+"/impl=evenkeel", func(b *testing.B) {
			b.ReportAllocs()
			var g coalesce.Group[string, int]
			fn := func(ctx context.Context) (int, error) { _ = ctx.Done(); return 1, nil }
			for b.Loop() {
				_, _ = g.Do(c.ctx, "k", fn)
			}
		})
		b.Run("ctx="+c.name+"/impl=floor", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ctx, cancel := context.WithCancel(context.WithoutCancel(c.ctx))
				_ = ctx.Done()
				cancel()
			}
		})
	}
}
