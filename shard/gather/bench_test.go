package gather_test

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

const benchRows = 1000

// BenchmarkMerge compares ways to merge ordered streams of 1000 rows. The floor
// keeps a heap over plain slices, with no stream around them.
func BenchmarkMerge(b *testing.B) {
	for _, k := range []int{2, 16, 64} {
		streams := make([][]int, k)
		in := make([]iter.Seq2[int, error], k)
		for i := range streams {
			for j := range benchRows {
				streams[i] = append(streams[i], j*k+(i*7+j*3)%k)
			}
			slices.Sort(streams[i])
			in[i] = gather.Rows(streams[i])
		}
		run := func(impl string, merge func(yield func(int) bool)) {
			b.Run(fmt.Sprintf("impl=%s/streams=%d", impl, k), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					n := 0
					merge(func(int) bool { n++; return true })
					if n != k*benchRows {
						b.Fatalf("%d rows", n)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*k*benchRows), "ns/row")
			})
		}
		run("floor", func(yield func(int) bool) { mergeHeap(streams, yield) })
		run("merge", func(yield func(int) bool) {
			for v, err := range gather.Merge(cmp.Compare[int], in...) {
				if err != nil || !yield(v) {
					return
				}
			}
		})
		run("batches", func(yield func(int) bool) {
			from := make([]func() ([]int, error), k)
			for i := range from {
				left := streams[i]
				from[i] = func() ([]int, error) {
					batch := left[:min(64, len(left))]
					left = left[len(batch):]
					return batch, nil
				}
			}
			for v, err := range gather.MergeBatches(cmp.Compare[int], from...) {
				if err != nil || !yield(v) {
					return
				}
			}
		})
		run("sort", func(yield func(int) bool) {
			all := slices.Concat(streams...)
			slices.Sort(all)
			for _, v := range all {
				yield(v)
			}
		})
	}
}

type cursor struct{ rows []int }

type cursors []cursor

func (h cursors) Len() int           { return len(h) }
func (h cursors) Less(i, j int) bool { return h[i].rows[0] < h[j].rows[0] }
func (h cursors) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *cursors) Push(x any)        { *h = append(*h, x.(cursor)) }
func (h *cursors) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func mergeHeap(streams [][]int, yield func(int) bool) {
	var h cursors
	for _, s := range streams {
		h = append(h, cursor{s})
	}
	heap.Init(&h)
	for len(h) > 0 {
		top := &h[0]
		yield(top.rows[0])
		if top.rows = top.rows[1:]; len(top.rows) == 0 {
			heap.Pop(&h)
		} else {
			heap.Fix(&h, 0)
		}
	}
}

// BenchmarkScatter calls 16 shards that answer at once. The floor starts a
// goroutine for each and waits.
func BenchmarkScatter(b *testing.B) {
	ranges, err := shard.EvenRanges(16)
	require.NoError(b, err)
	shards := make([]shard.Shard, 16)
	for i, r := range ranges {
		shards[i].Range = r
	}
	m, err := shard.NewMap(1, shards...)
	require.NoError(b, err)
	fn := func(_ context.Context, s *shard.Shard) (int, error) { return len(s.Name), nil }
	b.Run("impl=floor/shards=16", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var wg sync.WaitGroup
			for s := range m.All() {
				wg.Go(func() { _, _ = fn(b.Context(), s) })
			}
			wg.Wait()
		}
	})
	scatter := func(impl string, o gather.Options) {
		b.Run(fmt.Sprintf("impl=%s/shards=16/concurrency=%d", impl, o.Concurrency), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := gather.Scatter(b.Context(), m.All(), fn, o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for _, concurrency := range []int{1, 4, 16} {
		scatter("scatter", gather.Options{Concurrency: concurrency})
	}
	scatter("bulkhead", gather.Options{Concurrency: 4, Bulkhead: new(gather.Bulkhead)})
	scatter("hedge", gather.Options{Concurrency: 4, Hedge: &gather.Hedge{After: time.Minute}})
}

// BenchmarkScatterNodes calls the nodes of 64 shards, which answer at once. With as many
// nodes as shards it is a Scatter.
func BenchmarkScatterNodes(b *testing.B) {
	for _, nodes := range []int{1, 4, 64} {
		names := make([]string, nodes)
		for i := range names {
			names[i] = fmt.Sprint(i)
		}
		m := nodeMap(b, 64, names...)
		b.Run(fmt.Sprintf("shards=64/nodes=%d", nodes), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := gather.ScatterNodes(b.Context(), m.ByNode(), func(_ context.Context, _ string, shards []*shard.Shard) (int, error) {
					return len(shards), nil
				}, gather.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStream merges the rows of 16 shards that cost nothing to read. Rows that are
// read by one goroutine and merged by another cost more than in a Merge: what a query costs
// is what runs beside it.
func BenchmarkStream(b *testing.B) {
	const shards = 16
	m := evenMap(b, shards)
	rows := make([][]int, shards)
	for i := range rows {
		for j := range benchRows {
			rows[i] = append(rows[i], j*shards+i)
		}
	}
	for _, limit := range []int{0, 50} {
		b.Run(fmt.Sprintf("shards=16/limit=%d", limit), func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				for _, err := range gather.Stream(b.Context(), m.All(), cmp.Compare[int], func(_ context.Context, s *shard.Shard) iter.Seq2[int, error] {
					return gather.Rows(rows[index(s)])
				}, gather.Options{Limit: limit}) {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/row")
		})
	}
}

// A call to a healthy node costs a walk over all who wait for a slow one.
func BenchmarkBulkhead(b *testing.B) {
	for _, waiting := range []int{0, 100, 1000, 4000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			m := nodeMap(b, 2, "slow", "fast")
			var slow, fast *shard.Shard
			for s := range m.All() {
				if s.Node == "slow" {
					slow = s
				} else {
					fast = s
				}
			}
			bulk := &gather.Bulkhead{PerNode: 1 << 20}
			_ = slow
			full := &gather.Bulkhead{PerNode: 1}
			_ = bulk
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			started := make(chan struct{}, 1)
			wg.Go(func() {
				_, _ = gather.Scatter(ctx, slices.Values([]*shard.Shard{slow}), func(ctx context.Context, _ *shard.Shard) (int, error) {
					started <- struct{}{}
					<-ctx.Done()
					return 0, ctx.Err()
				}, gather.Options{Bulkhead: full})
			})
			<-started
			// each holds a place at the slow node, and has its one worker at a node of its own
			for i := range waiting {
				own := &shard.Shard{Name: "own", Node: fmt.Sprint("own", i)}
				up := make(chan struct{})
				wg.Go(func() {
					_, _ = gather.Scatter(ctx, slices.Values([]*shard.Shard{slow, own}), func(ctx context.Context, _ *shard.Shard) (int, error) {
						close(up)
						<-ctx.Done()
						return 0, ctx.Err()
					}, gather.Options{Bulkhead: full, Concurrency: 1})
				})
				<-up
			}
			// a scatter that has one call at the slow node and many at the fast
			const calls = 64
			list := []*shard.Shard{slow}
			for range calls {
				list = append(list, fast)
			}
			for b.Loop() {
				n := 0
				c2, done := context.WithCancel(context.Background())
				_, _ = gather.Scatter(c2, slices.Values(list), func(context.Context, *shard.Shard) (int, error) {
					if n++; n == calls {
						done()
					}
					return 0, nil
				}, gather.Options{Bulkhead: full, Concurrency: 1, MinFraction: 0.5})
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*calls), "ns/call")
			cancel()
			wg.Wait()
		})
	}
}
