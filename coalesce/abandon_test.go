package coalesce_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

func TestKeepRunningFinishesForNobodyAndForThoseWhoComeLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, int]{Abandon: coalesce.KeepRunning}
		ctx, leave := context.WithCancel(t.Context())
		finish := make(chan struct{})
		var ended error
		a := g.DoChan(ctx, "k", func(ctx context.Context) (int, error) {
			<-finish
			ended = ctx.Err()
			return 1, nil
		})
		leave()
		require.ErrorIs(t, (<-a).Err, context.Canceled)
		b := g.DoChan(t.Context(), "k", mustNotRun) // joins the work that nobody waited for
		close(finish)
		require.Equal(t, coalesce.Result[int]{Val: 1, Waiters: 1}, <-b)
		require.NoError(t, ended)
		require.Zero(t, g.Stats().Abandoned)
	})
}

func TestExclusiveStartsNoSecondExecutionBeforeTheFirstHasReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, int]{Abandon: coalesce.Exclusive}
		ctx, leave := context.WithCancel(t.Context())
		finish := make(chan struct{})
		a := g.DoChan(ctx, "k", until(finish, 1))
		leave()
		require.ErrorIs(t, (<-a).Err, context.Canceled)

		b := g.DoChan(t.Context(), "k", func(context.Context) (int, error) { return 2, nil })
		c := observe(func() coalesce.Result[int] { // cannot run inline: the first still runs
			return g.DoResult(context.Background(), "k", mustNotRun)
		})
		synctest.Wait()
		require.EqualValues(t, 1, g.Stats().Executions)
		close(finish)
		want := coalesce.Result[int]{Val: 2, Shared: true, Waiters: 2}
		require.Equal(t, want, <-b)
		synctest.Wait()
		require.Equal(t, want, c.result)
		require.EqualValues(t, 2, g.Stats().Executions)
	})
}

func TestExclusiveSuccessorThatAllHaveLeftNeverRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, int]{Abandon: coalesce.Exclusive}
		finish := make(chan struct{})
		a := g.DoChan(t.Context(), "k", until(finish, 1))
		require.True(t, g.Forget("k"))
		ctx, leave := context.WithCancel(t.Context())
		b := g.DoChan(ctx, "k", mustNotRun)
		require.False(t, g.Forget("k"), "it has not begun, so it cannot miss a write")
		leave()
		require.ErrorIs(t, (<-b).Err, context.Canceled)
		close(finish)
		require.Equal(t, 1, (<-a).Val)
		synctest.Wait()
		require.EqualValues(t, 1, g.Stats().Executions)
		require.Zero(t, g.Stats().Abandoned)
		require.Zero(t, g.Listed())
	})
}

// The work of a forgotten flight that asks for its own key would wait for a
// flight that waits for it.
func TestExclusiveWorkThatAsksForItsForgottenKeyIsReentrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, int]{Abandon: coalesce.Exclusive}
		v, err := g.Do(t.Context(), "k", func(ctx context.Context) (int, error) {
			g.Forget("k")
			return g.Do(ctx, "k", mustNotRun)
		})
		require.ErrorIs(t, err, coalesce.ErrReentrant)
		require.Zero(t, v)
		require.Equal(t, coalesce.Stats{Executions: 1}, g.Stats())
	})
}

func TestExclusiveBoundsTheCallersThatWaitForTheNextFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, int]{Abandon: coalesce.Exclusive, MaxWaiters: 1}
		finish := make(chan struct{})
		a := g.DoChan(t.Context(), "k", until(finish, 1))
		g.Forget("k")
		b := g.DoChan(t.Context(), "k", func(context.Context) (int, error) { return 2, nil })
		_, err := g.Do(t.Context(), "k", mustNotRun)
		require.ErrorIs(t, err, coalesce.ErrTooManyWaiters)
		close(finish)
		require.Equal(t, 1, (<-a).Val)
		require.Equal(t, 2, (<-b).Val)
	})
}

// When Goexit ends the goroutine of the first, the next begins nevertheless.
func TestExclusiveSuccessorBeginsHoweverTheFirstEnds(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := coalesce.Group[string, int]{Abandon: coalesce.Exclusive}
				finish := make(chan struct{})
				a := g.DoChan(t.Context(), "k", func(context.Context) (int, error) {
					<-finish
					return end()
				})
				g.Forget("k")
				b := g.DoChan(t.Context(), "k", func(context.Context) (int, error) { return 2, nil })
				close(finish)
				<-a
				require.Equal(t, coalesce.Result[int]{Val: 2, Waiters: 1}, <-b)
			})
		})
	}
}
