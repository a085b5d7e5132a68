package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// Exclusive holds against everything at once: callers that leave, a Forget from
// outside and from within the work, work that asks for its own key, obeys the
// wrong context, panics or exits, and callers above the bound. Nothing is left
// behind, and every caller gets one of the answers that it may get.
func TestExclusiveHoldsWhateverHappens(t *testing.T) {
	for _, procs := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(procs), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			g := coalesce.Group[int, int]{Abandon: coalesce.Exclusive, MaxWaiters: 5}
			var running [2]atomic.Int64
			var calls, began atomic.Int64
			work := func(outer context.Context, key, how int) func(context.Context) (int, error) {
				return func(ctx context.Context) (int, error) {
					began.Add(1)
					if running[key].Add(1) != 1 {
						t.Error("two executions of a key at once")
					}
					defer running[key].Add(-1)
					for range how {
						runtime.Gosched()
					}
					switch how {
					case 0:
						g.Forget(key)
						if _, err := g.Do(ctx, key, func(context.Context) (int, error) { panic("its function must not run") }); !errors.Is(err, coalesce.ErrReentrant) && ctx.Err() == nil {
							t.Errorf("own key: %v", err)
						}
					case 1:
						return key, outer.Err()
					case 2:
						panic(errWork)
					case 3:
						runtime.Goexit()
					}
					return key, ctx.Err()
				}
			}
			var all sync.WaitGroup
			for worker := range 8 {
				rng := rand.New(rand.NewPCG(uint64(procs), uint64(worker)))
				all.Go(func() {
					for range 500 {
						key, how := rng.IntN(2), rng.IntN(7)
						ctx, leave := context.WithCancel(context.Background())
						calls.Add(1)
						r := g.DoChan(ctx, key, work(ctx, key, how))
						switch rng.IntN(4) {
						case 0:
							leave()
						case 1:
							g.Forget(key)
						case 2:
							go leave()
						}
						got := <-r
						_, panicked := errors.AsType[*coalesce.PanicError](got.Err)
						switch {
						case got.Err == nil && got.Val == key, panicked && errors.Is(got.Err, errWork):
						case errors.Is(got.Err, context.Canceled), errors.Is(got.Err, coalesce.ErrGoexit), errors.Is(got.Err, coalesce.ErrTooManyWaiters):
						default:
							t.Errorf("%+v", got)
						}
						leave()
					}
				})
			}
			all.Wait()
			for g.Stats().InFlight > 0 {
				runtime.Gosched()
			}
			require.Zero(t, g.Listed())
			require.Equal(t, began.Load(), g.Stats().Executions, "a flight that was counted has run, and one that was not has not")
			require.LessOrEqual(t, g.Stats().Executions, calls.Load())
		})
	}
}

// The error of a second starter is received by those who asked for it the second
// time, and they are counted; a newcomer asks again and is not.
func TestWhoReceivesTheErrorOfASecondStarterIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var landings []coalesce.Landing
		g := coalesce.Group[string, int]{Trace: &coalesce.Trace[string]{
			Done: func(_ context.Context, _ string, l coalesce.Landing) {
				mu.Lock()
				defer mu.Unlock()
				landings = append(landings, l)
			},
		}}
		one, endOne := context.WithCancel(t.Context())
		first := g.DoChan(one, "k", wrong(one))
		left := make(chan struct{})
		var starter int // whoever of the three starts the work the second time
		ends, out := [3]func(){}, [3]<-chan coalesce.Result[int]{}
		for i := range 3 {
			ctx, end := context.WithCancel(t.Context())
			defer end()
			ends[i] = end
			out[i] = g.DoChan(ctx, "k", func(work context.Context) (int, error) { starter = i; <-left; return wrong(ctx)(work) })
		}
		endOne()
		require.Equal(t, context.Canceled, (<-first).Err)
		synctest.Wait()
		newcomer := g.DoChan(t.Context(), "k", slow(4))
		ends[starter]()
		require.Equal(t, coalesce.Result[int]{Err: context.Canceled}, <-out[starter])
		close(left)
		for i := range 3 {
			if i != starter {
				r := <-out[i]
				require.ErrorIs(t, r.Err, context.Canceled)
				require.Equal(t, 2, r.Waiters)
				require.True(t, r.Shared)
			}
		}
		require.Equal(t, coalesce.Result[int]{Val: 4, Waiters: 1}, <-newcomer)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		var waiters []int
		for _, l := range landings {
			waiters = append(waiters, l.Waiters)
		}
		require.Equal(t, []int{0, 2, 1}, waiters)
	})
}

// A context that the work keeps holds its own result and nothing of the flights
// that followed: with Exclusive each of them knows the next.
func TestKeptContextHoldsNothingOfTheFlightThatFollowed(t *testing.T) {
	g := coalesce.Group[string, *[1 << 10]byte]{Abandon: coalesce.Exclusive}
	var kept context.Context
	follow := func() weak.Pointer[[1 << 10]byte] {
		finish := make(chan struct{})
		a := g.DoChan(t.Context(), "k", func(ctx context.Context) (*[1 << 10]byte, error) {
			kept = ctx
			<-finish
			return nil, nil
		})
		g.Forget("k")
		result := new([1 << 10]byte)
		b := g.DoChan(t.Context(), "k", func(context.Context) (*[1 << 10]byte, error) { return result, nil })
		close(finish)
		<-a
		<-b
		return weak.Make(result)
	}
	result := follow()
	for range 100 { // the goroutine of the flight may need a moment to be gone
		if runtime.GC(); result.Value() == nil {
			break
		}
	}
	require.Nil(t, result.Value())
	require.NotNil(t, kept)
}

// Hooks run with no lock held and see what they are told of: they may look at the
// Group, forget keys and do other work in it.
func TestHooksMayUseTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, policy := range []coalesce.AbandonPolicy{coalesce.CancelWork, coalesce.KeepRunning, coalesce.Exclusive} {
			g := coalesce.Group[string, int]{Abandon: policy}
			var inner, calls atomic.Int64
			use := func(key string) {
				if key != "k" {
					return
				}
				calls.Add(1)
				for range g.Flights() {
					_ = g.Stats()
				}
				g.Forget("nobody's")
				v, err := g.Do(context.Background(), "inner", func(context.Context) (int, error) { return int(inner.Add(1)), nil })
				if err != nil || v == 0 {
					t.Errorf("%v, %v", v, err)
				}
			}
			g.Trace = &coalesce.Trace[string]{
				Start: func(_ context.Context, key string) { use(key) },
				Join:  func(_ context.Context, key string, _ int) { use(key) },
				Leave: func(_ context.Context, key string, _ int) { use(key) },
				Done:  func(_ context.Context, key string, _ coalesce.Landing) { use(key) },
			}
			ctx, leave := context.WithCancel(t.Context())
			a := g.DoChan(ctx, "k", slow(1))
			b := g.DoChan(t.Context(), "k", mustNotRun)
			leave()
			require.Equal(t, context.Canceled, (<-a).Err)
			require.Equal(t, coalesce.Result[int]{Val: 1, Waiters: 1}, <-b)
			synctest.Wait()
			require.EqualValues(t, 4, calls.Load())
			require.Zero(t, g.Listed())
		}
	})
}
