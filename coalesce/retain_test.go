package coalesce_test

import (
	"context"
	"runtime"
	"testing"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// What is reused keeps nothing alive: neither the functions, nor the contexts,
// nor the values of callers that are done.
func TestNothingOfACallerIsRetained(t *testing.T) {
	var g coalesce.Group[string, *[1 << 10]byte]
	detached := t.Context()
	once := func() (fn, ctx, val weak.Pointer[[1 << 10]byte]) {
		inFn, inCtx, result := new([1 << 10]byte), new([1 << 10]byte), new([1 << 10]byte)
		finish := make(chan struct{})
		work := func(context.Context) (*[1 << 10]byte, error) {
			<-finish
			inFn[0]++
			return result, nil
		}
		var results []<-chan coalesce.Result[*[1 << 10]byte]
		for range 4 {
			results = append(results, g.DoChan(context.WithValue(detached, traceKey{}, inCtx), "k", work))
		}
		close(finish)
		for _, r := range results {
			<-r
		}
		return weak.Make(inFn), weak.Make(inCtx), weak.Make(result)
	}
	fn, ctx, val := once()
	// One collection leaves a sync.Pool's content alive; what the pool holds must
	// not matter. The goroutines of the flight may need a moment to be gone.
	for range 100 {
		runtime.GC()
		if fn.Value() == nil && ctx.Value() == nil && val.Value() == nil {
			break
		}
		once() // keeps the pool's content in use
	}
	require.Nil(t, fn.Value())
	require.Nil(t, ctx.Value())
	require.Nil(t, val.Value())
}
