package coalesce_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// Rows: evenkeel is this package; xsync is golang.org/x/sync/singleflight, whose
// Do cannot obey a context, and xsync-chan the idiom that can (DoChan and
// select); floor is the same work with no library around it: a sharded mutex,
// one allocation of the flight's size and, where callers may leave, a goroutine
// and a channel.

func work(context.Context) (int, error) { return 1, nil }

func workAny() (any, error) { return nil, nil }

func keys() []string {
	ks := make([]string, 1024)
	for i := range ks {
		ks[i] = fmt.Sprintf("channel/%d/messages/latest", i)
	}
	return ks
}

// A flightFloor is as large as a flight with a string for a key.
type flightFloor [96]byte

var sink atomic.Pointer[flightFloor]

type mutexFloor struct {
	mu sync.Mutex
	m  map[string]*flightFloor
	_  [48]byte
}

func newFloor() []mutexFloor {
	shards := make([]mutexFloor, 64)
	for i := range shards {
		shards[i].m = map[string]*flightFloor{}
	}
	return shards
}

func (f *mutexFloor) flight(key string, run func()) {
	f.mu.Lock()
	if f.m[key] == nil {
		f.m[key] = new(flightFloor)
	}
	f.mu.Unlock()
	run()
	f.mu.Lock()
	delete(f.m, key)
	f.mu.Unlock()
}

// BenchmarkDistinct measures callers that have nothing to share: what a Group
// costs when it does not help.
func BenchmarkDistinct(b *testing.B) {
	cancellable, cancel := context.WithCancel(context.Background())
	defer cancel()
	ks := keys()
	for name, ctx := range map[string]context.Context{"background": context.Background(), "cancellable": cancellable} {
		run := func(impl string, call func(i int)) {
			b.Run("ctx="+name+"/impl="+impl, func(b *testing.B) {
				b.ReportAllocs()
				var next atomic.Int64
				b.RunParallel(func(pb *testing.PB) {
					i := int(next.Add(331))
					for pb.Next() {
						call(i & 1023)
						i++
					}
				})
			})
		}
		var g coalesce.Group[string, int]
		run("evenkeel", func(i int) { _, _ = g.Do(ctx, ks[i], work) })
		var x singleflight.Group
		run("xsync", func(i int) { _, _, _ = x.Do(ks[i], workAny) })
		run("xsync-chan", func(i int) {
			select {
			case <-x.DoChan(ks[i], workAny):
			case <-ctx.Done():
			}
		})
		shards := newFloor()
		if ctx.Done() == nil {
			run("floor", func(i int) { shards[i&63].flight(ks[i], func() {}) })
			continue
		}
		run("floor", func(i int) {
			shards[i&63].flight(ks[i], func() {
				ch := make(chan int, 1)
				go func() { ch <- 1 }()
				select {
				case <-ch:
				case <-ctx.Done():
				}
			})
		})
	}
}

// BenchmarkHot measures callers that all ask for one key, whose work takes 20
// microseconds: nearly every call joins.
func BenchmarkHot(b *testing.B) {
	cancellable, cancel := context.WithCancel(context.Background())
	defer cancel()
	var executions atomic.Int64
	spin := func() {
		executions.Add(1)
		for begin := time.Now(); time.Since(begin) < 20*time.Microsecond; {
		}
	}
	for name, ctx := range map[string]context.Context{"background": context.Background(), "cancellable": cancellable} {
		run := func(impl string, call func()) {
			b.Run("ctx="+name+"/impl="+impl, func(b *testing.B) {
				b.ReportAllocs()
				b.SetParallelism(256)
				executions.Store(0)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						call()
					}
				})
				if n := executions.Load(); n > 0 {
					b.ReportMetric(float64(b.N)/float64(n), "calls/execution")
				}
			})
		}
		var g coalesce.Group[string, int]
		run("evenkeel", func() {
			_, _ = g.Do(ctx, "hot", func(context.Context) (int, error) { spin(); return 1, nil })
		})
		var x singleflight.Group
		run("xsync", func() { _, _, _ = x.Do("hot", func() (any, error) { spin(); return nil, nil }) })
		run("xsync-chan", func() {
			select {
			case <-x.DoChan("hot", func() (any, error) { spin(); return nil, nil }):
			case <-ctx.Done():
			}
		})
		var floor sync.Mutex
		var joined int
		run("floor", func() {
			floor.Lock()
			joined++
			floor.Unlock()
		})
	}
}
