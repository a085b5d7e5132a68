package coalesce_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// The model: what a Cache should do, said without locks, goroutines and leases
// that are looked up. One action is done at a time and the bubble comes to rest
// after each. The key "zombie" has loads that do not obey their contexts.

type modelItem struct {
	value    int
	negative bool
	since    time.Time
	retryAt  time.Time
	underWay bool
	failures int
}

// A modelLoad is one execution of the load, under the model's control.
type modelLoad struct {
	key      string
	value    int // what it returns if it returns a value
	finish   chan func() (int, error)
	valid    bool // may store
	joinable bool
	deserted bool
	over     bool
	waiters  map[*modelReader]bool
	items    []*modelItem // of the refreshes in the background that wait for it
}

type modelReader struct {
	refresh bool
	leave   context.CancelFunc
	want    *coalesce.Entry[int] // once it is over
	wantErr error

	over bool
	got  coalesce.Entry[int]
	err  error
}

type cacheModel struct {
	cache   *stringCache
	o       stringOptions
	batched bool
	items   map[string]*modelItem
	loads   []*modelLoad
	readers []*modelReader
	stats   coalesce.CacheStats

	mu      sync.Mutex
	started []*modelLoad
	closing bool
}

// load is the real load.
func (m *cacheModel) load(ctx context.Context, key string) (int, error) {
	l := &modelLoad{key: key, finish: make(chan func() (int, error))}
	m.mu.Lock()
	closing := m.closing
	m.started = append(m.started, l)
	m.mu.Unlock()
	if closing {
		return 0, errWork
	}
	done := ctx.Done()
	if key == "zombie" {
		done = nil
	}
	select {
	case end := <-l.finish:
		return end()
	case <-done:
		return 0, ctx.Err()
	}
}

func (m *cacheModel) fetch(ctx context.Context, keys []string) (map[string]int, error) {
	v, err := m.load(ctx, keys[0])
	switch {
	case len(keys) > 1:
		return nil, errors.New("no two keys are asked for at once")
	case err == coalesce.ErrNotFound:
		return nil, nil
	case err != nil:
		return nil, coalesce.Errors[string]{keys[0]: err}
	}
	return map[string]int{keys[0]: v}, nil
}

func (m *cacheModel) age(it *modelItem) time.Duration { return time.Since(it.since) }

func (m *cacheModel) fresh(it *modelItem) bool {
	if it.negative {
		return m.age(it) < m.o.NegativeTTL
	}
	return m.age(it) < m.o.TTL
}

func (m *cacheModel) within(it *modelItem, window time.Duration) bool {
	return !it.negative && m.age(it) < m.o.TTL+window
}

// join gives the load of key that can be joined, or the one that starts.
func (m *cacheModel) join(t *rapid.T, key string) *modelLoad {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.loads {
		if l.key == key && l.joinable {
			require.Empty(t, m.started)
			return l
		}
	}
	require.Len(t, m.started, 1, "exactly one load starts")
	l := m.started[0]
	m.started = nil
	require.Equal(t, key, l.key)
	m.loads = append(m.loads, l)
	l.value = len(m.loads)
	l.valid, l.joinable = true, true
	l.waiters = map[*modelReader]bool{}
	m.stats.Loads++
	return l
}

func (m *cacheModel) read(t *rapid.T, key string, refresh bool) {
	r := &modelReader{refresh: refresh}
	ctx, leave := context.WithCancel(context.Background())
	r.leave = leave
	go func() {
		if refresh {
			r.got.Value, r.err = m.cache.Refresh(ctx, key)
		} else {
			r.got, r.err = m.cache.Entry(ctx, key)
		}
		r.over = true
	}()
	m.readers = append(m.readers, r)
	it := m.items[key]
	if !refresh && it != nil {
		e := coalesce.Entry[int]{Value: it.value, Age: m.age(it)}
		switch {
		case m.fresh(it):
			if it.negative {
				e.State, r.wantErr = coalesce.Negative, coalesce.ErrNotFound
			}
			r.want = &e
		case m.within(it, m.o.Stale):
			m.stats.StaleHits++
			e.State = coalesce.Stale
			r.want = &e
			if !it.underWay && !time.Now().Before(it.retryAt) {
				m.stats.Refreshes++
				it.underWay = true
				l := m.join(t, key)
				l.items = append(l.items, it)
			}
		case m.within(it, m.o.StaleIfError) && !it.underWay && time.Now().Before(it.retryAt):
			m.stats.StaleErrors++
			e.State = coalesce.StaleError
			r.want = &e
		}
	}
	if r.want != nil {
		m.stats.Hits++
		return
	}
	if !refresh {
		m.stats.Misses++
	}
	m.join(t, key).waiters[r] = true
}

// revoke is what a change of key does to its loads.
func (m *cacheModel) revoke(key string) {
	for _, l := range m.loads {
		if l.key == key {
			l.valid, l.joinable = false, false
		}
	}
}

func (m *cacheModel) store(key string, it modelItem) {
	it.since = time.Now()
	if old := m.items[key]; old != nil {
		*old = it // it is still the one whose refresh may be under way
	} else {
		m.items[key] = &it
	}
}

// finish lets a load end.
func (m *cacheModel) finish(t *rapid.T, l *modelLoad, how string) {
	err := map[string]error{"error": errWork, "panic": errWork, "not found": coalesce.ErrNotFound}[how]
	l.finish <- func() (int, error) {
		if how == "panic" {
			panic(errWork)
		}
		return l.value, err
	}
	synctest.Wait()
	m.settle(l, err)
}

func (m *cacheModel) settle(l *modelLoad, err error) {
	if (err == nil || err == coalesce.ErrNotFound) && l.valid {
		for _, older := range m.loads {
			if older == l {
				break
			}
			if older.key == l.key {
				older.valid = false
			}
		}
	}
	it := m.items[l.key]
	switch {
	case err == nil && l.valid:
		m.store(l.key, modelItem{value: l.value})
	case err == nil:
	case err == coalesce.ErrNotFound && l.valid:
		if m.o.NegativeTTL > 0 {
			m.store(l.key, modelItem{negative: true})
		} else {
			delete(m.items, l.key)
		}
	case err == coalesce.ErrNotFound || l.deserted:
	default:
		m.stats.LoadErrors++
		if it != nil && l.valid {
			it.underWay = false
			it.failures++
			it.retryAt = time.Now().Add(min(100*time.Millisecond<<(it.failures-1), 10*time.Second))
		}
	}
	l.valid, l.joinable, l.over = false, false, true
	for _, it := range l.items {
		it.underWay = false // unless settled already
	}
	for r := range l.waiters {
		m.serve(r, l, err)
	}
}

// serve says what a reader gets who has waited for a load.
func (m *cacheModel) serve(r *modelReader, l *modelLoad, err error) {
	it := m.items[l.key]
	r.want, r.wantErr = &coalesce.Entry[int]{}, err
	switch {
	case err == nil && m.batched && it != nil && !it.negative && m.fresh(it):
		r.want.Value, r.want.Age = it.value, m.age(it)
	case err == nil:
		r.want.Value = l.value
	case r.refresh:
	case err == coalesce.ErrNotFound:
		r.want.State = coalesce.Negative
	case it == nil || it.negative:
	case m.fresh(it):
		r.want.Value, r.want.Age, r.wantErr = it.value, m.age(it), nil
	case m.within(it, m.o.StaleIfError):
		m.stats.StaleErrors++
		r.want.Value, r.want.Age, r.want.State, r.wantErr = it.value, m.age(it), coalesce.StaleError, nil
	}
	if r.refresh {
		r.want.Age = 0
	}
}

// leave ends the context of a reader that waits.
func (m *cacheModel) leave(t *rapid.T) {
	for _, l := range m.loads {
		for r := range l.waiters {
			if l.over || !rapid.Bool().Draw(t, "leave") {
				continue
			}
			delete(l.waiters, r)
			r.want, r.wantErr = &coalesce.Entry[int]{}, context.Canceled
			r.leave()
			synctest.Wait()
			if len(l.waiters) == 0 && len(l.items) == 0 {
				l.deserted, l.joinable = true, false
				if l.key != "zombie" {
					m.settle(l, context.Canceled)
				}
			}
		}
	}
}

func (m *cacheModel) check(t *rapid.T) {
	synctest.Wait()
	require.Empty(t, m.started, "no load starts unasked")
	for i, r := range m.readers {
		require.Equal(t, r.want != nil, r.over, "reader %d", i)
		if !r.over {
			continue
		}
		err := r.err
		if p, ok := errors.AsType[*coalesce.PanicError](err); ok {
			err = p.Unwrap()
		}
		require.Equal(t, r.wantErr, err, "reader %d", i)
		require.Equal(t, *r.want, r.got, "reader %d", i)
	}
	want := map[string]int{}
	for key, it := range m.items {
		if m.fresh(it) && !it.negative || m.within(it, m.o.Stale) {
			want[key] = it.value
		}
	}
	require.Equal(t, want, maps.Collect(m.cache.All()))
	for _, key := range []string{"a", "zombie"} {
		v, ok := m.cache.Peek(key)
		require.Equal(t, want[key], v)
		require.Equal(t, v != 0, ok)
	}
	m.stats.Entries, m.stats.Cost = len(m.items), len(m.items)
	require.Equal(t, m.stats, m.cache.Stats())
	valid := 0
	for _, l := range m.loads {
		if l.valid {
			valid++
		}
	}
	require.Equal(t, valid, m.cache.Leases())
	m.cache.Check()
}

// end leaves an empty bubble, even after a failure.
func (m *cacheModel) end(t *rapid.T) {
	m.mu.Lock()
	m.closing = true
	m.mu.Unlock()
	for _, r := range m.readers {
		r.leave()
	}
	synctest.Wait()
	for _, l := range append(m.loads, m.started...) {
		select {
		case l.finish <- func() (int, error) { return 0, errWork }:
		default:
		}
	}
	require.NoError(t, m.cache.Close(context.Background()))
}

func (m *cacheModel) open(t *rapid.T) {
	second := time.Second
	m.o = stringOptions{
		Capacity:     10,
		TTL:          10 * second,
		Stale:        rapid.SampledFrom([]time.Duration{0, 5 * second, 20 * second}).Draw(t, "Stale"),
		StaleIfError: rapid.SampledFrom([]time.Duration{0, 10 * second}).Draw(t, "StaleIfError"),
		NegativeTTL:  rapid.SampledFrom([]time.Duration{0, 3 * second}).Draw(t, "NegativeTTL"),
	}
	var err error
	if m.batched = rapid.Bool().Draw(t, "batched"); m.batched {
		m.cache, err = coalesce.NewBatchCache(&coalesce.Batcher[string, int]{Fetch: m.fetch, MaxInFlight: 1000}, m.o)
	} else {
		m.cache, err = coalesce.NewCache(m.load, m.o)
	}
	require.NoError(t, err)
}

func TestCacheBehavesAsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			m := &cacheModel{items: map[string]*modelItem{}}
			m.open(t)
			defer m.end(t)
			sets := 0
			key := rapid.SampledFrom([]string{"a", "zombie"})
			get := func(t *rapid.T) { m.read(t, key.Draw(t, "key"), false) }
			finish := func(t *rapid.T) {
				var running []*modelLoad
				for _, l := range m.loads {
					if !l.over {
						running = append(running, l)
					}
				}
				if len(running) == 0 {
					t.Skip("nothing runs")
				}
				how := rapid.SampledFrom([]string{"value", "value", "error", "error", "panic", "not found"}).Draw(t, "how")
				m.finish(t, rapid.SampledFrom(running).Draw(t, "load"), how)
			}
			t.Repeat(map[string]func(*rapid.T){
				"get":     get,
				"get too": get,
				"refresh": func(t *rapid.T) { m.read(t, key.Draw(t, "key"), true) },
				"set": func(t *rapid.T) {
					sets++
					k := key.Draw(t, "key")
					m.cache.Set(k, -sets)
					m.revoke(k)
					m.store(k, modelItem{value: -sets})
				},
				"invalidate": func(t *rapid.T) {
					k := key.Draw(t, "key")
					m.cache.Invalidate(k)
					m.revoke(k)
					delete(m.items, k)
				},
				"clear": func(t *rapid.T) {
					m.cache.Clear()
					m.items = map[string]*modelItem{}
					for _, l := range m.loads {
						l.joinable = l.joinable && !l.valid
						l.valid = false
					}
				},
				"leave":      m.leave,
				"finish":     finish,
				"finish too": finish,
				"advance": func(t *rapid.T) {
					time.Sleep(rapid.SampledFrom([]time.Duration{50 * time.Millisecond, 100 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second}).Draw(t, "by"))
				},
				"": m.check,
			})
		})
	})
}
