package benchmarks

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/bufbuild/httplb/conn"
	"github.com/bufbuild/httplb/picker"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/selector"
	"github.com/go-kratos/kratos/v2/selector/p2c"
	"github.com/mroth/weightedrand/v2"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/benchmarks/ratio"
)

func balancer(t testing.TB, s balance.Strategy, n int, weight func(i int) float64) *balance.Balancer[int] {
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
	s := p2c.New()
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

// floorP2C is what two choices cannot do without.
func floorP2C(n int) ratio.Op {
	type cell struct {
		n atomic.Int64
		_ [56]byte
	}
	cells := make([]cell, n)
	return func(times int) {
		for range times {
			bits := rand.Uint64()
			i, j := uint64(uint32(bits))*uint64(n)>>32, bits>>32*uint64(n)>>32
			if cells[j].n.Load() < cells[i].n.Load() {
				i = j
			}
			cells[i].n.Add(1)
			cells[i].n.Add(-1)
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

func BenchmarkBalancePick(b *testing.B) {
	for name, op := range map[string]ratio.Op{
		"floor": floorP2C(backends), "evenkeel": pickDone(balancer(b, balance.LeastRequest(balance.LeastRequestOptions{}), backends, same)),
		"httplb": httplbP2C(backends), "kratos": kratosP2C(backends),
	} {
		b.Run(fmt.Sprintf("impl=%s/strategy=p2c/backends=%d", name, backends), run(op))
	}
}

// run makes a benchmark of an operation.
func run(op ratio.Op) func(*testing.B) {
	return func(b *testing.B) {
		b.ReportAllocs()
		op(b.N)
	}
}

func TestRatioBalance(t *testing.T) {
	ours := pickDone(balancer(t, balance.LeastRequest(balance.LeastRequestOptions{}), backends, same))
	t.Run("p2c against its floor", func(t *testing.T) { ratio.AtMost(t, 1.7, ours, floorP2C(backends)) })
	t.Run("p2c against httplb", func(t *testing.T) { ratio.AtMost(t, 1, ours, httplbP2C(backends)) })
	t.Run("p2c against kratos", func(t *testing.T) { ratio.AtMost(t, 0.3, ours, kratosP2C(backends)) })
	t.Run("weighted random against weightedrand", func(t *testing.T) {
		ratio.AtMost(t, 1, pickDone(balancer(t, balance.Random(), 1000, func(i int) float64 { return float64(1 + i%10) })), weightedRand(t, 1000))
	})
}
