package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// wrong is work that makes the common mistake: it obeys the context of its
// caller and not the one that it is given.
func wrong(outer context.Context) func(context.Context) (int, error) {
	return func(context.Context) (int, error) {
		<-outer.Done()
		return 0, fmt.Errorf("query: %w", outer.Err())
	}
}

func slow(v int) func(context.Context) (int, error) {
	return func(context.Context) (int, error) { time.Sleep(time.Second); return v, nil }
}

func TestEndOfTheStartersContextIsNotSharedWithTheLiving(t *testing.T) {
	died := errors.New("the starter's own reason")
	ends := map[string]func() (context.Context, func()){
		"cancelled": func() (context.Context, func()) {
			ctx, cancel := context.WithCancel(context.Background())
			return ctx, cancel
		},
		"deadline": func() (context.Context, func()) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			return ctx, func() { time.Sleep(time.Minute); cancel() }
		},
		"cause": func() (context.Context, func()) {
			ctx, cancel := context.WithCancelCause(context.Background())
			return ctx, func() { cancel(died) }
		},
	}
	for end, with := range ends {
		for how, do := range doers {
			t.Run(end+"/"+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var g coalesce.Group[string, int]
					for round := range int64(3) { // what is reused has forgotten the last one
						ctx, die := with()
						starter := g.DoChan(ctx, "k", func(context.Context) (int, error) {
							<-ctx.Done()
							if end == "cause" {
								return 0, fmt.Errorf("query: %w", context.Cause(ctx))
							}
							return wrong(ctx)(ctx)
						})
						var living []*seen
						for i := range 6 {
							ctx := context.Background()
							if i%2 == 0 {
								ctx = t.Context()
							}
							living = append(living, observe(func() coalesce.Result[int] { return do(&g, ctx, "k", slow(7)) }))
						}
						synctest.Wait()
						require.Equal(t, coalesce.Stats{Executions: 2*round + 1, Joined: 7*round + 6, InFlight: 1}, g.Stats())
						die()
						require.ErrorIs(t, (<-starter).Err, ctx.Err())
						synctest.Wait()
						require.Equal(t, 1, g.Listed(), "the second flight can be joined as the first could")
						late := g.DoChan(t.Context(), "k", mustNotRun)
						time.Sleep(time.Second)
						synctest.Wait()
						for _, s := range living {
							require.True(t, s.returned)
							require.NoError(t, s.result.Err)
							require.Equal(t, 7, s.result.Val)
						}
						require.Equal(t, coalesce.Result[int]{Val: 7, Shared: true, Waiters: 7}, <-late)
						require.Equal(t, coalesce.Stats{Executions: 2*round + 2, Joined: 7*round + 7}, g.Stats(), "started again once, not by each")
					}
				})
			})
		}
	}
}

// The caller that starts the work again is one that lives: one whose context has
// ended, but which has not left yet, is passed over.
func TestSecondStartHasTheValuesOfALivingCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, any]
		dying, die := context.WithCancel(context.WithValue(t.Context(), traceKey{}, "dead"))
		a := g.DoChan(dying, "k", func(context.Context) (any, error) { <-dying.Done(); return nil, dying.Err() })
		living := context.WithValue(t.Context(), traceKey{}, "living")
		b := g.DoChan(living, "k", func(ctx context.Context) (any, error) {
			time.Sleep(time.Second)
			return ctx.Value(traceKey{}), ctx.Err()
		})
		h := held{dying, make(chan struct{})}
		c := make(chan error, 1)
		go func() {
			_, err := g.Do(h, "k", func(context.Context) (any, error) { return "of a dead caller", nil })
			c <- err
		}()
		synctest.Wait()
		die()
		require.ErrorIs(t, (<-a).Err, context.Canceled)
		require.Equal(t, "living", (<-b).Val)
		close(h.until)
		require.ErrorIs(t, <-c, context.Canceled)
		require.EqualValues(t, 2, g.Stats().Executions)
	})
}

// A caller goes through a second start once. Should that starter die in the
// same way, the caller gets the error; one that came later is not so far yet.
func TestSecondStartIsTheLastForACaller(t *testing.T) {
	for _, newcomer := range []string{"living", "dead"} {
		t.Run(newcomer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var g coalesce.Group[string, int]
				one, endOne := context.WithCancel(t.Context())
				first := g.DoChan(one, "k", wrong(one))
				// Two callers of which either may start the work the second time.
				var starter int
				ctxs, ends, out := [2]context.Context{}, [2]func(){}, [2]<-chan coalesce.Result[int]{}
				for i := range 2 {
					ctxs[i], ends[i] = context.WithCancel(t.Context())
					defer ends[i]()
					out[i] = g.DoChan(ctxs[i], "k", func(ctx context.Context) (int, error) {
						starter = i
						return wrong(ctxs[i])(ctx)
					})
				}
				endOne()
				require.ErrorIs(t, (<-first).Err, context.Canceled)
				synctest.Wait()

				h := held{t.Context(), make(chan struct{})}
				if newcomer == "dead" {
					h.Context = ctxs[starter]
				}
				late := observe(func() coalesce.Result[int] { return g.DoResult(h, "k", slow(4)) })
				synctest.Wait()
				ends[starter]()
				require.ErrorIs(t, (<-out[starter]).Err, context.Canceled)
				require.ErrorContains(t, (<-out[1-starter]).Err, "query: context canceled")
				close(h.until)
				time.Sleep(time.Second)
				synctest.Wait()
				if newcomer == "living" {
					require.Equal(t, coalesce.Result[int]{Val: 4, Waiters: 1}, late.result)
					require.EqualValues(t, 3, g.Stats().Executions)
				} else {
					require.Equal(t, coalesce.Result[int]{Err: context.Canceled}, late.result)
					require.EqualValues(t, 2, g.Stats().Executions)
				}
			})
		})
	}
}

func TestErrorThatIsNotTheStartersEndIsShared(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		dies bool
	}{
		"an error of the work, starter dead":    {io.ErrUnexpectedEOF, true},
		"a deadline of the work, starter gone":  {context.DeadlineExceeded, true},
		"a cancellation, starter alive":         {context.Canceled, false},
		"a deadline of the work, starter alive": {context.DeadlineExceeded, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var g coalesce.Group[string, int]
				ctx, die := context.WithCancel(t.Context())
				defer die()
				finish := make(chan struct{})
				a := g.DoChan(ctx, "k", func(context.Context) (int, error) { <-finish; return 0, c.err })
				b := g.DoChan(t.Context(), "k", mustNotRun)
				if c.dies {
					die()
					<-a
				}
				close(finish)
				require.Equal(t, c.err, (<-b).Err)
				require.EqualValues(t, 1, g.Stats().Executions)
			})
		})
	}
}

// The work's own context ended: that is an answer for all, whoever is dead.
func TestTimeoutIsSharedThoughTheStarterIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, int]{Timeout: time.Minute}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a := g.DoChan(ctx, "k", func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		b := g.DoChan(t.Context(), "k", mustNotRun)
		<-a
		require.Equal(t, coalesce.Result[int]{Err: context.DeadlineExceeded, Waiters: 1}, <-b)
		require.EqualValues(t, 1, g.Stats().Executions)
	})
}

func TestNothingIsStartedAgainForTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		ctx, die := context.WithCancel(t.Context())
		a, b := g.DoChan(ctx, "k", wrong(ctx)), g.DoChan(ctx, "k", mustNotRun)
		die()
		require.ErrorIs(t, (<-a).Err, context.Canceled)
		require.ErrorIs(t, (<-b).Err, context.Canceled)
		synctest.Wait()
		require.EqualValues(t, 1, g.Stats().Executions)
		require.Zero(t, g.Stats().InFlight)
	})
}

// Nothing of the first start is left in what the second comes to.
func TestSecondStartThatDoesNotReturnHasNoValue(t *testing.T) {
	for want, second := range map[error]func(context.Context) (int, error){
		io.EOF:             throwEOF,
		coalesce.ErrGoexit: func(context.Context) (int, error) { runtime.Goexit(); return 0, nil },
	} {
		synctest.Test(t, func(t *testing.T) {
			var g coalesce.Group[string, int]
			ctx, die := context.WithCancel(t.Context())
			a := g.DoChan(ctx, "k", func(context.Context) (int, error) { <-ctx.Done(); return 9, ctx.Err() })
			b := g.DoChan(t.Context(), "k", func(ctx context.Context) (int, error) { time.Sleep(time.Second); return second(ctx) })
			die()
			require.Equal(t, context.Canceled, (<-a).Err)
			r := <-b
			require.ErrorIs(t, r.Err, want)
			require.Zero(t, r.Val)
		})
	}
}

// The callers of a forgotten flight whose starter died do not start a third:
// they join the one that began after the Forget, which is fresher than they may
// ask.
func TestCallersOfAForgottenOrphanJoinTheFlightThatFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		ctx, die := context.WithCancel(t.Context())
		a := g.DoChan(ctx, "k", wrong(ctx))
		b := g.DoChan(t.Context(), "k", mustNotRun)
		g.Forget("k")
		c := g.DoChan(t.Context(), "k", slow(3))
		die()
		<-a
		synctest.Wait()
		require.Equal(t, 1, g.Listed())
		d := g.DoChan(t.Context(), "k", mustNotRun)
		want := coalesce.Result[int]{Val: 3, Shared: true, Waiters: 3}
		require.Equal(t, want, <-b)
		require.Equal(t, want, <-c)
		require.Equal(t, want, <-d)
		require.Equal(t, coalesce.Stats{Executions: 2, Joined: 2}, g.Stats())
	})
}

// The flight that was started again ends with its own last caller.
func TestSecondStartIsAbandonedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, int]{Timeout: time.Hour}
		one, endOne := context.WithCancel(t.Context())
		two, endTwo := context.WithCancel(t.Context())
		cause := make(chan error, 1)
		a := g.DoChan(one, "k", wrong(one))
		time.Sleep(time.Minute)
		b := g.DoChan(two, "k", func(ctx context.Context) (int, error) {
			d, _ := ctx.Deadline()
			require.Equal(t, time.Hour, time.Until(d), "a Timeout of its own")
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return 0, ctx.Err()
		})
		endOne()
		<-a
		synctest.Wait()
		for _, f := range g.Flights() {
			require.Equal(t, coalesce.Flight{Age: 0, Waiters: 1}, f)
		}
		endTwo()
		require.ErrorIs(t, (<-b).Err, context.Canceled)
		require.Equal(t, coalesce.ErrAbandoned, <-cause)
		synctest.Wait()
		require.Equal(t, coalesce.Stats{Executions: 2, Joined: 1, Abandoned: 1}, g.Stats())
	})
}

// timeless is a context that claims to have ended but has no Done.
type timeless struct{ context.Context }

func (timeless) Done() <-chan struct{} { return nil }
func (timeless) Err() error            { return context.Canceled }

// A caller that runs the work inline gets what the work came to, and nothing
// that another caller's work came to later.
func TestInlineStarterKeepsItsOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		finish := make(chan struct{})
		a := observe(func() coalesce.Result[int] {
			return g.DoResult(timeless{t.Context()}, "k", func(context.Context) (int, error) { <-finish; return 0, context.Canceled })
		})
		synctest.Wait()
		b := g.DoChan(t.Context(), "k", mustNotRun)
		close(finish)
		require.Equal(t, context.Canceled, (<-b).Err)
		synctest.Wait()
		require.Equal(t, coalesce.Result[int]{Err: context.Canceled, Shared: true, Waiters: 2}, a.result)
	})
}
