package coalesce_test

// With Exclusive, the function of a caller that is refused with ErrReentrant never
// runs for those who joined in the moment of its refusal.

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

type slowValue struct {
	context.Context
	until chan struct{}
}

func (s slowValue) Value(key any) any { <-s.until; return s.Context.Value(key) }

func TestFunctionOfARefusedCallerNeverRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, string]{Abandon: coalesce.Exclusive}
		until, finish := make(chan struct{}), make(chan struct{})
		refused := make(chan error, 1)
		a := g.DoChan(t.Context(), "k", func(ctx context.Context) (string, error) {
			g.Forget("k")
			go func() {
				_, err := g.Do(slowValue{ctx, until}, "k", func(context.Context) (string, error) { return "of the refused", nil })
				refused <- err
			}()
			<-finish
			return "first", nil
		})
		synctest.Wait()
		b := g.DoChan(t.Context(), "k", func(context.Context) (string, error) { return "of b", nil })
		close(until)
		require.ErrorIs(t, <-refused, coalesce.ErrReentrant)
		close(finish)
		<-a
		require.Equal(t, "of b", (<-b).Val)
	})
}
