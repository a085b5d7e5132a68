package peerbugs_test

import (
	"context"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/viccon/sturdyc"
	xsync "golang.org/x/sync/singleflight"
	resenje "resenje.org/singleflight"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

type work = func(context.Context) (int, error)

// A flight runs work for all callers of a key. Caches are flights for keys that are
// not in them; nothing is asked of them that a cache cannot do.
type flight struct {
	do     func(ctx context.Context, key string, fn work) (int, error)
	forget func(key string) // nil for caches, which have probes of their own
}

type implementation[T any] struct {
	name string
	make func() T
}

var flights = []implementation[flight]{
	{"evenkeel Group", func() flight {
		var g coalesce.Group[string, int]
		return flight{g.Do, func(key string) { g.Forget(key) }}
	}},
	{"evenkeel Group, Exclusive", func() flight {
		g := coalesce.Group[string, int]{Abandon: coalesce.Exclusive}
		return flight{g.Do, func(key string) { g.Forget(key) }}
	}},
	{"evenkeel Cache", func() flight {
		type workKey struct{}
		load := func(ctx context.Context, _ string) (int, error) { return ctx.Value(workKey{}).(work)(ctx) }
		c, err := coalesce.NewCache(load, coalesce.CacheOptions[string, int]{Capacity: 1000})
		if err != nil {
			panic(err)
		}
		return flight{do: func(ctx context.Context, key string, fn work) (int, error) {
			return c.Get(context.WithValue(ctx, workKey{}, fn), key)
		}}
	}},
	{"x/sync Do", func() flight {
		var g xsync.Group
		return flight{func(ctx context.Context, key string, fn work) (int, error) {
			v, err, _ := g.Do(key, func() (any, error) { return fn(ctx) })
			n, _ := v.(int)
			return n, err
		}, g.Forget}
	}},
	// As it is used by those who want callers to be independent of each other.
	{"x/sync DoChan", func() flight {
		var g xsync.Group
		return flight{func(ctx context.Context, key string, fn work) (int, error) {
			select {
			case r := <-g.DoChan(key, func() (any, error) { return fn(context.WithoutCancel(ctx)) }):
				n, _ := r.Val.(int)
				return n, r.Err
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}, g.Forget}
	}},
	{"resenje", func() flight {
		var g resenje.Group[string, int]
		return flight{func(ctx context.Context, key string, fn work) (int, error) {
			v, _, err := g.Do(ctx, key, fn)
			return v, err
		}, g.Forget}
	}},
	{"sturdyc", func() flight {
		c := sturdyc.New[int](1000, 1, time.Hour, 10)
		return flight{do: func(ctx context.Context, key string, fn work) (int, error) { return c.GetOrFetch(ctx, key, fn) }}
	}},
	{"otter", func() flight {
		c := otter.Must(&otter.Options[string, int]{MaximumSize: 1000})
		return flight{do: func(ctx context.Context, key string, fn work) (int, error) {
			return c.Get(ctx, key, otter.LoaderFunc[string, int](func(ctx context.Context, _ string) (int, error) { return fn(ctx) }))
		}}
	}},
}

// A cache loads the values that it does not have, and refreshes those that are older
// than a minute in the background when they are asked for.
type cache struct {
	get        func(ctx context.Context, key string) (int, error)
	set        func(key string, value int)
	invalidate func(key string)
}

var caches = []implementation[func(work) cache]{
	{"evenkeel Cache", func() func(work) cache {
		return func(load work) cache {
			c, err := coalesce.NewCache(func(ctx context.Context, _ string) (int, error) { return load(ctx) },
				coalesce.CacheOptions[string, int]{Capacity: 1000, TTL: time.Minute, Stale: time.Hour})
			if err != nil {
				panic(err)
			}
			return cache{c.Get, c.Set, c.Invalidate}
		}
	}},
	{"sturdyc", func() func(work) cache {
		return func(load work) cache {
			c := sturdyc.New[int](1000, 1, time.Hour, 10,
				sturdyc.WithEarlyRefreshes(time.Minute, time.Minute+1, time.Hour, time.Second))
			return cache{
				func(ctx context.Context, key string) (int, error) { return c.GetOrFetch(ctx, key, load) },
				func(key string, value int) { c.Set(key, value) },
				c.Delete,
			}
		}
	}},
	{"otter", func() func(work) cache {
		return func(load work) cache {
			c := otter.Must(&otter.Options[string, int]{
				MaximumSize:       1000,
				ExpiryCalculator:  otter.ExpiryWriting[string, int](time.Hour),
				RefreshCalculator: otter.RefreshWriting[string, int](time.Minute),
			})
			loader := otter.LoaderFunc[string, int](func(ctx context.Context, _ string) (int, error) { return load(ctx) })
			return cache{
				func(ctx context.Context, key string) (int, error) { return c.Get(ctx, key, loader) },
				func(key string, value int) { c.Set(key, value) },
				func(key string) { c.Invalidate(key) },
			}
		}
	}},
}
