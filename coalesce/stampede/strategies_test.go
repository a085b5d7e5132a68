package stampede_test

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/coalescetest"
)

type strategy struct {
	name   string
	make   func(scenario, *database) []process
	shared bool // all processes share what one has loaded
}

var strategies = []strategy{
	{name: "none", make: naive},
	{name: "group", make: cached(func(*options) {})},
	{name: "jitter", make: cached(func(o *options) { o.Jitter = 0.5 })},
	{name: "swr", make: cached(func(o *options) { o.Stale = o.TTL })},
	{name: "xfetch", make: cached(func(o *options) { o.Beta = 1 })},
	{name: "lease", make: leased, shared: true},
}

type options = coalesce.CacheOptions[string, value]

// naive is what one writes before the first stampede.
func naive(s scenario, d *database) []process {
	all := make([]process, s.processes)
	for i := range all {
		all[i] = &naiveCache{s: s, d: d, entries: map[string]value{}}
	}
	return all
}

type naiveCache struct {
	s scenario
	d *database

	mu      sync.Mutex
	entries map[string]value
}

func (c *naiveCache) get(ctx context.Context, key string) (value, error) {
	c.mu.Lock()
	v, ok := c.entries[key]
	c.mu.Unlock()
	if ok && time.Since(v.made) < c.s.ttl {
		return v, nil
	}
	v, err := c.d.load(ctx, key)
	if err == nil {
		c.mu.Lock()
		c.entries[key] = v
		c.mu.Unlock()
	}
	return v, err
}

func (*naiveCache) close() {}

// cached is a coalesce.Cache in each process.
func cached(set func(*options)) func(scenario, *database) []process {
	return func(s scenario, d *database) []process {
		all := make([]process, s.processes)
		for i := range all {
			o := options{Capacity: 10 * s.keys, TTL: s.ttl}
			set(&o)
			c, err := coalesce.NewCache(d.load, o)
			if err != nil {
				panic(err)
			}
			all[i] = cache{c}
		}
		return all
	}
}

type cache struct{ *coalesce.Cache[string, value] }

func (c cache) get(ctx context.Context, key string) (value, error) { return c.Get(ctx, key) }
func (c cache) close()                                             { _ = c.Close(context.Background()) }

// leased is a shared store with a lease. The sleeps are round trips, in a synctest
// bubble.
func leased(s scenario, d *database) []process {
	store := coalescetest.NewStore(5 * time.Second)
	all := make([]process, s.processes)
	for i := range all {
		all[i] = &leaseholder{s: s, d: d, store: store.Process()}
	}
	return all
}

type leaseholder struct {
	s     scenario
	d     *database
	store *coalescetest.Process
	group coalesce.Group[string, value]
}

func (l *leaseholder) get(ctx context.Context, key string) (value, error) {
	return l.group.Do(ctx, key, func(ctx context.Context) (value, error) {
		return coalesce.Lead(ctx, l.store, key,
			func(ctx context.Context) (value, bool, error) { return l.lookup(ctx, key) },
			func(ctx context.Context, token coalesce.Token) (value, error) {
				v, err := l.d.load(ctx, key)
				if err != nil {
					return v, err
				}
				time.Sleep(l.s.trip)
				return v, l.store.Put(ctx, key, token, binary.AppendVarint(nil, v.made.UnixNano()))
			})
	})
}

func (l *leaseholder) lookup(ctx context.Context, key string) (value, bool, error) {
	time.Sleep(l.s.trip)
	b, ok, err := l.store.Get(ctx, key)
	if !ok || err != nil {
		return value{}, false, err
	}
	nanos, _ := binary.Varint(b)
	v := value{time.Unix(0, nanos)}
	return v, time.Since(v.made) < l.s.ttl, nil
}

func (*leaseholder) close() {}
