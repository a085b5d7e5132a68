package coalesce_test

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// The model of a Batcher: a list of keys that wait, a set of fetches that run,
// and callers with the keys that they still miss. One action is done at a time.
type batcherModel struct {
	b                     *coalesce.Batcher[int, int]
	maxBatch, maxInFlight int
	callers               []*batchCaller
	queue                 []*modelKey
	flying                []*modelFetch
	stats                 coalesce.BatcherStats
	clock                 int // grows with each fetch, and is part of its values

	mu      sync.Mutex
	started []*realFetch
}

type modelKey struct {
	key       int
	callers   map[*batchCaller]int // how often each asked
	forgotten bool
}

type modelFetch struct {
	keys      []*modelKey
	abandoned bool
	real      *realFetch
}

type realFetch struct {
	keys   []int
	ctx    context.Context
	finish chan func() (map[int]int, error)
}

type batchCaller struct {
	keys    []int
	leave   context.CancelFunc
	missing map[*modelKey]bool
	want    map[int]coalesce.Result[int] // without Shared and Waiters
	over    bool
	got     map[int]coalesce.Result[int]
	done    bool
}

func (m *batcherModel) fetch(ctx context.Context, keys []int) (map[int]int, error) {
	f := &realFetch{keys: slices.Clone(keys), ctx: ctx, finish: make(chan func() (map[int]int, error))}
	for i := range keys {
		keys[i] = -1 // the slice is the fetch's own
	}
	m.mu.Lock()
	m.started = append(m.started, f)
	m.mu.Unlock()
	return (<-f.finish)()
}

// joinable returns what a caller of key would join.
func (m *batcherModel) joinable(key int) (*modelKey, *modelFetch) {
	for _, k := range m.queue {
		if k.key == key {
			return k, nil
		}
	}
	for _, f := range m.flying {
		for _, k := range f.keys {
			if k.key == key && !k.forgotten && !f.abandoned {
				return k, f
			}
		}
	}
	return nil, nil
}

// advance begins what may begin, in the model, and binds it to the real fetches.
func (m *batcherModel) advance(t *rapid.T) {
	synctest.Wait()
	var begun []*modelFetch
	for len(m.flying) < m.maxInFlight && len(m.queue) > 0 {
		n := min(m.maxBatch, len(m.queue))
		f := &modelFetch{keys: slices.Clone(m.queue[:n])}
		m.queue = m.queue[n:]
		m.flying = append(m.flying, f)
		begun = append(begun, f)
		m.stats.Fetches++
		m.stats.Keys += int64(n)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	require.Len(t, m.started, len(begun))
	for _, f := range begun {
		var keys []int
		for _, k := range f.keys {
			keys = append(keys, k.key)
		}
		i := slices.IndexFunc(m.started, func(r *realFetch) bool { return slices.Equal(r.keys, keys) })
		require.GreaterOrEqual(t, i, 0, "a fetch of %v", keys)
		f.real = m.started[i]
		m.started = slices.Delete(m.started, i, i+1)
	}
}

func (m *batcherModel) load(t *rapid.T) {
	c := &batchCaller{
		keys:    rapid.SliceOfN(rapid.IntRange(0, 5), 1, 6).Draw(t, "keys"),
		missing: map[*modelKey]bool{},
		want:    map[int]coalesce.Result[int]{},
	}
	ctx := context.Background()
	if rapid.Bool().Draw(t, "can leave") {
		ctx, c.leave = context.WithCancel(ctx)
	}
	single := len(c.keys) == 1 && rapid.Bool().Draw(t, "Load")
	go func() {
		got := map[int]coalesce.Result[int]{}
		if single {
			r := observeNow(func() (int, error) { return m.b.Load(ctx, c.keys[0]) })
			got[c.keys[0]] = r
		} else {
			for k, r := range m.b.LoadAll(ctx, c.keys) {
				r.Shared, r.Waiters = false, 0
				got[k] = r
			}
		}
		c.got, c.done = got, true
	}()
	m.callers = append(m.callers, c)
	for _, key := range c.keys {
		m.stats.Loads++
		k, _ := m.joinable(key)
		if k != nil {
			m.stats.Joined++
		} else {
			k = &modelKey{key: key, callers: map[*batchCaller]int{}}
			m.queue = append(m.queue, k)
		}
		k.callers[c]++
		c.missing[k] = true
	}
	m.advance(t)
}

// observeNow calls load and turns its panic into an error.
func observeNow(load func() (int, error)) (r coalesce.Result[int]) {
	defer func() {
		if p, ok := recover().(error); ok {
			r.Err = p
		}
	}()
	r.Val, r.Err = load()
	return r
}

func (m *batcherModel) leave(t *rapid.T) {
	var can []*batchCaller
	for _, c := range m.callers {
		if c.leave != nil && !c.over {
			can = append(can, c)
		}
	}
	if len(can) == 0 {
		t.Skip("nobody can leave")
	}
	c := rapid.SampledFrom(can).Draw(t, "caller")
	c.leave()
	c.over = true
	for k := range c.missing {
		c.want[k.key] = coalesce.Result[int]{Err: context.Canceled}
		delete(k.callers, c)
	}
	m.queue = slices.DeleteFunc(m.queue, func(k *modelKey) bool { return len(k.callers) == 0 })
	for _, f := range m.flying {
		f.abandoned = !slices.ContainsFunc(f.keys, func(k *modelKey) bool { return len(k.callers) > 0 })
	}
	m.advance(t)
}

func (m *batcherModel) forget(t *rapid.T) {
	key := rapid.IntRange(0, 5).Draw(t, "key")
	k, f := m.joinable(key)
	require.Equal(t, f != nil, m.b.Forget(key))
	if f != nil {
		k.forgotten = true
	}
}

func (m *batcherModel) finish(t *rapid.T) {
	if len(m.flying) == 0 {
		t.Skip("nothing runs")
	}
	f := rapid.SampledFrom(m.flying).Draw(t, "fetch")
	m.clock++
	values, failed := map[int]int{}, coalesce.Errors[int]{}
	var all error
	for key := range 6 { // keys that nobody asked for, too
		switch rapid.SampledFrom([]string{"value", "missing", "failed"}).Draw(t, "key") {
		case "value":
			values[key] = 100*m.clock + key
		case "failed":
			failed[key] = errWork
		}
	}
	end := func() (map[int]int, error) { return values, failed }
	switch rapid.SampledFrom([]string{"", "", "error", "panic"}).Draw(t, "how") {
	case "error":
		all, end = errWork, func() (map[int]int, error) { return values, errWork }
	case "panic":
		all, end = errWork, func() (map[int]int, error) { panic(errWork) }
	}
	f.real.finish <- end
	m.flying = slices.DeleteFunc(m.flying, func(g *modelFetch) bool { return f == g })
	for _, k := range f.keys {
		r := coalesce.Result[int]{Val: values[k.key], Err: failed[k.key]}
		switch {
		case all != nil:
			r = coalesce.Result[int]{Err: all}
		case r.Err == nil && r.Val == 0:
			r.Err = coalesce.ErrNotFound
		}
		for c := range k.callers {
			c.want[k.key] = r
			delete(c.missing, k)
			c.over = len(c.missing) == 0
		}
	}
	m.advance(t)
}

func (m *batcherModel) check(t *rapid.T) {
	synctest.Wait()
	require.Empty(t, m.started)
	for i, c := range m.callers {
		require.Equal(t, c.over, c.done, "caller %d", i)
		if !c.over {
			continue
		}
		for key, want := range c.want {
			got := c.got[key]
			require.Equal(t, want.Val, got.Val, "caller %d, key %d", i, key)
			require.ErrorIs(t, got.Err, want.Err, "caller %d, key %d", i, key)
		}
		require.ElementsMatch(t, slices.Collect(maps.Keys(c.want)), slices.Collect(maps.Keys(c.got)))
	}
	for _, f := range m.flying {
		require.Equal(t, f.abandoned, f.real.ctx.Err() != nil)
		if f.abandoned {
			require.Equal(t, coalesce.ErrAbandoned, context.Cause(f.real.ctx))
		}
	}
	m.stats.InFlight, m.stats.Queued = len(m.flying), len(m.queue)
	require.Equal(t, m.stats, m.b.Stats())
}

func TestBatcherBehavesAsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			m := &batcherModel{
				maxBatch:    rapid.IntRange(1, 4).Draw(t, "MaxBatch"),
				maxInFlight: rapid.IntRange(1, 3).Draw(t, "MaxInFlight"),
			}
			m.b = &coalesce.Batcher[int, int]{Fetch: m.fetch, MaxBatch: m.maxBatch, MaxInFlight: m.maxInFlight}
			defer func() { // the bubble must be empty, even after a failure
				for m.b.Stats().InFlight > 0 {
					m.mu.Lock()
					running := m.started
					m.started = nil
					m.mu.Unlock()
					for _, f := range m.flying {
						running = append(running, f.real)
					}
					m.flying = nil
					for _, f := range running {
						f.finish <- func() (map[int]int, error) { return nil, nil }
					}
					synctest.Wait()
				}
				for _, c := range m.callers {
					if c.leave != nil {
						c.leave()
					}
				}
			}()
			t.Repeat(map[string]func(*rapid.T){
				"load":    m.load,
				"leave":   m.leave,
				"forget":  m.forget,
				"finish":  m.finish,
				"finish2": m.finish,
				"":        m.check,
			})
		})
	})
}
