package peerbugs_test

import (
	"context"
	"errors"

	graphgophers "github.com/graph-gophers/dataloader/v7"
	"github.com/vikstrous/dataloadgen"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// A fetch returns values, and errors of single keys as perKey.
type fetch = func(ctx context.Context, keys []int) (map[int]int, error)

type perKey map[int]error

func (perKey) Error() string { return "some keys failed" }

// A loader loads single keys by fetches of many.
type loader func(ctx context.Context, key int) (int, error)

// newLoader makes a loader whose batches have at most so many keys.
type newLoader func(f fetch, maxBatch int) loader

var loaders = []implementation[newLoader]{
	{"evenkeel Batcher", func() newLoader {
		return func(f fetch, maxBatch int) loader {
			return (&coalesce.Batcher[int, int]{MaxBatch: maxBatch, Fetch: func(ctx context.Context, keys []int) (map[int]int, error) {
				m, err := f(ctx, keys)
				if some, ok := err.(perKey); ok {
					err = coalesce.Errors[int](some)
				}
				return m, err
			}}).Load
		}
	}},
	{"dataloadgen", func() newLoader { return dataloadgenWith() }},
	{"dataloadgen without cache", func() newLoader { return dataloadgenWith(dataloadgen.WithoutCache()) }},
	{"graph-gophers without cache", func() newLoader { return graphgophersUncached }},
}

func dataloadgenWith(options ...dataloadgen.Option) newLoader {
	return func(f fetch, maxBatch int) loader {
		return dataloadgen.NewMappedLoader(func(ctx context.Context, keys []int) (map[int]int, error) {
			m, err := f(ctx, keys)
			if some, ok := err.(perKey); ok {
				err = dataloadgen.MappedFetchError[int](some)
			}
			return m, err
		}, append(options, dataloadgen.WithBatchCapacity(maxBatch))...).Load
	}
}

var errMissing = errors.New("not found")

// graphgophersUncached finds what is missing itself: this library has no word for it.
// Its cache cannot be probed in a bubble: who asks for a key that another waits for is
// then blocked on a mutex, which stops the virtual clock.
func graphgophersUncached(f fetch, maxBatch int) loader {
	l := graphgophers.NewBatchedLoader(func(ctx context.Context, keys []int) []*graphgophers.Result[int] {
		m, err := f(ctx, keys)
		some, _ := err.(perKey)
		results := make([]*graphgophers.Result[int], len(keys))
		for i, k := range keys {
			v, found := m[k]
			r := &graphgophers.Result[int]{Data: v, Error: some[k]}
			switch {
			case err != nil && some == nil:
				r.Error = err
			case r.Error == nil && !found:
				r.Error = errMissing
			}
			results[i] = r
		}
		return results
	}, graphgophers.WithCache(&graphgophers.NoCache[int, int]{}), graphgophers.WithBatchCapacity[int, int](maxBatch))
	return func(ctx context.Context, key int) (int, error) { return l.Load(ctx, key)() }
}
