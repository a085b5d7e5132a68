package coalesce_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// Work that asks for its own key would wait for itself for ever.
func TestWorkThatAsksForItsOwnKeyIsTold(t *testing.T) {
	derive := map[string]func(context.Context) context.Context{
		"itself": func(ctx context.Context) context.Context { return ctx },
		"child": func(ctx context.Context) context.Context {
			ctx, cancel := context.WithTimeout(context.WithValue(ctx, traceKey{}, 1), time.Hour)
			context.AfterFunc(ctx, cancel)
			return ctx
		},
		"without cancel": context.WithoutCancel,
	}
	for name, with := range derive {
		for how, do := range doers {
			for _, max := range []int{0, 1, 2} {
				for _, background := range []bool{true, false} {
					synctest.Test(t, func(t *testing.T) {
						g := coalesce.Group[string, int]{MaxWaiters: max}
						ctx := t.Context()
						if background {
							ctx = context.Background()
						}
						v, err := g.Do(ctx, "k", func(ctx context.Context) (int, error) {
							r := do(&g, with(ctx), "k", mustNotRun)
							require.Equal(t, coalesce.Result[int]{Err: coalesce.ErrReentrant}, r, "%s %s %d", name, how, max)
							require.NoError(t, ctx.Err(), "the flight goes on")
							return 1, nil
						})
						require.NoError(t, err)
						require.Equal(t, 1, v)
						require.Equal(t, coalesce.Stats{Executions: 1}, g.Stats(), "nobody has joined")
					})
				}
			}
		}
	}
}

func TestReentrancyIsSeenThroughOtherKeysAndGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		var other coalesce.Group[int, int]
		_, err := g.Do(t.Context(), "a", func(ctx context.Context) (int, error) {
			return g.Do(ctx, "b", func(ctx context.Context) (int, error) {
				return other.Do(ctx, 1, func(ctx context.Context) (int, error) {
					_ = ctx.Err() // now the standard library's context is in between
					return g.Do(ctx, "a", mustNotRun)
				})
			})
		})
		require.ErrorIs(t, err, coalesce.ErrReentrant)
	})
}

func TestOtherKeysAndOtherGroupsAreNotReentrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g, twin coalesce.Group[string, int]
		v, err := g.Do(t.Context(), "a", func(ctx context.Context) (int, error) {
			x, err := g.Do(ctx, "b", func(context.Context) (int, error) { return 1, nil })
			require.NoError(t, err)
			// A flight of the same key that somebody else has started in another group.
			busy := twin.DoChan(t.Context(), "a", slow(10))
			y, err := twin.Do(ctx, "a", mustNotRun)
			require.NoError(t, err)
			<-busy
			return x + y, nil
		})
		require.NoError(t, err)
		require.Equal(t, 11, v)
	})
}

// The values of a flight that is over do not bar its descendants from the next
// flight of the key.
func TestDescendantOfAnEarlierFlightMayJoinALaterOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		var kept context.Context
		_, err := g.Do(t.Context(), "k", func(ctx context.Context) (int, error) { kept = context.WithoutCancel(ctx); return 0, nil })
		require.NoError(t, err)
		r := g.DoChan(t.Context(), "k", slow(1))
		v, err := g.Do(kept, "k", mustNotRun)
		require.NoError(t, err)
		require.Equal(t, 1, v)
		<-r
	})
}

// Being told is not leaving: the caller that asks for its own key never counts
// as the last one.
func TestReentrantCallerDoesNotAbandonTheFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		r := g.DoChan(t.Context(), "k", func(ctx context.Context) (int, error) {
			for range 10 {
				_, err := g.Do(ctx, "k", mustNotRun)
				require.ErrorIs(t, err, coalesce.ErrReentrant)
			}
			return 1, ctx.Err()
		})
		require.Equal(t, coalesce.Result[int]{Val: 1, Waiters: 1}, <-r)
		require.Zero(t, g.Stats().Abandoned)
	})
}
