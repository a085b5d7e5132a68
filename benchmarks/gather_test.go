package benchmarks

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/benchmarks/ratio"
	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// streamRows are the rows of each ordered stream.
const streamRows = 1000

// orderedStreams are k streams that interleave irregularly.
func orderedStreams(k int) [][]int {
	streams := make([][]int, k)
	for i := range streams {
		for j := range streamRows {
			streams[i] = append(streams[i], j*k+(i*7+j*3)%k)
		}
		slices.Sort(streams[i])
	}
	return streams
}

// gatherMerge merges iterators, as a loop over Merge does.
func gatherMerge(k int) ratio.Op {
	var in []iter.Seq2[int, error]
	for _, rows := range orderedStreams(k) {
		in = append(in, gather.Rows(rows))
	}
	return mergeAll(gather.Merge(cmp.Compare[int], in...))
}

// gatherMergeBatches merges slices of 64 rows.
func gatherMergeBatches(k int) ratio.Op {
	var in []func() ([]int, error)
	for _, rows := range orderedStreams(k) {
		left := rows
		in = append(in, func() ([]int, error) {
			batch := left[:min(64, len(left))]
			if left = left[len(batch):]; len(batch) == 0 {
				left = rows // begins anew for the next merge
			}
			return batch, nil
		})
	}
	return mergeAll(gather.MergeBatches(cmp.Compare[int], in...))
}

func mergeAll(merged iter.Seq2[int, error]) ratio.Op {
	return func(n int) {
		for range n {
			for v, err := range merged {
				if err != nil {
					panic(err)
				}
				sink += uint64(v)
			}
		}
	}
}

// gatherStream reads the streams on goroutines of their own, as channelMerge does.
func gatherStream(t testing.TB, k int) ratio.Op {
	streams := orderedStreams(k)
	ranges, err := shard.EvenRanges(k)
	require.NoError(t, err)
	shards := make([]shard.Shard, k)
	rows := map[string]iter.Seq2[int, error]{}
	for i, r := range ranges {
		shards[i] = shard.Shard{Range: r, Node: fmt.Sprint(i)}
		rows[shards[i].Node] = gather.Rows(streams[i])
	}
	m, err := shard.NewMap(1, shards...)
	require.NoError(t, err)
	return mergeAll(gather.Stream(context.Background(), m.All(), cmp.Compare[int], func(_ context.Context, s *shard.Shard) iter.Seq2[int, error] {
		return rows[s.Node]
	}, gather.Options{}))
}

// head is the first row of a stream.
type head struct{ v, stream int }

type heads []head

func (h heads) Len() int           { return len(h) }
func (h heads) Less(i, j int) bool { return h[i].v < h[j].v }
func (h heads) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *heads) Push(x any)        { *h = append(*h, x.(head)) }
func (h *heads) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// mergeHeads keeps a heap of one row a stream. next returns the next row of one.
func mergeHeads(k int, next func(stream int) (int, bool)) {
	var h heads
	for i := range k {
		if v, ok := next(i); ok {
			h = append(h, head{v, i})
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		sink += uint64(h[0].v)
		if v, ok := next(h[0].stream); ok {
			h[0].v = v
			heap.Fix(&h, 0)
		} else {
			heap.Pop(&h)
		}
	}
}

// heapMerge reads plain slices, with no stream around them, no comparison function, no
// check of the order and no order among equals.
func heapMerge(k int) ratio.Op {
	streams := orderedStreams(k)
	return func(n int) {
		for range n {
			at := make([]int, k)
			mergeHeads(k, func(i int) (int, bool) {
				if at[i] == len(streams[i]) {
					return 0, false
				}
				at[i]++
				return streams[i][at[i]-1], true
			})
		}
	}
}

// channelMerge is how Vitess merges the streams of its shards (go/vt/vtgate/engine,
// MergeSort): a goroutine for each puts rows into a channel of 10, and a heap takes them.
func channelMerge(k int) ratio.Op {
	streams := orderedStreams(k)
	return func(n int) {
		for range n {
			ctx, cancel := context.WithCancel(context.Background())
			rows := make([]chan int, k)
			for i := range rows {
				rows[i] = make(chan int, 10)
				go func() {
					defer close(rows[i])
					for _, v := range streams[i] {
						select {
						case rows[i] <- v:
						case <-ctx.Done():
							return
						}
					}
				}()
			}
			mergeHeads(k, func(i int) (int, bool) {
				v, ok := <-rows[i]
				return v, ok
			})
			cancel()
		}
	}
}

func BenchmarkMerge(b *testing.B) {
	for _, k := range []int{16, 64} {
		for name, op := range map[string]ratio.Op{
			"floor": heapMerge(k), "evenkeel": gatherMerge(k), "evenkeel-batches": gatherMergeBatches(k), "evenkeel-stream": gatherStream(b, k), "channels": channelMerge(k),
		} {
			b.Run(fmt.Sprintf("impl=%s/streams=%d", name, k), run(op))
		}
	}
}

func TestRatioMerge(t *testing.T) {
	// A merge takes longer than the slices of AtMost.
	atMost := func(name string, limit float64, ours, peer ratio.Op) {
		t.Run(name, func(t *testing.T) { ratio.AtMostSlices(t, limit, ours, peer, 5*time.Millisecond, 101) })
	}
	atMost("16 streams against container/heap over slices", 1.2, gatherMerge(16), heapMerge(16))
	atMost("64 streams against container/heap over slices", 0.75, gatherMerge(64), heapMerge(64))
	atMost("16 streams in batches against container/heap over slices", 1, gatherMergeBatches(16), heapMerge(16))
	atMost("64 streams in batches against container/heap over slices", 0.75, gatherMergeBatches(64), heapMerge(64))
	atMost("Stream of 16 shards against a goroutine and a channel of rows each", 0.8, gatherStream(t, 16), channelMerge(16))
	atMost("16 streams against a goroutine and a channel of rows each", 0.3, gatherMerge(16), channelMerge(16))
	atMost("64 streams against a goroutine and a channel of rows each", 0.3, gatherMerge(64), channelMerge(64))
}
