package peerbugs_test

import (
	"context"
	"time"

	graphgophers "github.com/graph-gophers/dataloader/v7"
	"github.com/maypok86/otter/v2"
	"github.com/viccon/sturdyc"
	"github.com/vikstrous/dataloadgen"
	xsync "golang.org/x/sync/singleflight"
	resenje "resenje.org/singleflight"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

type work = func(context.Context) (int, error)

// A flight runs work for all callers of a key. Caches are used with keys that are
// not in them.
type flight func(ctx context.Context, key string, fn work) (int, error)

type implementation[T any] struct {
	name string
	make func() T
}

var flights = []implementation[flight]{
	{"evenkeel", func() flight {
		g := coalesce.Group[string, int]{Abandon: coalesce.Exclusive}
		return g.Do
	}},
	{"x/sync Do", func() flight {
		var g xsync.Group
		return func(ctx context.Context, key string, fn work) (int, error) {
			v, err, _ := g.Do(key, func() (any, error) { return fn(ctx) })
			n, _ := v.(int)
			return n, err
		}
	}},
	{"x/sync DoChan", func() flight {
		var g xsync.Group
		return func(ctx context.Context, key string, fn work) (int, error) {
			select {
			case r := <-g.DoChan(key, func() (any, error) { return fn(ctx) }):
				n, _ := r.Val.(int)
				return n, r.Err
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
	}},
	{"resenje", func() flight {
		var g resenje.Group[string, int]
		return func(ctx context.Context, key string, fn work) (int, error) {
			v, _, err := g.Do(ctx, key, fn)
			return v, err
		}
	}},
	{"sturdyc", func() flight {
		c := sturdyc.New[int](1000, 1, time.Hour, 10)
		return func(ctx context.Context, key string, fn work) (int, error) { return c.GetOrFetch(ctx, key, fn) }
	}},
	{"otter", func() flight {
		c := otter.Must(&otter.Options[string, int]{MaximumSize: 1000})
		return func(ctx context.Context, key string, fn work) (int, error) {
			return c.Get(ctx, key, otter.LoaderFunc[string, int](func(ctx context.Context, _ string) (int, error) { return fn(ctx) }))
		}
	}},
}

type fetch = func(ctx context.Context, keys []int) (map[int]int, error)

// A loader loads single keys by fetches of many.
type loader func(ctx context.Context, key int) (int, error)

var loaders = []implementation[func(fetch) loader]{
	{"evenkeel", func() func(fetch) loader {
		return func(f fetch) loader { return (&coalesce.Batcher[int, int]{Fetch: f}).Load }
	}},
	{"dataloadgen", func() func(fetch) loader {
		return func(f fetch) loader {
			return dataloadgen.NewMappedLoader(dataloadgenFetch(f)).Load
		}
	}},
	{"graph-gophers", func() func(fetch) loader {
		return func(f fetch) loader {
			l := graphgophers.NewBatchedLoader(func(ctx context.Context, keys []int) []*graphgophers.Result[int] {
				m, err := f(ctx, keys)
				results := make([]*graphgophers.Result[int], len(keys))
				for i, k := range keys {
					results[i] = &graphgophers.Result[int]{Data: m[k], Error: err}
				}
				return results
			}, graphgophers.WithCache[int, int](&graphgophers.NoCache[int, int]{}))
			return func(ctx context.Context, key int) (int, error) { return l.Load(ctx, key)() }
		}
	}},
}

func dataloadgenFetch(f fetch) func(context.Context, []int) (map[int]int, error) { return f }
