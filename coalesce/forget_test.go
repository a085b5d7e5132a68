package coalesce_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// until returns work that ends with v when the channel is closed, whatever its
// context says.
func until(finish <-chan struct{}, v int) func(context.Context) (int, error) {
	return func(context.Context) (int, error) { <-finish; return v, nil }
}

func TestForgottenFlightStillServesItsCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		finish := make(chan struct{})
		a, b := g.DoChan(t.Context(), "k", until(finish, 1)), g.DoChan(t.Context(), "k", mustNotRun)
		require.True(t, g.Forget("k"))
		require.False(t, g.Forget("k"), "there is none any more")
		c := g.DoChan(t.Context(), "k", until(finish, 2))
		synctest.Wait()
		require.EqualValues(t, 2, g.Stats().InFlight)
		close(finish)
		require.Equal(t, 1, (<-a).Val)
		require.Equal(t, 1, (<-b).Val)
		require.Equal(t, 2, (<-c).Val)
	})
}

// A forgotten flight that ends must not take its successor out of the table:
// golang/go#31420.
func TestForgottenFlightEndsWithoutRemovingItsSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		first, second := make(chan struct{}), make(chan struct{})
		a := g.DoChan(t.Context(), "k", until(first, 1))
		g.Forget("k")
		b := g.DoChan(t.Context(), "k", until(second, 2))
		close(first)
		require.Equal(t, 1, (<-a).Val)
		synctest.Wait()
		require.Equal(t, 1, g.Listed())
		c := g.DoChan(t.Context(), "k", mustNotRun) // joins b
		close(second)
		require.Equal(t, coalesce.Result[int]{Val: 2, Shared: true, Waiters: 2}, <-b)
		require.Equal(t, coalesce.Result[int]{Val: 2, Shared: true, Waiters: 2}, <-c)
	})
}

func TestForgottenFlightIsAbandonedWithoutRemovingItsSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		ctx, leave := context.WithCancel(t.Context())
		cause := make(chan error, 1)
		a := g.DoChan(ctx, "k", func(ctx context.Context) (int, error) {
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return 0, ctx.Err()
		})
		g.Forget("k")
		finish := make(chan struct{})
		b := g.DoChan(t.Context(), "k", until(finish, 2))
		leave()
		require.ErrorIs(t, (<-a).Err, context.Canceled)
		require.Equal(t, coalesce.ErrAbandoned, <-cause)
		c := g.DoChan(t.Context(), "k", mustNotRun)
		close(finish)
		require.Equal(t, 2, (<-b).Val)
		require.Equal(t, 2, (<-c).Val)
	})
}

func TestForgetFromWithinTheWork(t *testing.T) {
	var g coalesce.Group[string, int]
	v, err := g.Do(context.Background(), "k", func(ctx context.Context) (int, error) {
		require.True(t, g.Forget("k"))
		return g.Do(ctx, "k", func(context.Context) (int, error) { return 2, nil }) // another flight
	})
	require.NoError(t, err)
	require.Equal(t, 2, v)
	require.EqualValues(t, 2, g.Stats().Executions)
}

// An abandoned flight whose work does not stop overlaps with the next one of
// its key, and with no more than the statistics tell.
func TestAbandonedWorkThatGoesOnIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		finish := make(chan struct{})
		for i := range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := g.Do(ctx, "k", until(finish, 1))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
			require.Equal(t, coalesce.Stats{Executions: int64(i + 1), Abandoned: int64(i + 1), InFlight: int64(i + 1)}, g.Stats())
			require.Zero(t, g.Listed(), "nobody can join a flight whose context has ended")
		}
		close(finish)
		synctest.Wait()
		require.Zero(t, g.Stats().InFlight)
	})
}
