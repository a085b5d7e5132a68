package coalesce_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

func TestPanicWithANilPanicErrorIsAPanic(t *testing.T) {
	var g coalesce.Group[string, int]
	r := g.DoResult(t.Context(), "k", func(context.Context) (int, error) { panic((*coalesce.PanicError)(nil)) })
	require.NotErrorIs(t, r.Err, coalesce.ErrGoexit)
	require.EqualValues(t, 1, g.Stats().Panics)
}

func TestInlineFlightWithATimeoutHasItsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, int]{Timeout: time.Hour}
		go g.DoResult(context.Background(), "k", slow(1))
		time.Sleep(500 * time.Millisecond)
		for _, f := range g.Flights() {
			require.Equal(t, 500*time.Millisecond, f.Age)
		}
		time.Sleep(time.Second)
	})
}

// The first end of a context counts, also if it is asked after the second.
func TestAbandonedBeforeTheTimeoutAndAskedAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, int]{Timeout: 10 * time.Second}
		ctx, leave := context.WithCancel(t.Context())
		cause := make(chan error, 1)
		a := g.DoChan(ctx, "k", func(ctx context.Context) (int, error) {
			time.Sleep(20 * time.Second)
			cause <- context.Cause(ctx)
			return 0, nil
		})
		time.Sleep(time.Second)
		leave()
		<-a
		require.Equal(t, coalesce.ErrAbandoned, <-cause)
	})
}

// A fetch that has landed waits for nothing.
func TestDescendantOfAFetchThatHasLandedMayLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b coalesce.Batcher[int, int]
		var kept context.Context
		b.Fetch = func(ctx context.Context, _ []int) (map[int]int, error) {
			kept = context.WithoutCancel(ctx)
			return map[int]int{1: 1}, nil
		}
		_, err := b.Load(t.Context(), 1)
		require.NoError(t, err)
		_, err = b.Load(kept, 1)
		require.NoError(t, err)
	})
}

// The other keys must not be taken for keys without a value.
func TestErrorsJoinedWithAnotherErrorHideNothing(t *testing.T) {
	b := coalesce.Batcher[int, int]{Fetch: func(context.Context, []int) (map[int]int, error) {
		return nil, errors.Join(coalesce.Errors[int]{1: errWork}, io.ErrUnexpectedEOF)
	}}
	_, res := results(b.LoadAll(t.Context(), []int{1, 2}))
	require.ErrorIs(t, res[1].Err, io.ErrUnexpectedEOF)
}

// A hook that ends its goroutine, such as require in a test, does not lock the key.
func TestGoexitInTheStartHookFreesTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, int]{Trace: &coalesce.Trace[string]{Start: func(context.Context, string) { runtime.Goexit() }}}
		go g.DoResult(context.Background(), "k", slow(1))
		synctest.Wait()
		require.Zero(t, g.Listed())
	})
}
