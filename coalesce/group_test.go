package coalesce_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

func TestCallersOfOneKeyShareOneExecution(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		var executions atomic.Int32
		var callers sync.WaitGroup
		for range 50 {
			callers.Go(func() {
				v, err := g.Do(t.Context(), "k", func(context.Context) (int, error) {
					time.Sleep(time.Second)
					return int(executions.Add(1)), nil
				})
				require.NoError(t, err)
				require.Equal(t, 1, v)
			})
		}
		callers.Wait()
		require.EqualValues(t, 1, executions.Load())
		require.Equal(t, coalesce.Stats{Executions: 1, Joined: 49}, g.Stats())
	})
}

func TestKeysDoNotDisturbEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[int, int]
		const n = 1000 // so that every shard grows more than once
		start := time.Now()
		var callers sync.WaitGroup
		for i := range n {
			for range 2 {
				callers.Go(func() {
					v, err := g.Do(t.Context(), i, func(context.Context) (int, error) { time.Sleep(time.Second); return 3 * i, nil })
					require.NoError(t, err)
					require.Equal(t, 3*i, v)
				})
			}
		}
		synctest.Wait()
		require.Equal(t, n, g.Listed())
		seen := map[int]bool{}
		for key, f := range g.Flights() {
			require.False(t, seen[key])
			seen[key] = true
			require.Equal(t, coalesce.Flight{Age: 0, Waiters: 2}, f)
		}
		require.Len(t, seen, n)
		callers.Wait()
		require.Equal(t, time.Second, time.Since(start))
		require.Zero(t, g.Listed())
		require.EqualValues(t, n, g.Stats().Executions)
	})
}

func TestFinishedResultIsNotServedAgain(t *testing.T) {
	var g coalesce.Group[string, int]
	n := 0
	for i := range 5 {
		v, err := g.Do(context.Background(), "k", func(context.Context) (int, error) { n++; return n, nil })
		require.NoError(t, err)
		require.Equal(t, i+1, v)
	}
}

func TestBackgroundCallerRunsOnItsOwnGoroutine(t *testing.T) {
	var g coalesce.Group[string, int]
	require.PanicsWithError(t, "inline", func() {
		defer func() {
			p := recover().(*coalesce.PanicError)
			require.Contains(t, string(p.Stack), "TestBackgroundCallerRunsOnItsOwnGoroutine", "the caller is on the stack of the work")
			panic(p.Value)
		}()
		_, _ = g.Do(context.Background(), "k", func(context.Context) (int, error) { panic(errors.New("inline")) })
	})
}

func TestInlineStarterCountsAsWaiterForItsWholeLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		var work context.Context
		finish := make(chan struct{})
		starter := observe(func() coalesce.Result[int] {
			return g.DoResult(context.Background(), "k", func(ctx context.Context) (int, error) { work = ctx; <-finish; return 1, ctx.Err() })
		})
		synctest.Wait()
		for range 3 { // joiners come and go, as the only ones that can
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := g.Do(ctx, "k", mustNotRun)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NoError(t, work.Err(), "not abandoned: its starter waits")
			cancel()
		}
		close(finish)
		synctest.Wait()
		require.Equal(t, coalesce.Result[int]{Val: 1, Waiters: 1}, starter.result)
		require.Zero(t, g.Stats().Abandoned)
	})
}

// mustNotRun is the work of a caller that should join.
func mustNotRun(context.Context) (int, error) { panic("this function must not be called") }

func TestEachCallerReturnsAtTheEndOfItsOwnContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, do := range doers {
			var g coalesce.Group[string, int]
			begin := time.Now()
			var callers sync.WaitGroup
			for i := range 10 {
				callers.Go(func() {
					after := time.Duration(i+1) * time.Second
					ctx, cancel := context.WithTimeout(t.Context(), after)
					defer cancel()
					r := do(&g, ctx, "k", func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
					require.Equal(t, coalesce.Result[int]{Err: context.DeadlineExceeded}, r, name)
					require.Equal(t, after, time.Since(begin))
				})
			}
			callers.Wait()
			synctest.Wait()
			require.Equal(t, coalesce.Stats{Executions: 1, Joined: 9, Abandoned: 1}, g.Stats())
		}
	})
}

func TestEndedContextStartsAndJoinsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, do := range doers {
		var g coalesce.Group[string, int]
		require.Equal(t, coalesce.Result[int]{Err: context.Canceled}, do(&g, ctx, "k", mustNotRun))
		require.Equal(t, coalesce.Stats{}, g.Stats())
	}
}

func TestCustomCauseStaysInTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		ctx, cancel := context.WithCancelCause(t.Context())
		r := g.DoChan(ctx, "k", func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, nil })
		cancel(errors.New("the user closed the page"))
		require.Equal(t, context.Canceled, (<-r).Err)
	})
}

// held is a context that holds its caller where it has joined but not yet begun
// to wait, where Value is asked.
type held struct {
	context.Context
	until chan struct{}
}

func (h held) Value(key any) any { <-h.until; return h.Context.Value(key) }

// When the result and the end of the context are both there, the result wins.
// Select alone would choose by lot: fifty rounds do not all fall the same way.
func TestResultWinsOverTheEndOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 50 {
			var g coalesce.Group[string, int]
			starter := g.DoChan(t.Context(), "k", func(context.Context) (int, error) { time.Sleep(time.Second); return 1, nil })
			ctx, cancel := context.WithCancel(t.Context())
			h := held{ctx, make(chan struct{})}
			joiner := observe(func() coalesce.Result[int] { return g.DoResult(h, "k", mustNotRun) })
			synctest.Wait()
			require.Equal(t, coalesce.Result[int]{Val: 1, Shared: true, Waiters: 2}, <-starter)
			cancel()
			close(h.until)
			synctest.Wait()
			require.Equal(t, coalesce.Result[int]{Val: 1, Shared: true, Waiters: 2}, joiner.result)
		}
	})
}

func TestMaxWaitersRefusesTheNextCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, do := range doers {
			g := coalesce.Group[string, int]{MaxWaiters: 2}
			finish := make(chan struct{})
			work := func(context.Context) (int, error) { <-finish; return 1, nil }
			ctx, leave := context.WithCancel(t.Context())
			a, b := g.DoChan(ctx, "k", work), g.DoChan(t.Context(), "k", work)
			require.Equal(t, coalesce.Result[int]{Err: coalesce.ErrTooManyWaiters}, do(&g, t.Context(), "k", mustNotRun), name)
			c := g.DoChan(t.Context(), "other", work) // the bound is per key

			leave()
			require.Equal(t, context.Canceled, (<-a).Err)
			d := g.DoChan(t.Context(), "k", mustNotRun) // a place is free again
			close(finish)
			for _, r := range []<-chan coalesce.Result[int]{b, c, d} {
				require.NoError(t, (<-r).Err)
			}
		}
	})
}

func TestMaxWaitersCountsAnInlineStarter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := coalesce.Group[string, int]{MaxWaiters: 1}
		finish := make(chan struct{})
		a := observe(func() coalesce.Result[int] {
			return g.DoResult(context.Background(), "k", func(context.Context) (int, error) { <-finish; return 1, nil })
		})
		synctest.Wait()
		_, err := g.Do(t.Context(), "k", mustNotRun)
		require.ErrorIs(t, err, coalesce.ErrTooManyWaiters)
		close(finish)
		synctest.Wait()
		require.Equal(t, coalesce.Result[int]{Val: 1, Waiters: 1}, a.result)
	})
}

func TestFieldsThatMakeNoSensePanicAtFirstUse(t *testing.T) {
	for want, g := range map[string]*coalesce.Group[string, int]{
		"coalesce: Group.Timeout is -1s, want 0 or more":                           {Timeout: -time.Second},
		"coalesce: Group.MaxWaiters is -1, want 0 or more":                         {MaxWaiters: -1},
		"coalesce: Group.Abandon is 3, want CancelWork, KeepRunning or Exclusive":  {Abandon: 3},
		"coalesce: Group.Abandon is -1, want CancelWork, KeepRunning or Exclusive": {Abandon: -1},
	} {
		for _, do := range doers {
			require.PanicsWithValue(t, want, func() { do(g, t.Context(), "k", mustNotRun) })
		}
	}
}

func TestNilFunctionPanicsInTheCaller(t *testing.T) {
	var g coalesce.Group[string, int]
	for _, do := range doers {
		require.PanicsWithValue(t, "coalesce: nil function", func() { do(&g, t.Context(), "k", nil) })
	}
	require.Equal(t, coalesce.Stats{}, g.Stats())
}

func TestNaNIsNeverJoinedAndDoesNotLeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[float64, int]
		finish := make(chan struct{})
		var executions atomic.Int32
		work := func(ctx context.Context) (int, error) {
			executions.Add(1)
			select {
			case <-finish:
			case <-ctx.Done():
			}
			return 1, nil
		}
		var results []<-chan coalesce.Result[int]
		for range 100 {
			results = append(results, g.DoChan(t.Context(), math.NaN(), work))
		}
		gone, leave := context.WithCancel(t.Context())
		lost := g.DoChan(gone, math.NaN(), work)
		synctest.Wait()
		require.EqualValues(t, 101, executions.Load())
		require.Equal(t, 101, g.Listed())
		require.False(t, g.Forget(math.NaN()))
		leave()
		require.Error(t, (<-lost).Err)
		require.Equal(t, 100, g.Listed(), "an abandoned one is removed")
		close(finish)
		for _, r := range results {
			require.False(t, (<-r).Shared)
		}
		require.Zero(t, g.Listed(), "those that ended are removed")
		require.Zero(t, g.Stats().Joined)
	})
}

func TestZerosOfBothSignsAreOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[float64, int]
		a := g.DoChan(t.Context(), 0.0, func(context.Context) (int, error) { time.Sleep(time.Second); return 1, nil })
		b := g.DoChan(t.Context(), math.Copysign(0, -1), mustNotRun)
		require.True(t, (<-a).Shared)
		require.True(t, (<-b).Shared)
	})
}

func TestKeyThatCannotBeComparedPanicsInTheCallerAndHurtsNobody(t *testing.T) {
	var g coalesce.Group[any, int]
	require.Panics(t, func() { _, _ = g.Do(t.Context(), []int{1}, mustNotRun) })
	require.Panics(t, func() { g.Forget(map[int]int{}) })
	for _, key := range []any{1, "1", [1]int{1}, nil, struct{}{}} { // the locks are free
		v, err := g.Do(t.Context(), key, func(context.Context) (int, error) { return 1, nil })
		require.NoError(t, err)
		require.Equal(t, 1, v)
	}
}

func TestResultTellsHowManyShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		ctx, leave := context.WithCancel(t.Context())
		work := func(context.Context) (int, error) { time.Sleep(time.Second); return 1, nil }
		a, b := g.DoChan(ctx, "k", work), g.DoChan(t.Context(), "k", work)
		leave()
		require.Equal(t, coalesce.Result[int]{Err: context.Canceled}, <-a)
		require.Equal(t, coalesce.Result[int]{Val: 1, Waiters: 1}, <-b, "the one who left does not count")
		c, d := g.DoChan(t.Context(), "k", work), g.DoChan(t.Context(), "k", work)
		require.Equal(t, coalesce.Result[int]{Val: 1, Shared: true, Waiters: 2}, <-c)
		require.Equal(t, coalesce.Result[int]{Val: 1, Shared: true, Waiters: 2}, <-d)
	})
}

func TestDoChanDeliversOnceThoughNobodyReceives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which reports a goroutine that is left
		var g coalesce.Group[string, int]
		finished := g.DoChan(t.Context(), "k", func(context.Context) (int, error) { return 1, nil })
		ctx, cancel := context.WithCancel(t.Context())
		left := g.DoChan(ctx, "k2", func(ctx context.Context) (int, error) { <-ctx.Done(); return 1, nil })
		cancel()
		synctest.Wait()
		for _, ch := range []<-chan coalesce.Result[int]{finished, left} {
			require.Len(t, ch, 1)
			require.Equal(t, 1, cap(ch))
			<-ch
			select {
			case _, ok := <-ch:
				require.Fail(t, "a second result, or closed", "%v", ok)
			default:
			}
		}
	})
}

func TestDoChanAdmitsBeforeItReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		r := g.DoChan(context.Background(), "k", func(context.Context) (int, error) { time.Sleep(time.Second); return 1, nil })
		require.Equal(t, 1, g.Listed())
		require.Equal(t, coalesce.Stats{Executions: 1, InFlight: 1}, g.Stats())
		<-r
	})
}

func TestUnusedGroupAnswersEverything(t *testing.T) {
	var g coalesce.Group[string, int]
	require.False(t, g.Forget("k"))
	require.Equal(t, coalesce.Stats{}, g.Stats())
	for range g.Flights() {
		require.Fail(t, "a flight")
	}
}

func TestFlightsTellAgeAndMayUseTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		finish := make(chan struct{})
		work := func(context.Context) (int, error) { <-finish; return 1, nil }
		var results []<-chan coalesce.Result[int]
		results = append(results, g.DoChan(t.Context(), "old", work))
		time.Sleep(time.Minute)
		results = append(results, g.DoChan(t.Context(), "young", work), g.DoChan(t.Context(), "young", work))
		time.Sleep(time.Second)

		got := map[string]coalesce.Flight{}
		for key, f := range g.Flights() {
			got[key] = f
			require.True(t, g.Forget(key), "the loop holds no lock")
		}
		require.Equal(t, map[string]coalesce.Flight{
			"old":   {Age: time.Minute + time.Second, Waiters: 1},
			"young": {Age: time.Second, Waiters: 2},
		}, got)
		for range g.Flights() {
			require.Fail(t, "forgotten flights are not shown")
		}
		require.EqualValues(t, 2, g.Stats().InFlight, "but counted")
		close(finish)
		for _, r := range results {
			<-r
		}
	})
}

func TestFlightsStopWhenTheLoopDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[int, int]
		for i := range 100 {
			g.DoChan(t.Context(), i, func(context.Context) (int, error) { time.Sleep(time.Second); return 1, nil })
		}
		n := 0
		for range g.Flights() {
			if n++; n == 3 {
				break
			}
		}
		require.Equal(t, 3, n)
		time.Sleep(2 * time.Second)
	})
}

func TestInlineFlightAgesFromTheFirstJoinOrLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		ages := func() []time.Duration {
			var all []time.Duration
			for _, f := range g.Flights() {
				all = append(all, f.Age)
			}
			slices.Sort(all)
			return all
		}
		finish := make(chan struct{})
		for _, key := range []string{"joined", "seen"} {
			go func() {
				_, _ = g.Do(context.Background(), key, func(context.Context) (int, error) { <-finish; return 1, nil })
			}()
		}
		time.Sleep(time.Second)
		r := g.DoChan(t.Context(), "joined", mustNotRun)
		time.Sleep(time.Second)
		require.Equal(t, []time.Duration{0, time.Second}, ages())
		time.Sleep(time.Second)
		require.Equal(t, []time.Duration{time.Second, 2 * time.Second}, ages())
		close(finish)
		<-r
	})
}

func TestShardsDoNotShareCacheLines(t *testing.T) {
	if math.MaxInt == math.MaxInt32 {
		t.Skip("the padding is reckoned for 64 bits")
	}
	require.Zero(t, coalesce.ShardSize%128)
}
