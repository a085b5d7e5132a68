package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// Close against all that can be under way: callers that come and leave, keys that
// linger, and other Closes of which some have no patience. Every caller gets the
// value of its key or one of the three errors, and nothing is left.
func TestBatcherIsClosedFromAllSides(t *testing.T) {
	for round := range 200 {
		b := coalesce.Batcher[int, int]{MaxBatch: 2, MaxInFlight: 1 + round%2}
		if round%3 == 0 {
			b.Linger = time.Duration(round) * time.Microsecond
		}
		b.Fetch = func(ctx context.Context, keys []int) (map[int]int, error) {
			m := map[int]int{}
			for _, k := range keys {
				runtime.Gosched()
				m[k] = k * k
			}
			if keys[0] == 3 {
				b.Forget(3)
				_ = b.Stats()
				return m, ctx.Err()
			}
			return m, nil
		}
		check := func(key int, r coalesce.Result[int]) {
			switch {
			case r.Err == nil && r.Val == key*key:
			case errors.Is(r.Err, coalesce.ErrClosed), errors.Is(r.Err, context.Canceled):
			default:
				t.Errorf("key %d: %+v", key, r)
			}
		}
		var all sync.WaitGroup
		for i := range 4 {
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			all.Go(func() {
				for k := range 6 {
					for key, r := range b.LoadAll(ctx, []int{k, 7 - k, k}) {
						check(key, r)
					}
					if i == 3 && k == 3 {
						leave()
					}
				}
			})
			all.Go(func() {
				for k := range 6 {
					v, err := b.Load(context.Background(), k)
					check(k, coalesce.Result[int]{Val: v, Err: err})
				}
			})
		}
		for i := range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			all.Go(func() {
				for range 3 * i {
					runtime.Gosched()
				}
				if i == 1 && round%2 == 0 {
					cancel()
				}
				if err := b.Close(ctx); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		require.NoError(t, b.Close(t.Context()))
		s := b.Stats()
		require.Zero(t, s.InFlight)
		require.Zero(t, s.Queued)
		require.LessOrEqual(t, s.Keys, s.Loads-s.Joined, "each key that is fetched was asked for first by one load")
	}
}

// Such a key panics in the caller, before anything is asked for: the other keys of
// the same call are not, and the Batcher is as it was.
func TestKeyThatCannotBeComparedIsNotAskedFor(t *testing.T) {
	b := coalesce.Batcher[any, int]{Fetch: func(_ context.Context, keys []any) (map[any]int, error) {
		return map[any]int{keys[0]: len(keys)}, nil
	}}
	odd := []int{1}
	require.Panics(t, func() { _, _ = b.Load(t.Context(), odd) })
	require.Panics(t, func() {
		for range b.LoadAll(t.Context(), []any{1, odd}) {
			t.Error("yielded")
		}
	})
	require.Panics(t, func() { b.Forget(odd) })
	require.Equal(t, coalesce.BatcherStats{}, b.Stats())
	v, err := b.Load(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, 1, v)
}

// NaN is asked for each time, has no value in any map, and is as soon gone as any
// other key, whether its callers wait, leave the queue or leave the fetch.
func TestNaNIsNeverJoinedInABatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		finish := make(chan struct{})
		b := coalesce.Batcher[float64, int]{Fetch: func(ctx context.Context, keys []float64) (map[float64]int, error) {
			select {
			case <-finish:
			case <-ctx.Done():
			}
			return map[float64]int{keys[0]: 1}, ctx.Err()
		}}
		nan := []float64{math.NaN(), math.NaN()}
		ctx, leave := context.WithCancel(t.Context())
		all := func(ctx context.Context, want error) *seen {
			return observe(func() (r coalesce.Result[int]) {
				for _, r = range b.LoadAll(ctx, nan) {
					require.ErrorIs(t, r.Err, want)
				}
				return r
			})
		}
		queued, leaveQueue := context.WithCancel(t.Context())
		left := []*seen{all(ctx, context.Canceled)}
		synctest.Wait()
		left = append(left, all(queued, context.Canceled))
		stays := all(t.Context(), coalesce.ErrNotFound)
		synctest.Wait()
		require.Equal(t, coalesce.BatcherStats{Loads: 6, Fetches: 1, Keys: 2, InFlight: 1, Queued: 4}, b.Stats())
		require.False(t, b.Forget(nan[0]))
		leaveQueue()
		synctest.Wait()
		leave()
		synctest.Wait()
		close(finish)
		synctest.Wait()
		require.True(t, left[0].returned && left[1].returned && stays.returned)
		require.Equal(t, coalesce.BatcherStats{Loads: 6, Fetches: 2, Keys: 4}, b.Stats())
		require.Zero(t, b.Indexed())
	})
}

// However the loop over LoadAll ends, and whatever it does with the Batcher
// meanwhile, no other call gets what belongs to it.
func TestLoopOverLoadAllMayEndAnyhow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s squares
		b := coalesce.Batcher[int, int]{Fetch: s.fetch}
		for name, end := range map[string]func(){
			"break":  func() {},
			"panic":  func() { panic(errWork) },
			"Goexit": runtime.Goexit,
		} {
			for range 3 { // what is used again would be in use here
				s := observe(func() coalesce.Result[int] {
					for k, r := range b.LoadAll(t.Context(), []int{1, 2, 3}) {
						require.Equal(t, coalesce.Result[int]{Val: k * k, Waiters: 1}, r)
						for k, r := range b.LoadAll(t.Context(), []int{4, 5}) {
							require.Equal(t, coalesce.Result[int]{Val: k * k, Waiters: 1}, r)
						}
						if k == 2 {
							end()
							break
						}
					}
					return coalesce.Result[int]{}
				})
				time.Sleep(time.Minute)
				synctest.Wait()
				require.True(t, s.over)
				require.Equal(t, name == "break", s.returned)
			}
		}
		require.NoError(t, b.Close(t.Context()))
	})
}

func TestFetchMayUseItsBatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b coalesce.Batcher[int, int]
		b.Fetch = func(ctx context.Context, keys []int) (map[int]int, error) {
			require.Equal(t, 1, b.Stats().InFlight)
			require.True(t, b.Forget(keys[0]))
			require.False(t, b.Forget(keys[0]))
			impatient, cancel := context.WithCancel(ctx)
			cancel()
			require.ErrorIs(t, b.Close(impatient), context.Canceled)
			require.Equal(t, coalesce.ErrClosed, context.Cause(ctx))
			return map[int]int{keys[0]: 7}, nil
		}
		v, err := b.Load(t.Context(), 1)
		require.NoError(t, err)
		require.Equal(t, 7, v)
		_, err = b.Load(t.Context(), 1)
		require.ErrorIs(t, err, coalesce.ErrClosed)
	})
}

// Errors of another type of key says nothing of these keys: it is an error like
// any other.
func TestErrorsOfAnotherKeyTypeAreOfTheWholeFetch(t *testing.T) {
	b := coalesce.Batcher[int, int]{Fetch: func(context.Context, []int) (map[int]int, error) {
		return map[int]int{1: 1, 2: 2}, fmt.Errorf("fetch: %w", coalesce.Errors[int64]{1: errWork})
	}}
	_, res := results(b.LoadAll(t.Context(), []int{1, 2}))
	for _, r := range res {
		_, ok := errors.AsType[coalesce.Errors[int64]](r.Err)
		require.True(t, ok)
		require.ErrorIs(t, r.Err, errWork)
	}
}

// Keys that have lingered make the queue ripe. When all of them are gone, the
// next ones linger anew, also behind a fetch.
func TestQueueThatAllHaveLeftLingersAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s squares
		b := coalesce.Batcher[int, int]{Fetch: s.fetch, Linger: 10 * time.Millisecond, MaxBatch: 2}
		begin := time.Now()
		go results(b.LoadAll(t.Context(), []int{1, 2})) // full, so it goes at once
		synctest.Wait()
		ctx, leave := context.WithCancel(t.Context())
		gone := loading(&b, ctx, 3)
		time.Sleep(999 * time.Millisecond)
		leave()
		require.ErrorIs(t, (<-gone).Err, context.Canceled)
		require.Equal(t, 16, (<-loading(&b, t.Context(), 4)).Val)
		require.Equal(t, 2*time.Second+9*time.Millisecond, time.Since(begin))
	})
}

// The first caller of a key may have been the first to leave: the fetch has the
// values of the one that has waited longest of those that wait.
func TestFetchHasTheValuesOfTheFirstThatStillWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		saw := make(chan any, 3)
		b := coalesce.Batcher[int, int]{Fetch: func(ctx context.Context, keys []int) (map[int]int, error) {
			saw <- ctx.Value(traceKey{})
			time.Sleep(time.Second)
			return nil, nil
		}}
		busy := loading(&b, t.Context(), 0)
		ctx, leave := context.WithCancel(context.WithValue(t.Context(), traceKey{}, "left"))
		gone := loading(&b, ctx, 1)
		for _, who := range []string{"first", "second", "third"} {
			loading(&b, context.WithValue(t.Context(), traceKey{}, who), 1)
		}
		leave()
		<-gone
		<-busy
		require.NoError(t, b.Close(t.Context()))
		require.Nil(t, <-saw)
		require.Equal(t, "first", <-saw)
	})
}

// What the documentation of Batcher promises. The first thousands of rounds show
// that what is put aside to be used again is used again.
func TestAllocationsOfAFetch(t *testing.T) {
	skipUnderRace(t)
	values := map[int]int{1: 1, 2: 2, 3: 3}
	b := coalesce.Batcher[int, int]{Fetch: func(context.Context, []int) (map[int]int, error) { return values, nil }}
	load := func() { _, _ = b.Load(context.Background(), 1) }
	for range 3000 {
		load()
	}
	require.LessOrEqual(t, testing.AllocsPerRun(1000, load), 2.0, "the keys and the context")
}
