package peerbugs_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"
)

const right = "right"

// A probe looks at one behaviour in a synctest bubble of a process of its own, and
// returns a verdict in a few words.
type probe[T any] struct {
	behaviour string
	run       func(T) string
}

var flightProbes = []probe[flight]{
	{"whoever asks after a result was received gets a later one", laterCallersGetLaterResults},
	{"the leader's cancellation spares the others", leaderIsCancelled},
	{"each caller returns at its own deadline", ownDeadline},
	{"the work has no caller's deadline", workDeadline},
	{"work that nobody waits for is cancelled", abandonedWork},
	{"deaf work does not pile up behind callers that gave up", overlap},
	{"a panic reaches the others, with its stack", func(f flight) string { return others(f, func() { panic("boom") }, true) }},
	{"panic(nil) reaches the others", func(f flight) string { return others(f, func() { panic(nil) }, false) }},
	{"runtime.Goexit reaches the others", func(f flight) string { return others(f, runtime.Goexit, false) }},
	{"work that asks for its own key gets an error", reentrant},
}

// join makes a call that waits, and returns where its result will be.
func join(f flight, ctx context.Context, fn work) <-chan result {
	out := make(chan result, 1)
	go func() {
		r := result{err: errGone} // unless it returns or panics
		defer func() {
			if p := recover(); p != nil {
				r = result{panicked: p}
			}
			out <- r
		}()
		r.val, r.err = f(ctx, "k", fn)
	}()
	synctest.Wait()
	return out
}

type result struct {
	val      int
	err      error
	panicked any
}

var errGone = errors.New("the goroutine ended")

// obedient is work that takes a second, and ends before if its context does.
func obedient(ctx context.Context) (int, error) {
	select {
	case <-time.After(time.Second):
		return 42, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func deaf(context.Context) (int, error) {
	time.Sleep(time.Second)
	return 42, nil
}

func laterCallersGetLaterResults(f flight) string {
	one, _ := f(context.Background(), "probe", func(context.Context) (int, error) { return 1, nil })
	if again, _ := f(context.Background(), "probe", func(context.Context) (int, error) { return 2, nil }); again == one {
		return "(a cache)"
	}
	if stale(f, 200, 500) > 0 {
		return "gets an old one"
	}
	return right
}

// stale counts the calls for one key that received a result which somebody had
// received before the call began. The work returns the number of its execution.
func stale(f flight, callers, calls int) int64 {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var executions, received, count atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range calls {
				before := received.Load()
				v, _ := f(ctx, "hot", func(context.Context) (int, error) {
					n := executions.Add(1)
					for range 20 {
						runtime.Gosched()
					}
					return int(n), nil
				})
				if int64(v) <= before {
					count.Add(1)
				}
				for old := received.Load(); int64(v) > old && !received.CompareAndSwap(old, int64(v)); old = received.Load() {
				}
			}
		})
	}
	all.Wait()
	return count.Load()
}

func leaderIsCancelled(f flight) string {
	ctx, cancel := context.WithCancel(context.Background())
	_ = join(f, ctx, obedient)
	follower := join(f, context.Background(), obedient)
	cancel()
	r := <-follower
	switch {
	case errors.Is(r.err, context.Canceled):
		return "they are cancelled"
	case r.val == 42 && r.err == nil:
		return right
	}
	return fmt.Sprint(r)
}

func ownDeadline(f flight) string {
	_ = join(f, context.Background(), deaf)
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	begin := time.Now()
	<-join(f, ctx, deaf)
	if time.Since(begin) > time.Millisecond {
		return "waits on"
	}
	return right
}

func workDeadline(f flight) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	verdict := right
	<-join(f, ctx, func(ctx context.Context) (int, error) {
		if _, ok := ctx.Deadline(); ok {
			verdict = "the leader's"
		}
		return 0, nil
	})
	return verdict
}

func abandonedWork(f flight) string {
	// With a detached context: to cancel the leader's is not what is asked for.
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	a := join(f, ctx, func(ctx context.Context) (int, error) {
		select {
		case <-ctx.Done():
			ended <- ctx.Err()
		case <-time.After(time.Minute):
			ended <- nil
		}
		return 0, nil
	})
	cancel()
	<-a
	if <-ended == nil {
		return "runs on"
	}
	return right
}

func overlap(f flight) string {
	var running, most atomic.Int64
	for range 5 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		r := join(f, ctx, func(context.Context) (int, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			return deaf(context.Background())
		})
		<-r
		cancel()
	}
	if n := most.Load(); n > 1 {
		return fmt.Sprintf("%d at once", n)
	}
	return right
}

// others tells what a caller that has joined receives when the work ends like that.
func others(f flight, end func(), stack bool) string {
	finish := make(chan struct{})
	fn := func(context.Context) (int, error) { <-finish; end(); return 7, nil }
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_ = join(f, ctx, fn)
	follower := join(f, ctx, fn)
	close(finish)
	r := <-follower
	switch {
	case r.err == nil && r.panicked == nil:
		return fmt.Sprintf("(%d, nil)", r.val)
	case stack && !strings.Contains(fmt.Sprint(r.err, r.panicked), "probes_test.go"):
		return "without the stack"
	}
	return right
}

func reentrant(f flight) string {
	_, err := f(context.Background(), "k", func(ctx context.Context) (int, error) {
		return f(ctx, "k", func(context.Context) (int, error) { return 1, nil })
	})
	if err != nil {
		return right
	}
	return "no error"
}

var loaderProbes = []probe[func(fetch) loader]{
	{"a lone load waits for nobody", loneLoad},
	{"a key that is asked for twice is fetched once", duplicates},
	{"the first caller's cancellation spares the others of the batch", firstIsCancelled},
	{"each caller of a batch returns at its own deadline", loadDeadline},
	{"a cancelled load is not remembered", cancelledIsForgotten},
	{"a panic of the fetch reaches all", func(l func(fetch) loader) string { return fetchEnds(l, func() { panic("boom") }) }},
	{"runtime.Goexit in the fetch reaches all", func(l func(fetch) loader) string { return fetchEnds(l, runtime.Goexit) }},
}

func slowFetch(ctx context.Context, keys []int) (map[int]int, error) {
	m := map[int]int{}
	for _, k := range keys {
		m[k] = 10 * k
	}
	select {
	case <-time.After(time.Second):
		return m, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func load(l loader, ctx context.Context, key int) <-chan result {
	return join(func(ctx context.Context, _ string, _ work) (int, error) { return l(ctx, key) }, ctx, nil)
}

func loneLoad(l func(fetch) loader) string {
	begin := time.Now()
	_, _ = l(func(context.Context, []int) (map[int]int, error) { return map[int]int{1: 10}, nil })(context.Background(), 1)
	if d := time.Since(begin); d > 0 {
		return fmt.Sprint("waits ", d)
	}
	return right
}

func duplicates(l func(fetch) loader) string {
	twice := false
	load1 := l(func(ctx context.Context, keys []int) (map[int]int, error) {
		slices.Sort(keys)
		twice = twice || len(slices.Compact(slices.Clone(keys))) < len(keys)
		return slowFetch(ctx, keys)
	})
	a, b, c := load(load1, context.Background(), 1), load(load1, context.Background(), 2), load(load1, context.Background(), 2)
	<-a
	<-b
	<-c
	if twice {
		return "twice"
	}
	return right
}

func firstIsCancelled(l func(fetch) loader) string {
	load1 := l(slowFetch)
	_ = load(load1, context.Background(), 0)
	time.Sleep(900 * time.Millisecond) // so that the others come while a fetch runs
	ctx, cancel := context.WithCancel(context.Background())
	_ = load(load1, ctx, 1)
	other := load(load1, context.Background(), 2)
	time.Sleep(600 * time.Millisecond) // theirs runs
	cancel()
	if r := <-other; r.err != nil {
		return "they are cancelled"
	}
	return right
}

func loadDeadline(l func(fetch) loader) string {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	load1 := l(func(_ context.Context, keys []int) (map[int]int, error) { return slowFetch(context.Background(), keys) })
	begin := time.Now()
	<-load(load1, ctx, 1)
	if time.Since(begin) > 100*time.Millisecond {
		return "waits on"
	}
	return right
}

func cancelledIsForgotten(l func(fetch) loader) string {
	load1 := l(slowFetch)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	<-load(load1, ctx, 1)
	if r := <-load(load1, context.Background(), 1); r.err != nil {
		return "for ever"
	}
	return right
}

func fetchEnds(l func(fetch) loader, end func()) string {
	load1 := l(func(context.Context, []int) (map[int]int, error) { end(); return nil, nil })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := <-load(load1, ctx, 1)
	if r.err == nil && r.panicked == nil {
		return fmt.Sprintf("(%d, nil)", r.val)
	}
	return right
}
