package ratio_test

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/benchmarks/ratio"
)

var sink uint64

// work does rounds of arithmetic that the compiler cannot remove.
func work(rounds int) ratio.Op {
	return func(n int) {
		x := sink
		for range n * rounds {
			x = x*6364136223846793005 + 1442695040888963407
		}
		sink = x
	}
}

// The harness must find a ratio that is known by construction. A wrong harness would
// be off by far more than the margin.
func TestMeasureFindsAKnownRatio(t *testing.T) {
	for _, c := range []struct {
		a, b int
		want float64
	}{{300, 100, 3}, {100, 100, 1}, {100, 400, 0.25}} {
		require.InEpsilon(t, c.want, ratio.Measure(work(c.a), work(c.b)).Ratio, 0.15)
	}
}

// So must it for operations that are longer than its usual slices, and start goroutines.
func TestMeasureSlicesFindsAKnownRatio(t *testing.T) {
	crowd := func(goroutines int) ratio.Op {
		return func(n int) {
			for range n {
				var all sync.WaitGroup
				for range goroutines {
					all.Go(func() {
						x := uint64(goroutines)
						for range 100_000 {
							x = x*6364136223846793005 + 1442695040888963407
						}
						runtime.KeepAlive(x)
					})
				}
				all.Wait()
			}
		}
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	require.InEpsilon(t, 3, ratio.MeasureSlices(crowd(12), crowd(4), 2*time.Millisecond, 101).Ratio, 0.15)
}

type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Logf(string, ...any)   {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func TestAtMostFailsOnlyAboveTheLimit(t *testing.T) {
	r := &recorder{}
	ratio.AtMost(r, 2, work(100), work(100))
	require.False(t, r.failed)
	ratio.AtMost(r, 2, work(400), work(100))
	require.True(t, r.failed)
}
