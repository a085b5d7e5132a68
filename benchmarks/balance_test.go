package benchmarks

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bufbuild/httplb/conn"
	"github.com/bufbuild/httplb/picker"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/selector"
	kratos "github.com/go-kratos/kratos/v2/selector/p2c"
	"github.com/mroth/weightedrand/v2"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/benchmarks/ratio"
)

func evenkeel(t testing.TB, s balance.Strategy, n int, weight func(i int) float64) *balance.Balancer[int] {
	b, err := balance.New[int](s, balance.Options{})
	require.NoError(t, err)
	set := make([]balance.Backend[int], n)
	for i := range set {
		set[i] = balance.Backend[int]{ID: fmt.Sprint(i), Value: i, Weight: weight(i)}
	}
	require.NoError(t, b.Update(set))
	return b
}

func same(int) float64 { return 1 }

func pickDone(b *balance.Balancer[int]) ratio.Op {
	return func(n int) {
		for range n {
			p, err := b.Pick()
			if err != nil {
				panic(err)
			}
			p.Done(nil)
		}
	}
}

// conns is a set of connections as httplb's pickers take it. They are never used.
type conns []conn.Conn

func (c conns) Len() int            { return len(c) }
func (c conns) Get(i int) conn.Conn { return c[i] }

type noConn struct {
	conn.Conn
	_ int // distinct addresses: the picker keys its state by them
}

func httplbP2C(n int) ratio.Op {
	set := make(conns, n)
	for i := range set {
		set[i] = &noConn{}
	}
	p := picker.NewPowerOfTwo(nil, set)
	return func(n int) {
		for range n {
			_, done, err := p.Pick(nil)
			if err != nil {
				panic(err)
			}
			done()
		}
	}
}

func kratosP2C(n int) ratio.Op {
	nodes := make([]selector.Node, n)
	for i := range nodes {
		addr := fmt.Sprintf("10.0.%d.%d:80", i/256, i%256)
		nodes[i] = selector.NewNode("http", addr, &registry.ServiceInstance{ID: addr})
	}
	s := kratos.New()
	s.Apply(nodes)
	ctx := context.Background()
	return func(n int) {
		for range n {
			_, done, err := s.Select(ctx)
			if err != nil {
				panic(err)
			}
			done(ctx, selector.DoneInfo{})
		}
	}
}

// cells are counters that each have a cache line.
type cells []struct {
	n, latency atomic.Int64
	_          [48]byte
}

// twoOf draws two and returns the one with the lower count.
func (c cells) twoOf() int {
	bits := rand.Uint64()
	n := uint64(len(c))
	i, j := uint64(uint32(bits))*n>>32, bits>>32*n>>32
	if c[j].n.Load() < c[i].n.Load() {
		return int(j)
	}
	return int(i)
}

// floorP2C is what two choices cannot do without.
func floorP2C(n int) ratio.Op {
	c := make(cells, n)
	return func(times int) {
		for range times {
			i := c.twoOf()
			c[i].n.Add(1)
			c[i].n.Add(-1)
		}
	}
}

// floorLatency is floorP2C and what a latency cannot do without: two looks at the
// clock.
func floorLatency(n int) ratio.Op {
	c := make(cells, n)
	epoch := time.Now()
	return func(times int) {
		for range times {
			start := time.Since(epoch)
			i := c.twoOf()
			c[i].n.Add(1)
			c[i].latency.Store(int64(time.Since(epoch) - start))
			c[i].n.Add(-1)
		}
	}
}

func weightedRand(t testing.TB, n int) ratio.Op {
	choices := make([]weightedrand.Choice[int, int], n)
	for i := range choices {
		choices[i] = weightedrand.NewChoice(i, 1+i%10)
	}
	c, err := weightedrand.NewChooser(choices...)
	require.NoError(t, err)
	return func(n int) {
		for range n {
			sink += uint64(c.Pick())
		}
	}
}

var sink uint64

const backends = 100

func p2c(t testing.TB, n int) ratio.Op {
	return pickDone(evenkeel(t, balance.LeastRequest(balance.LeastRequestOptions{}), n, same))
}

func latency(t testing.TB, n int) ratio.Op {
	return pickDone(evenkeel(t, balance.LeastLatency(balance.LatencyOptions{}), n, same))
}

func roundRobin(t testing.TB, n int) ratio.Op {
	return pickDone(evenkeel(t, balance.RoundRobin(), n, same))
}

func BenchmarkBalancePick(b *testing.B) {
	for _, row := range []struct {
		impl, strategy string
		op             ratio.Op
	}{
		{"floor", "p2c", floorP2C(backends)},
		{"evenkeel", "p2c", p2c(b, backends)},
		{"httplb", "p2c", httplbP2C(backends)},
		{"grpc", "p2c", grpcLeastRequest(b, backends)},
		{"gozero", "p2c", goZeroP2C(b, backends)},
		{"kratos", "p2c", kratosP2C(backends)},
		{"floor", "latency", floorLatency(backends)},
		{"evenkeel", "latency", latency(b, backends)},
		{"evenkeel", "roundrobin", roundRobin(b, backends)},
		{"grpc", "roundrobin", grpcRoundRobin(b, backends)},
	} {
		b.Run(fmt.Sprintf("impl=%s/strategy=%s/backends=%d", row.impl, row.strategy, backends), run(row.op))
	}
}

// run makes a benchmark of an operation.
func run(op ratio.Op) func(*testing.B) {
	return func(b *testing.B) {
		b.ReportAllocs()
		op(b.N)
	}
}

// The bounds leave room for a busy machine; the ratios that they are the bounds of are
// printed.
func TestRatioBalance(t *testing.T) {
	for _, n := range []int{4, 100, 1000} {
		t.Run(fmt.Sprintf("p2c against its floor, %d backends", n), func(t *testing.T) {
			ratio.AtMost(t, 2.6, p2c(t, n), floorP2C(n))
		})
	}
	t.Run("least latency against its floor", func(t *testing.T) {
		ratio.AtMost(t, 3.2, latency(t, backends), floorLatency(backends))
	})
	t.Run("p2c against httplb", func(t *testing.T) { ratio.AtMost(t, 0.9, p2c(t, backends), httplbP2C(backends)) })
	t.Run("p2c against grpc", func(t *testing.T) { ratio.AtMost(t, 0.4, p2c(t, backends), grpcLeastRequest(t, backends)) })
	t.Run("p2c against go-zero", func(t *testing.T) { ratio.AtMost(t, 0.2, p2c(t, backends), goZeroP2C(t, backends)) })
	t.Run("p2c against kratos", func(t *testing.T) { ratio.AtMost(t, 0.2, p2c(t, backends), kratosP2C(backends)) })
	t.Run("least latency against go-zero", func(t *testing.T) { ratio.AtMost(t, 0.7, latency(t, backends), goZeroP2C(t, backends)) })
	t.Run("round robin against grpc", func(t *testing.T) { ratio.AtMost(t, 4, roundRobin(t, backends), grpcRoundRobin(t, backends)) })
	t.Run("weighted random against weightedrand", func(t *testing.T) {
		ratio.AtMost(t, 1, pickDone(evenkeel(t, balance.Random(), 1000, func(i int) float64 { return float64(1 + i%10) })), weightedRand(t, 1000))
	})
}
