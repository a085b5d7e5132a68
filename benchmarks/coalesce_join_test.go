package benchmarks

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xsync "golang.org/x/sync/singleflight"

	"github.com/evenkeel-go/evenkeel/benchmarks/ratio"
	"github.com/evenkeel-go/evenkeel/coalesce"
)

// Joining a hot key: callers with a context each meet in one flight again and again.
// The work yields until all of them are inside, so that there is nothing to wait for
// but the library.

const crowd = 256

// doer calls for the one key with the caller's context.
type doer func(ctx context.Context, work func(context.Context) (int, error))

// meet returns an operation that is a round: a call of each caller.
func meet(cancellable bool, do doer) ratio.Op {
	return func(rounds int) {
		var inside, over atomic.Int64
		work := func(context.Context) (int, error) {
			for inside.Load()+over.Load() < crowd {
				runtime.Gosched()
			}
			runtime.Gosched()
			return 42, nil
		}
		var all sync.WaitGroup
		for range crowd {
			all.Go(func() {
				defer over.Add(1)
				ctx := context.Background()
				if cancellable {
					var cancel context.CancelFunc
					ctx, cancel = context.WithCancel(ctx)
					defer cancel()
				}
				for range rounds {
					inside.Add(1)
					do(ctx, work)
					inside.Add(-1)
				}
			})
		}
		all.Wait()
	}
}

func joinCoalesce() doer {
	var g coalesce.Group[string, int]
	return func(ctx context.Context, work func(context.Context) (int, error)) {
		if _, err := g.Do(ctx, keys[0], work); err != nil {
			panic(err)
		}
	}
}

func joinDo() doer {
	var g xsync.Group
	return func(ctx context.Context, work func(context.Context) (int, error)) {
		if _, err, _ := g.Do(keys[0], func() (any, error) { return work(ctx) }); err != nil {
			panic(err)
		}
	}
}

func joinDoChan() doer {
	var g xsync.Group
	return func(ctx context.Context, work func(context.Context) (int, error)) {
		select {
		case <-g.DoChan(keys[0], func() (any, error) { return work(ctx) }):
		case <-ctx.Done():
			panic(ctx.Err())
		}
	}
}

// joinFloor is a lock, a channel that is closed for all, and the select that obeys
// the context.
func joinFloor() doer {
	var mu sync.Mutex
	var done chan struct{}
	return func(ctx context.Context, work func(context.Context) (int, error)) {
		mu.Lock()
		mine := done
		if mine == nil {
			mine = make(chan struct{})
			done = mine
			go func() {
				_, _ = work(ctx)
				mu.Lock()
				done = nil
				mu.Unlock()
				close(mine)
			}()
		}
		mu.Unlock()
		select {
		case <-mine:
		case <-ctx.Done():
		}
	}
}

func BenchmarkJoin(b *testing.B) {
	for name, op := range map[string]ratio.Op{
		"floor/context=cancellable":        meet(true, joinFloor()),
		"evenkeel/context=background":      meet(false, joinCoalesce()),
		"evenkeel/context=cancellable":     meet(true, joinCoalesce()),
		"xsync-do/context=ignored":         meet(true, joinDo()),
		"xsync-dochan/context=cancellable": meet(true, joinDoChan()),
	} {
		b.Run(fmt.Sprintf("impl=%s", name), func(b *testing.B) {
			b.ReportAllocs()
			op((b.N + crowd - 1) / crowd) // so that ns/op is that of a caller
		})
	}
}

// On one processor: on more, the crowd falls apart into flights as chance will have it,
// and that is what would be measured.
func TestRatioJoin(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, c := range []struct {
		name       string
		limit      float64
		ours, peer ratio.Op
	}{
		{"cancellable against x/sync DoChan and select", 1.6, meet(true, joinCoalesce()), meet(true, joinDoChan())},
		{"cancellable against a lock, a channel and a select", 2.6, meet(true, joinCoalesce()), meet(true, joinFloor())},
		{"background against x/sync Do", 1.5, meet(false, joinCoalesce()), meet(false, joinDo())},
		{"cancellable against x/sync Do, which ignores it", 4, meet(true, joinCoalesce()), meet(true, joinDo())},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := ratio.AtMostSlices(t, c.limit, c.ours, c.peer, 5*time.Millisecond, 101)
			t.Logf("difference for each caller %v", (r.A-r.B)/crowd)
		})
	}
}
