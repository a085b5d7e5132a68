package peerbugs_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing/synctest"
	"time"
)

var loaderProbes = []probe[newLoader]{
	{"a lone load waits for nobody", loneLoad},
	{"a key that is asked for twice is fetched once", duplicates},
	{"a full batch leaves no timer behind", fullBatch},
	{"the first caller's cancellation spares the others of the batch", firstIsCancelled},
	{"each caller of a batch returns at its own deadline", loadDeadline},
	{"a key that nobody waits for any more is not fetched", cancelledKey},
	{"a cancelled load is not remembered", cancelledIsForgotten},
	{"an error is of its key alone, and what is missing has one", errorsOfKeys},
	{"a panic of the fetch reaches all, with its stack", func(l newLoader) string { return fetchEnds(l, func() { panic("boom") }) }},
	{"runtime.Goexit in the fetch reaches all", func(l newLoader) string { return fetchEnds(l, runtime.Goexit) }},
	{"a fetch that loads one of its own keys gets an error", fetchLoads},
}

func slowFetch(ctx context.Context, keys []int) (map[int]int, error) {
	select {
	case <-time.After(time.Second):
		return quickFetch(ctx, keys)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func quickFetch(_ context.Context, keys []int) (map[int]int, error) {
	m := map[int]int{}
	for _, k := range keys {
		m[k] = 10 * k
	}
	return m, nil
}

// load makes a call that waits, and returns where its result will be.
func load(l loader, ctx context.Context, key int) <-chan result {
	return join(flight{do: func(ctx context.Context, _ string, _ work) (int, error) { return l(ctx, key) }}, ctx, nil)
}

func loneLoad(l newLoader) string {
	begin := time.Now()
	receive(load(l(quickFetch, 100), context.Background(), 1))
	if d := time.Since(begin); d > 0 {
		return fmt.Sprint("waits ", d)
	}
	return right
}

func duplicates(l newLoader) string {
	var twice atomic.Bool
	one := l(func(ctx context.Context, keys []int) (map[int]int, error) {
		sorted := slices.Sorted(slices.Values(keys))
		if len(slices.Compact(sorted)) < len(keys) {
			twice.Store(true)
		}
		return slowFetch(ctx, keys)
	}, 100)
	for _, r := range []<-chan result{load(one, context.Background(), 1), load(one, context.Background(), 2), load(one, context.Background(), 2)} {
		receive(r)
	}
	if twice.Load() {
		return "twice"
	}
	return right
}

func fullBatch(l newLoader) string {
	one := l(quickFetch, 2)
	before := runtime.NumGoroutine()
	for range 10 {
		a, b := load(one, context.Background(), 1), load(one, context.Background(), 2)
		receive(a)
		receive(b)
		one = l(quickFetch, 2)
	}
	synctest.Wait()
	for range 1_000_000 { // who has ended may be counted for a moment longer
		if runtime.NumGoroutine() <= before {
			return right
		}
		runtime.Gosched()
	}
	return "a goroutine sleeps on"
}

func firstIsCancelled(l newLoader) string {
	one := l(slowFetch, 100)
	_ = load(one, context.Background(), 0)
	time.Sleep(900 * time.Millisecond) // so that the others come while a fetch runs
	ctx, cancel := context.WithCancel(context.Background())
	_ = load(one, ctx, 1)
	other := load(one, context.Background(), 2)
	time.Sleep(600 * time.Millisecond) // theirs runs
	cancel()
	if r := receive(other); r.err != nil {
		return "they are cancelled"
	}
	return right
}

func loadDeadline(l newLoader) string {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	one := l(func(_ context.Context, keys []int) (map[int]int, error) { return slowFetch(context.Background(), keys) }, 100)
	begin := time.Now()
	receive(load(one, ctx, 1))
	if time.Since(begin) > 100*time.Millisecond {
		return "waits on"
	}
	return right
}

func cancelledKey(l newLoader) string {
	var fetched atomic.Bool
	one := l(func(ctx context.Context, keys []int) (map[int]int, error) {
		if slices.Contains(keys, 3) {
			fetched.Store(true)
		}
		return slowFetch(ctx, keys)
	}, 100)
	// Key 3 waits with the others: for the fetch of 1, or for the end of a window.
	a := load(one, context.Background(), 1)
	b := load(one, context.Background(), 2)
	ctx, cancel := context.WithCancel(context.Background())
	_ = load(one, ctx, 3)
	cancel()
	synctest.Wait()
	receive(a)
	receive(b)
	if fetched.Load() {
		return "is fetched"
	}
	return right
}

func cancelledIsForgotten(l newLoader) string {
	one := l(slowFetch, 100)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	receive(load(one, ctx, 1))
	if r := receive(load(one, context.Background(), 1)); r.err != nil {
		return "for ever"
	}
	return right
}

func errorsOfKeys(l newLoader) string {
	broken := errors.New("broken")
	one := l(func(_ context.Context, keys []int) (map[int]int, error) {
		time.Sleep(time.Second)
		return map[int]int{0: 0, 1: 10}, perKey{2: broken}
	}, 100)
	calls := []<-chan result{load(one, context.Background(), 0)}
	for key := 1; key < 4; key++ {
		calls = append(calls, load(one, context.Background(), key))
	}
	first, good, bad, missing := receive(calls[0]), receive(calls[1]), receive(calls[2]), receive(calls[3])
	switch {
	case first.err != nil || good.err != nil || good.val != 10:
		return "the others fail too"
	case !errors.Is(bad.err, broken):
		return "its error is lost"
	case missing.err == nil || errors.Is(missing.err, broken):
		return "what is missing has none"
	}
	return right
}

func fetchEnds(l newLoader, end func()) string {
	one := l(func(context.Context, []int) (map[int]int, error) { time.Sleep(time.Second); end(); return nil, nil }, 100)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_ = load(one, ctx, 1)
	r := receive(load(one, ctx, 1))
	switch told := fmt.Sprint(r.err, r.panicked); {
	case r.err == nil && r.panicked == nil:
		return fmt.Sprintf("(%d, nil)", r.val)
	case strings.Contains(told, "boom") && !strings.Contains(told, "probes_test.go"):
		return "without the stack"
	}
	return right
}

func fetchLoads(l newLoader) string {
	var one loader
	var fetches atomic.Int64
	one = l(func(ctx context.Context, keys []int) (map[int]int, error) {
		if fetches.Add(1) > 10 {
			return quickFetch(ctx, keys)
		}
		if _, err := one(ctx, keys[0]); err != nil {
			return nil, err
		}
		return quickFetch(ctx, keys)
	}, 100)
	r := receive(load(one, context.Background(), 1))
	switch {
	case fetches.Load() > 10:
		return "fetches without end"
	case r.err == nil:
		return "no error"
	}
	return right
}
