package benchmarks

import (
	"context"
	"fmt"
	"testing"

	xsync "golang.org/x/sync/singleflight"
	resenje "resenje.org/singleflight"

	"github.com/evenkeel-go/evenkeel/benchmarks/ratio"
	"github.com/evenkeel-go/evenkeel/coalesce"
)

func answer(context.Context) (int, error) { return 42, nil }

// Distinct keys, one after the other: the cost that coalescing adds to a call that
// finds nobody to share with.

func coalesceDo(ctx context.Context) ratio.Op {
	var g coalesce.Group[string, int]
	return func(n int) {
		for i := range n {
			if _, err := g.Do(ctx, keys[i%len(keys)], answer); err != nil {
				panic(err)
			}
		}
	}
}

func xsyncDo() ratio.Op {
	var g xsync.Group
	return func(n int) {
		for i := range n {
			if _, err, _ := g.Do(keys[i%len(keys)], func() (any, error) { return answer(context.Background()) }); err != nil {
				panic(err)
			}
		}
	}
}

// xsyncDoChan is how x/sync is used by callers that obey their context.
func xsyncDoChan(ctx context.Context) ratio.Op {
	var g xsync.Group
	return func(n int) {
		for i := range n {
			select {
			case <-g.DoChan(keys[i%len(keys)], func() (any, error) { return answer(ctx) }):
			case <-ctx.Done():
				panic(ctx.Err())
			}
		}
	}
}

func resenjeDo(ctx context.Context) ratio.Op {
	var g resenje.Group[string, int]
	return func(n int) {
		for i := range n {
			if _, _, err := g.Do(ctx, keys[i%len(keys)], answer); err != nil {
				panic(err)
			}
		}
	}
}

func BenchmarkCoalesceDo(b *testing.B) {
	for name, op := range map[string]ratio.Op{
		"floor": func(n int) {
			for range n {
				_, _ = answer(context.Background())
			}
		},
		"evenkeel/context=background":      coalesceDo(context.Background()),
		"evenkeel/context=cancellable":     coalesceDo(b.Context()),
		"xsync-do/context=none":            xsyncDo(),
		"xsync-dochan/context=cancellable": xsyncDoChan(b.Context()),
		"resenje/context=cancellable":      resenjeDo(b.Context()),
	} {
		b.Run(fmt.Sprintf("impl=%s", name), run(op))
	}
}

func TestRatioCoalesce(t *testing.T) {
	t.Run("background against x/sync Do", func(t *testing.T) { ratio.AtMost(t, 1, coalesceDo(context.Background()), xsyncDo()) })
	t.Run("cancellable against x/sync DoChan", func(t *testing.T) {
		ratio.AtMost(t, 1.2, coalesceDo(t.Context()), xsyncDoChan(t.Context()))
	})
	t.Run("cancellable against resenje", func(t *testing.T) { ratio.AtMost(t, 1.25, coalesceDo(t.Context()), resenjeDo(t.Context())) })
}
