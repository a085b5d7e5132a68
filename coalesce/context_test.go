package coalesce_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// The work's context ends exactly when the last of its callers leaves, whatever
// the order and the distance in which they come and go. The model replays the
// callers on a line: a caller that comes before the end joins and may move it.
func TestWorkEndsExactlyWhenTheLastCallerLeaves(t *testing.T) {
	type caller struct{ comes, leaves time.Duration }
	type execution struct{ begin, end time.Duration }
	rapid.Check(t, func(t *rapid.T) {
		var callers []caller
		at := time.Duration(0)
		for range rapid.IntRange(1, 20).Draw(t, "callers") {
			// Even and odd, so that nobody comes at the moment of an end.
			at += 2 * time.Duration(rapid.IntRange(0, 20).Draw(t, "after"))
			stays := 1 + 2*time.Duration(rapid.IntRange(0, 30).Draw(t, "stays"))
			callers = append(callers, caller{at, at + stays})
		}
		var want []execution
		for _, c := range callers {
			if n := len(want); n == 0 || want[n-1].end < c.comes {
				want = append(want, execution{c.comes, c.leaves})
			} else {
				want[n-1].end = max(want[n-1].end, c.leaves)
			}
		}
		rapid.SyncTest(t, func(t *rapid.T) {
			var g coalesce.Group[string, int]
			begin := time.Now()
			var mu sync.Mutex
			var got []execution
			var all sync.WaitGroup
			for _, c := range callers {
				all.Go(func() {
					time.Sleep(c.comes)
					ctx, cancel := context.WithTimeout(context.Background(), c.leaves-c.comes)
					defer cancel()
					_, err := g.Do(ctx, "k", func(ctx context.Context) (int, error) {
						e := execution{begin: time.Since(begin)}
						_, hasDeadline := ctx.Deadline()
						<-ctx.Done()
						e.end = time.Since(begin)
						mu.Lock()
						defer mu.Unlock()
						got = append(got, e)
						if hasDeadline || ctx.Err() != context.Canceled || context.Cause(ctx) != coalesce.ErrAbandoned {
							t.Errorf("deadline %v, err %v, cause %v", hasDeadline, ctx.Err(), context.Cause(ctx))
						}
						return 0, ctx.Err()
					})
					if err != context.DeadlineExceeded || time.Since(begin) != c.leaves {
						t.Errorf("%v at %v, should leave at %v", err, time.Since(begin), c.leaves)
					}
				})
			}
			all.Wait()
			synctest.Wait()
			require.Equal(t, want, got)
			require.EqualValues(t, len(want), g.Stats().Abandoned)
		})
	})
}

func TestFirstCallerLeavingDoesNotHurtTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first := g.DoChan(ctx, "k", func(ctx context.Context) (int, error) {
			select {
			case <-time.After(time.Hour):
				return 1, ctx.Err()
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		})
		second := g.DoChan(t.Context(), "k", mustNotRun)
		require.Equal(t, context.DeadlineExceeded, (<-first).Err)
		require.Equal(t, coalesce.Result[int]{Val: 1, Waiters: 1}, <-second)
	})
}

type traceKey struct{}

// The work sees the values of the caller that started it, and of no other.
func TestWorkHasTheStartersValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, any]
		seen := make(chan any, 3)
		work := func(ctx context.Context) (any, error) {
			seen <- ctx.Value(traceKey{})
			_ = ctx.Err() // from now on the standard library does the work
			seen <- ctx.Value(traceKey{})
			child, cancel := context.WithCancel(ctx)
			defer cancel()
			seen <- child.Value(traceKey{})
			time.Sleep(time.Second)
			return ctx.Value(struct{}{}), nil // a key that nobody has
		}
		a := g.DoChan(context.WithValue(t.Context(), traceKey{}, "alice"), "k", work)
		b := g.DoChan(context.WithValue(t.Context(), traceKey{}, "bob"), "k", work)
		require.Nil(t, (<-a).Val)
		require.Nil(t, (<-b).Val)
		for range 3 {
			require.Equal(t, "alice", <-seen)
		}
	})
}

// Under the race detector: printing a context must not read what a caller that
// joins writes.
func TestWorksContextCanBePrinted(t *testing.T) {
	var g coalesce.Group[string, string]
	r := g.DoChan(t.Context(), "k", func(ctx context.Context) (string, error) {
		child, cancel := context.WithCancel(ctx)
		defer cancel()
		return fmt.Sprintf("%v %+v %v", ctx, ctx, child), nil
	})
	for range 100 {
		g.DoChan(t.Context(), "k", func(context.Context) (string, error) { return "", nil })
	}
	require.Equal(t, "coalesce.work coalesce.work coalesce.work.WithCancel", (<-r).Val)
}

func TestWorkHasNoCallersDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var g coalesce.Group[string, bool]
		r := g.DoResult(ctx, "k", func(ctx context.Context) (bool, error) {
			_, direct := ctx.Deadline()
			child, cancel := context.WithCancel(ctx)
			defer cancel()
			_, inherited := child.Deadline()
			return direct || inherited, nil
		})
		require.False(t, r.Val)
	})
}

// Timeout is the deadline of the work, inline and detached, and ends the work as
// context.WithTimeout would; the callers get what the work makes of it.
func TestTimeoutIsTheDeadlineOfTheWork(t *testing.T) {
	for name, background := range map[string]bool{"inline": true, "detached": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := coalesce.Group[string, int]{Timeout: time.Second}
				ctx := t.Context()
				if background {
					ctx = context.Background()
				}
				for range 2 { // the deadline counts from the flight, not from the first use
					begin := time.Now()
					var work context.Context
					r := g.DoResult(ctx, "k", func(ctx context.Context) (int, error) {
						work = ctx
						d, ok := ctx.Deadline()
						require.True(t, ok)
						require.Equal(t, time.Second, time.Until(d))
						time.Sleep(time.Second / 2)
						require.NoError(t, ctx.Err())
						<-ctx.Done()
						return 0, ctx.Err()
					})
					require.Equal(t, coalesce.Result[int]{Err: context.DeadlineExceeded, Waiters: 1}, r)
					require.Equal(t, time.Second, time.Since(begin))
					require.Equal(t, context.DeadlineExceeded, context.Cause(work))
					time.Sleep(time.Minute)
				}
				require.Zero(t, g.Stats().Abandoned)
			})
		})
	}
}

func TestLongestTimeoutDoesNotOverflow(t *testing.T) {
	g := coalesce.Group[string, int]{Timeout: math.MaxInt64}
	for range 2 {
		_, err := g.Do(t.Context(), "k", func(ctx context.Context) (int, error) { return 0, ctx.Err() })
		require.NoError(t, err)
	}
}

func TestAbandonedBeforeTimeoutHasItsOwnCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, int]{Timeout: time.Hour}
		for _, early := range []bool{true, false} { // asked before its end, or only after
			ctx, leave := context.WithCancel(t.Context())
			cause := make(chan error, 1)
			r := g.DoChan(ctx, "k", func(ctx context.Context) (int, error) {
				if early {
					<-ctx.Done()
				} else {
					time.Sleep(time.Minute)
				}
				cause <- context.Cause(ctx)
				return 0, ctx.Err()
			})
			synctest.Wait()
			leave()
			<-r
			require.Equal(t, coalesce.ErrAbandoned, <-cause)
		}
	})
}

// A context that the work keeps is never used again for other work: after many
// later flights it still says what it said, and has its own values.
func TestContextThatTheWorkKeepsStaysItsOwn(t *testing.T) {
	var g coalesce.Group[string, int]
	type kept struct {
		ctx   context.Context
		asked bool
		who   int
	}
	var all []kept
	for i := range 100 {
		for _, inline := range []bool{true, false} {
			ctx := context.WithValue(context.Background(), traceKey{}, i)
			if !inline {
				var cancel context.CancelFunc
				ctx, cancel = context.WithCancel(ctx)
				defer cancel()
			}
			_, err := g.Do(ctx, "k", func(ctx context.Context) (int, error) {
				all = append(all, kept{ctx, i%2 == 0, i})
				if i%2 == 0 {
					require.NoError(t, ctx.Err())
				}
				return 0, nil
			})
			require.NoError(t, err)
		}
	}
	later := 100_000
	if testing.Short() || raceEnabled {
		later = 5_000
	}
	for range later {
		_, _ = g.Do(context.Background(), "k", work)
	}
	for _, k := range all {
		require.Equal(t, k.who, k.ctx.Value(traceKey{}))
		require.Equal(t, context.Canceled, k.ctx.Err(), "the work has returned")
		require.Equal(t, context.Canceled, context.Cause(k.ctx), "and was not abandoned")
		<-k.ctx.Done()
		child, cancel := context.WithTimeout(k.ctx, time.Hour)
		require.Error(t, child.Err())
		cancel()
	}
}

// When a caller has its result the context of the work has ended, so that what
// was derived from it is released.
func TestWorksContextHasEndedWhenCallersReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, context.Context]
		for _, ctx := range []context.Context{context.Background(), t.Context()} {
			released := false
			child, err := g.Do(ctx, "k", func(ctx context.Context) (context.Context, error) {
				context.AfterFunc(ctx, func() { released = true })
				child, cancel := context.WithCancel(ctx)
				_ = cancel // on purpose
				return child, child.Err()
			})
			require.NoError(t, err)
			require.ErrorIs(t, child.Err(), context.Canceled)
			synctest.Wait()
			require.True(t, released)
		}
	})
}

// Children of the work's context cost no goroutine each, as children of a
// context that the context package does not know would.
func TestChildrenOfTheWorksContextStartNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		r := g.DoResult(t.Context(), "k", func(ctx context.Context) (int, error) {
			before := runtime.NumGoroutine()
			for range 100 {
				child, cancel := context.WithCancel(ctx)
				defer cancel()
				require.NoError(t, child.Err())
			}
			return runtime.NumGoroutine() - before, nil
		})
		require.Less(t, r.Val, 50) // the rest of the process may have some
	})
}

func TestAfterFuncOfTheWorksContext(t *testing.T) {
	type afterFuncer interface{ AfterFunc(f func()) func() bool }
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		ctx, leave := context.WithCancel(t.Context())
		var called, stopped atomic.Int32
		r := g.DoChan(ctx, "k", func(ctx context.Context) (int, error) {
			ctx.(afterFuncer).AfterFunc(func() { called.Add(1) })
			stop := ctx.(afterFuncer).AfterFunc(func() { stopped.Add(1) })
			require.True(t, stop())
			require.False(t, stop())
			<-ctx.Done()
			ctx.(afterFuncer).AfterFunc(func() { called.Add(1) }) // at once
			return 0, nil
		})
		synctest.Wait()
		require.Zero(t, called.Load())
		leave()
		<-r
		synctest.Wait()
		require.EqualValues(t, 2, called.Load())
		require.Zero(t, stopped.Load())
	})
}

// Whoever asks the context first, while it ends: once the last caller has left
// and the first has asked, it has ended for everybody.
func TestContextAskedWhileItEnds(t *testing.T) {
	rounds := 4000
	if testing.Short() {
		rounds = 1000
	}
	g := coalesce.Group[string, int]{Timeout: time.Hour}
	for range rounds {
		ctx, leave := context.WithCancel(t.Context())
		works, finish := make(chan context.Context, 1), make(chan struct{})
		r := g.DoChan(ctx, "k", func(ctx context.Context) (int, error) { works <- ctx; <-finish; return 0, nil })
		work := <-works
		var all sync.WaitGroup
		all.Go(func() {
			leave()
			<-r
		})
		for range 2 {
			all.Go(func() {
				for range rand.IntN(3000) { // about as long as it takes to leave
					_ = work
				}
				<-work.Done()
			})
		}
		all.Wait()
		require.Equal(t, context.Canceled, work.Err())
		require.Equal(t, coalesce.ErrAbandoned, context.Cause(work))
		close(finish)
	}
}

// A context that nobody asks until all is over still knows why it ended.
func TestAbandonedContextKeepsItsCauseAfterTheWorkReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, asked := range []bool{true, false} {
			var g coalesce.Group[string, int]
			ctx, leave := context.WithCancel(t.Context())
			finish := make(chan struct{})
			var work context.Context
			r := g.DoChan(ctx, "k", func(ctx context.Context) (int, error) {
				if work = ctx; asked {
					_ = ctx.Err()
				}
				<-finish
				return 0, nil
			})
			synctest.Wait()
			leave()
			<-r
			close(finish)
			synctest.Wait()
			require.Equal(t, context.Canceled, work.Err())
			require.Equal(t, coalesce.ErrAbandoned, context.Cause(work))
		}
	})
}

// The work of one group may call another: the context of the inner work goes
// with the inner flight's callers, and through them with the outer's.
func TestAbandoningPassesThroughNestedGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inner, outer coalesce.Group[string, int]
		ctx, leave := context.WithCancel(t.Context())
		causes := make(chan error, 2)
		r := outer.DoChan(ctx, "a", func(ctx context.Context) (int, error) {
			v, err := inner.Do(ctx, "b", func(ctx context.Context) (int, error) {
				<-ctx.Done()
				causes <- context.Cause(ctx)
				return 0, ctx.Err()
			})
			causes <- context.Cause(ctx)
			return v, err
		})
		synctest.Wait()
		require.Empty(t, causes)
		leave()
		<-r
		require.Equal(t, coalesce.ErrAbandoned, <-causes)
		require.Equal(t, coalesce.ErrAbandoned, <-causes)
		synctest.Wait()
	})
}
