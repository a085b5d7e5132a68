package benchmarks

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vikstrous/dataloadgen"

	"github.com/evenkeel-go/evenkeel/benchmarks/ratio"
	"github.com/evenkeel-go/evenkeel/coalesce"
)

// A hundred keys in one call, which make one batch; the loaders keep nothing.

const batchSize = 100

func fetchMap(_ context.Context, keys []string) (map[string]int, error) {
	m := make(map[string]int, len(keys))
	for _, k := range keys {
		m[k] = len(k)
	}
	return m, nil
}

func fetchSlice(_ context.Context, keys []string) ([]int, []error) {
	s := make([]int, len(keys))
	for i, k := range keys {
		s[i] = len(k)
	}
	return s, nil
}

func batcherLoadAll(ctx context.Context) ratio.Op {
	b := coalesce.Batcher[string, int]{Fetch: fetchMap}
	return func(n int) {
		for range n {
			for k, r := range b.LoadAll(ctx, keys[:batchSize]) {
				if r.Err != nil || r.Val != len(k) {
					panic(r.Err)
				}
			}
		}
	}
}

func dataloadgenLoadAll(ctx context.Context, l *dataloadgen.Loader[string, int]) ratio.Op {
	return func(n int) {
		for range n {
			values, err := l.LoadAll(ctx, keys[:batchSize])
			if err != nil || values[0] != len(keys[0]) {
				panic(err)
			}
		}
	}
}

func dataloadgenMapped() *dataloadgen.Loader[string, int] {
	return dataloadgen.NewMappedLoader(fetchMap, dataloadgen.WithBatchCapacity(batchSize), dataloadgen.WithoutCache())
}

func dataloadgenSliced() *dataloadgen.Loader[string, int] {
	return dataloadgen.NewLoader(fetchSlice, dataloadgen.WithBatchCapacity(batchSize), dataloadgen.WithoutCache())
}

func BenchmarkLoadAll(b *testing.B) {
	for name, op := range map[string]ratio.Op{
		"floor": func(n int) {
			for range n {
				m, _ := fetchMap(b.Context(), keys[:batchSize])
				for _, k := range keys[:batchSize] {
					if m[k] != len(k) {
						panic("not found")
					}
				}
			}
		},
		"evenkeel/context=background":    batcherLoadAll(context.Background()),
		"evenkeel/context=cancellable":   batcherLoadAll(b.Context()),
		"dataloadgen-mapped/context=any": dataloadgenLoadAll(b.Context(), dataloadgenMapped()),
		"dataloadgen-sliced/context=any": dataloadgenLoadAll(b.Context(), dataloadgenSliced()),
	} {
		b.Run(fmt.Sprintf("impl=%s", name), run(op))
	}
}

func TestLoadAllAllocatesLittle(t *testing.T) {
	for name, ctx := range map[string]context.Context{"background": context.Background(), "cancellable": t.Context()} {
		op := batcherLoadAll(ctx)
		require.LessOrEqual(t, testing.AllocsPerRun(100, func() { op(1) }), 10.0, name)
	}
}

// The map that a Fetch returns is half of the time. A loader whose fetch returns a
// slice in the order of its keys does without.
func TestRatioBatcher(t *testing.T) {
	t.Run("LoadAll against dataloadgen, which gets a map too", func(t *testing.T) {
		ratio.AtMost(t, 1, batcherLoadAll(context.Background()), dataloadgenLoadAll(context.Background(), dataloadgenMapped()))
	})
	t.Run("LoadAll of a caller that can leave against the same", func(t *testing.T) {
		ratio.AtMost(t, 1.2, batcherLoadAll(t.Context()), dataloadgenLoadAll(t.Context(), dataloadgenMapped()))
	})
	t.Run("LoadAll against dataloadgen, which gets a slice", func(t *testing.T) {
		ratio.AtMost(t, 2, batcherLoadAll(context.Background()), dataloadgenLoadAll(context.Background(), dataloadgenSliced()))
	})
}
