package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// squares is a fetch that answers each key with its square, after a second.
type squares struct {
	mu      sync.Mutex
	batches [][]int
	causes  []error
}

func (s *squares) fetch(ctx context.Context, keys []int) (map[int]int, error) {
	s.mu.Lock()
	s.batches = append(s.batches, slices.Clone(keys))
	s.mu.Unlock()
	m := map[int]int{}
	for _, k := range keys {
		m[k] = k * k
	}
	select {
	case <-time.After(time.Second):
		return m, nil
	case <-ctx.Done():
		s.mu.Lock()
		s.causes = append(s.causes, context.Cause(ctx))
		s.mu.Unlock()
		return nil, ctx.Err()
	}
}

// loading is a Load on a goroutine of its own.
func loading(b *coalesce.Batcher[int, int], ctx context.Context, key int) <-chan coalesce.Result[int] {
	out := make(chan coalesce.Result[int], 1)
	go func() {
		v, err := b.Load(ctx, key)
		out <- coalesce.Result[int]{Val: v, Err: err}
	}()
	synctest.Wait()
	return out
}

func results(seq iter.Seq2[int, coalesce.Result[int]]) (keys []int, res []coalesce.Result[int]) {
	for k, r := range seq {
		keys, res = append(keys, k), append(res, r)
	}
	return keys, res
}

func TestLoneLoadGoesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s squares
		b := coalesce.Batcher[int, int]{Fetch: s.fetch}
		begin := time.Now()
		v, err := b.Load(t.Context(), 3)
		require.NoError(t, err)
		require.Equal(t, 9, v)
		require.Equal(t, time.Second, time.Since(begin), "the fetch and nothing else")
	})
}

func TestKeysCollectWhileAFetchIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s squares
		b := coalesce.Batcher[int, int]{Fetch: s.fetch, MaxBatch: 3}
		begin := time.Now()
		for k := range 6 {
			go func() {
				time.Sleep(time.Duration(k) * time.Millisecond)
				v, err := b.Load(t.Context(), k)
				require.NoError(t, err)
				require.Equal(t, k*k, v)
			}()
		}
		time.Sleep(10 * time.Millisecond)
		require.Equal(t, coalesce.BatcherStats{Loads: 6, Fetches: 1, Keys: 1, InFlight: 1, Queued: 5}, b.Stats())
		require.NoError(t, b.Close(t.Context()))
		require.Equal(t, [][]int{{0}, {1, 2, 3}, {4, 5}}, s.batches)
		require.Equal(t, 3*time.Second, time.Since(begin))
	})
}

func TestFetchesUnderWayNeverExceedMaxInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s squares
		b := coalesce.Batcher[int, int]{Fetch: s.fetch, MaxInFlight: 2, MaxBatch: 2}
		begin := time.Now()
		keys, res := results(b.LoadAll(t.Context(), []int{1, 2, 3, 4, 5}))
		require.Equal(t, []int{1, 2, 3, 4, 5}, keys)
		for i, r := range res {
			require.Equal(t, coalesce.Result[int]{Val: keys[i] * keys[i], Waiters: 1}, r)
		}
		require.Equal(t, 2*time.Second, time.Since(begin), "two at once, then one")
		require.ElementsMatch(t, [][]int{{1, 2}, {3, 4}, {5}}, s.batches)
	})
}

func TestLingerWaitsForMoreKeysAndNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s squares
		b := coalesce.Batcher[int, int]{Fetch: s.fetch, Linger: 10 * time.Millisecond, MaxBatch: 3, MaxInFlight: 9}
		begin := time.Now()
		a := loading(&b, t.Context(), 1)
		time.Sleep(9 * time.Millisecond)
		c := loading(&b, t.Context(), 2)
		<-a
		<-c
		require.Equal(t, time.Second+10*time.Millisecond, time.Since(begin), "counted from the first")

		begin = time.Now()
		results(b.LoadAll(t.Context(), []int{3, 4, 5}))
		require.Equal(t, time.Second, time.Since(begin), "a full batch does not linger")

		begin = time.Now()
		ctx, leave := context.WithCancel(t.Context())
		gone := loading(&b, ctx, 6)
		time.Sleep(5 * time.Millisecond)
		leave()
		require.ErrorIs(t, (<-gone).Err, context.Canceled)
		<-loading(&b, t.Context(), 7)
		require.Equal(t, time.Second+15*time.Millisecond, time.Since(begin), "an empty queue lingers anew")
		require.Equal(t, [][]int{{1, 2}, {3, 4, 5}, {7}}, s.batches)
	})
}

func TestKeyOfWhichAFetchIsUnderWayIsJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s squares
		b := coalesce.Batcher[int, int]{Fetch: s.fetch}
		a := loading(&b, t.Context(), 1)
		keys, res := results(b.LoadAll(t.Context(), []int{1, 2, 2, 1}))
		require.Equal(t, []int{1, 2, 2, 1}, keys)
		require.Equal(t, coalesce.Result[int]{Val: 1, Shared: true, Waiters: 3}, res[0])
		require.Equal(t, coalesce.Result[int]{Val: 4, Shared: true, Waiters: 2}, res[1])
		require.Equal(t, 1, (<-a).Val)
		require.Equal(t, [][]int{{1}, {2}}, s.batches, "no key twice")
		require.Equal(t, coalesce.BatcherStats{Loads: 5, Joined: 3, Fetches: 2, Keys: 2}, b.Stats())
	})
}

func TestQueuedKeyThatNobodyWantsAnyMoreIsNotFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s squares
		b := coalesce.Batcher[int, int]{Fetch: s.fetch}
		a := loading(&b, t.Context(), 1)
		ctx, leave := context.WithCancel(t.Context())
		two, twoToo, three := loading(&b, ctx, 2), loading(&b, t.Context(), 2), loading(&b, ctx, 3)
		leave()
		require.ErrorIs(t, (<-two).Err, context.Canceled)
		require.ErrorIs(t, (<-three).Err, context.Canceled)
		require.Equal(t, 1, (<-a).Val)
		require.Equal(t, 4, (<-twoToo).Val)
		require.Equal(t, [][]int{{1}, {2}}, s.batches)
	})
}

func TestFetchEndsWhenAllCallersOfAllItsKeysHaveLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s squares
		b := coalesce.Batcher[int, int]{Fetch: s.fetch}
		ctx1, leave1 := context.WithCancel(t.Context())
		ctx2, leave2 := context.WithCancel(t.Context())
		lone := loading(&b, t.Context(), 0)
		one, two, oneToo := loading(&b, ctx1, 1), loading(&b, ctx2, 2), loading(&b, ctx2, 1)
		require.NoError(t, (<-lone).Err)
		synctest.Wait() // {1, 2} is under way
		leave1()
		require.Error(t, (<-one).Err)
		synctest.Wait()
		require.Empty(t, s.causes)
		leave2()
		require.Error(t, (<-two).Err)
		require.Error(t, (<-oneToo).Err)
		synctest.Wait()
		require.Equal(t, []error{coalesce.ErrAbandoned}, s.causes)
		require.Equal(t, 1, (<-loading(&b, t.Context(), 1)).Val, "nobody joins what was abandoned")
		require.Equal(t, [][]int{{0}, {1, 2}, {1}}, s.batches)
	})
}

// A key whose callers had all left is wanted again by one who joins it.
func TestFetchGoesOnForWhoJoinsItLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s squares
		b := coalesce.Batcher[int, int]{Fetch: s.fetch}
		ctx1, leave1 := context.WithCancel(t.Context())
		ctx2, leave2 := context.WithCancel(t.Context())
		lone := loading(&b, t.Context(), 0)
		loading(&b, ctx1, 1)
		loading(&b, ctx2, 2)
		require.NoError(t, (<-lone).Err)
		synctest.Wait() // {1, 2} is under way
		leave1()
		synctest.Wait()
		late := loading(&b, t.Context(), 1)
		leave2()
		require.Equal(t, 1, (<-late).Val)
		require.Empty(t, s.causes)
		require.Equal(t, [][]int{{0}, {1, 2}}, s.batches)
	})
}

// What came with the keys of a full batch has waited long enough when a place is
// free.
func TestLeftoversOfAFullBatchDoNotLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s squares
		b := coalesce.Batcher[int, int]{Fetch: s.fetch, Linger: time.Minute, MaxBatch: 2}
		begin := time.Now()
		results(b.LoadAll(t.Context(), []int{1, 2, 3}))
		require.Equal(t, 2*time.Second, time.Since(begin))
		require.Equal(t, [][]int{{1, 2}, {3}}, s.batches)
	})
}

func TestContextOfAFetchEndsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept context.Context
		b := coalesce.Batcher[int, int]{Fetch: func(ctx context.Context, _ []int) (map[int]int, error) {
			kept = context.WithValue(ctx, traceKey{}, 1)
			return nil, ctx.Err()
		}}
		_, err := b.Load(t.Context(), 1)
		require.ErrorIs(t, err, coalesce.ErrNotFound)
		synctest.Wait()
		require.Equal(t, context.Canceled, kept.Err())
		require.Equal(t, context.Canceled, context.Cause(kept))
	})
}

func TestFetchHasTheValuesOfTheFirstCallerAndNoDeadlineButTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got context.Context
		fetch := func(ctx context.Context, keys []int) (map[int]int, error) {
			got = ctx
			return map[int]int{keys[0]: 1}, ctx.Err()
		}
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), traceKey{}, 7), time.Second)
		defer cancel()
		b := coalesce.Batcher[int, int]{Fetch: fetch}
		_, err := b.Load(ctx, 1)
		require.NoError(t, err)
		require.Equal(t, 7, got.Value(traceKey{}))
		_, ok := got.Deadline()
		require.False(t, ok)

		b2 := coalesce.Batcher[int, int]{Timeout: time.Minute, Fetch: func(ctx context.Context, keys []int) (map[int]int, error) {
			<-ctx.Done()
			return fetch(ctx, keys)
		}}
		begin := time.Now()
		_, err = b2.Load(context.Background(), 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(begin))
	})
}

// A fetch may be wrong in any way; each caller gets its own right answer.
func TestEachKeyGetsItsOwnAnswer(t *testing.T) {
	boom, bang := errors.New("boom"), errors.New("bang")
	cases := map[string]struct {
		m    map[int]int
		err  error
		want [2]coalesce.Result[int]
	}{
		"both":                 {map[int]int{1: 10, 2: 20}, nil, [2]coalesce.Result[int]{{Val: 10}, {Val: 20}}},
		"too few":              {map[int]int{1: 10}, nil, [2]coalesce.Result[int]{{Val: 10}, {Err: coalesce.ErrNotFound}}},
		"none":                 {nil, nil, [2]coalesce.Result[int]{{Err: coalesce.ErrNotFound}, {Err: coalesce.ErrNotFound}}},
		"unasked":              {map[int]int{1: 10, 2: 20, 3: 30}, nil, [2]coalesce.Result[int]{{Val: 10}, {Val: 20}}},
		"one error for all":    {map[int]int{1: 10}, boom, [2]coalesce.Result[int]{{Err: boom}, {Err: boom}}},
		"error of one":         {map[int]int{1: 10}, coalesce.Errors[int]{2: boom}, [2]coalesce.Result[int]{{Val: 10}, {Err: boom}}},
		"wrapped":              {map[int]int{1: 10}, fmt.Errorf("query: %w", coalesce.Errors[int]{2: boom}), [2]coalesce.Result[int]{{Val: 10}, {Err: boom}}},
		"an error beats":       {map[int]int{1: 10, 2: 20}, coalesce.Errors[int]{2: boom}, [2]coalesce.Result[int]{{Val: 10}, {Err: boom}}},
		"a nil error is none":  {map[int]int{1: 10, 2: 20}, coalesce.Errors[int]{2: nil}, [2]coalesce.Result[int]{{Val: 10}, {Val: 20}}},
		"two errors":           {nil, coalesce.Errors[int]{1: bang, 2: boom}, [2]coalesce.Result[int]{{Err: bang}, {Err: boom}}},
		"error of one unasked": {map[int]int{1: 10, 2: 20}, coalesce.Errors[int]{3: boom}, [2]coalesce.Result[int]{{Val: 10}, {Val: 20}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := coalesce.Batcher[int, int]{Fetch: func(context.Context, []int) (map[int]int, error) { return c.m, c.err }}
			_, res := results(b.LoadAll(t.Context(), []int{1, 2}))
			for i, r := range res {
				require.Equal(t, c.want[i].Val, r.Val, i)
				require.Equal(t, c.want[i].Err, r.Err, i)
			}
		})
	}
}

func TestEveryEndOfAFetchReachesEveryCaller(t *testing.T) {
	for name, end := range ends {
		for _, endless := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/endless=%v", name, endless), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					finish := make(chan struct{})
					b := coalesce.Batcher[int, int]{Fetch: func(context.Context, []int) (map[int]int, error) {
						<-finish
						v, err := end()
						return map[int]int{1: v}, err
					}}
					ctx := t.Context()
					if endless {
						ctx = context.Background()
					}
					a := observe(func() coalesce.Result[int] {
						v, err := b.Load(ctx, 1)
						return coalesce.Result[int]{Val: v, Err: err}
					})
					synctest.Wait()
					c := observe(func() coalesce.Result[int] {
						v, err := b.Load(t.Context(), 1)
						return coalesce.Result[int]{Val: v, Err: err}
					})
					d := observe(func() coalesce.Result[int] {
						_, res := results(b.LoadAll(t.Context(), []int{1}))
						return res[0]
					})
					synctest.Wait()
					close(finish)
					synctest.Wait()
					for i, s := range []*seen{a, c, d} {
						require.True(t, s.over)
						err := s.result.Err
						if p, ok := s.panicked.(error); ok && s != d {
							err = p
						}
						switch name {
						case "return":
							require.NoError(t, err)
							require.Equal(t, 7, s.result.Val)
						case "error":
							require.ErrorIs(t, err, errWork)
						case "Goexit":
							if s == a && endless {
								require.False(t, s.returned, "its own goroutine has ended")
							} else {
								require.ErrorIs(t, err, coalesce.ErrGoexit)
							}
						default:
							p, ok := errors.AsType[*coalesce.PanicError](err)
							require.True(t, ok, "caller %d: %v", i, err)
							require.Contains(t, string(p.Stack), "outcome_test.go", "the stack of the panic")
							require.Equal(t, s == d, s.returned, "Load throws it, LoadAll returns it")
						}
					}
					require.Zero(t, b.Stats().InFlight)
				})
			})
		}
	}
}

func TestForgottenKeyIsFetchedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s squares
		b := coalesce.Batcher[int, int]{Fetch: s.fetch}
		a := loading(&b, t.Context(), 1)
		require.True(t, b.Forget(1))
		require.False(t, b.Forget(1))
		c := loading(&b, t.Context(), 1)
		require.False(t, b.Forget(1), "queued: it will see the write")
		require.Equal(t, 1, (<-a).Val)
		require.Equal(t, 1, (<-c).Val)
		require.Equal(t, [][]int{{1}, {1}}, s.batches)
	})
}

func TestFetchThatLoadsFromItsOwnBatcherIsReentrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b, other coalesce.Batcher[int, int]
		other.Fetch = func(context.Context, []int) (map[int]int, error) { return map[int]int{2: 4}, nil }
		b.Fetch = func(ctx context.Context, keys []int) (map[int]int, error) {
			v, err := other.Load(ctx, 2)
			require.NoError(t, err)
			require.Equal(t, 4, v)
			_, err = b.Load(context.WithValue(ctx, traceKey{}, 1), 2)
			return nil, err
		}
		_, err := b.Load(t.Context(), 1)
		require.ErrorIs(t, err, coalesce.ErrReentrant)
	})
}

func TestCloseFlushesAndThenRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s squares
		b := coalesce.Batcher[int, int]{Fetch: s.fetch, Linger: time.Hour}
		a := loading(&b, t.Context(), 2)
		begin := time.Now()
		require.NoError(t, b.Close(t.Context()))
		require.Equal(t, time.Second, time.Since(begin))
		require.Equal(t, 4, (<-a).Val)
		_, err := b.Load(t.Context(), 1)
		require.ErrorIs(t, err, coalesce.ErrClosed)
		_, res := results(b.LoadAll(t.Context(), []int{1, 2}))
		require.Equal(t, []coalesce.Result[int]{{Err: coalesce.ErrClosed}, {Err: coalesce.ErrClosed}}, res)
		require.NoError(t, b.Close(t.Context()))
	})
}

func TestCloseThatMustNotWaitEndsWhatRunsAndWhatIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s squares
		b := coalesce.Batcher[int, int]{Fetch: s.fetch}
		running, queued := loading(&b, t.Context(), 1), loading(&b, t.Context(), 2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, b.Close(ctx), context.DeadlineExceeded)
		require.ErrorIs(t, (<-queued).Err, coalesce.ErrClosed)
		require.ErrorIs(t, (<-running).Err, context.Canceled)
		require.Equal(t, []error{coalesce.ErrClosed}, s.causes)
		require.NoError(t, b.Close(t.Context()))
		require.Equal(t, [][]int{{1}}, s.batches)
	})
}

func TestLoadAllYieldsWhatIsThereWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s squares
		b := coalesce.Batcher[int, int]{Fetch: s.fetch, MaxBatch: 2}
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		got := maps.Collect(b.LoadAll(ctx, []int{1, 2, 3}))
		require.Equal(t, map[int]coalesce.Result[int]{
			1: {Val: 1, Waiters: 1},
			2: {Val: 4, Waiters: 1},
			3: {Err: context.DeadlineExceeded},
		}, got)
	})
}

func TestLoadAllLoadsAnewEachTimeAndOnlyWhenRanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s squares
		b := coalesce.Batcher[int, int]{Fetch: s.fetch}
		seq := b.LoadAll(t.Context(), []int{1, 2})
		require.Empty(t, s.batches)
		for range seq {
			break
		}
		results(seq)
		require.Equal(t, [][]int{{1, 2}, {1, 2}}, s.batches)
		results(b.LoadAll(t.Context(), nil))
		require.Len(t, s.batches, 2)
	})
}

func TestEndedContextAsksForNothing(t *testing.T) {
	var s squares
	b := coalesce.Batcher[int, int]{Fetch: s.fetch}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Load(ctx, 1)
	require.ErrorIs(t, err, context.Canceled)
	_, res := results(b.LoadAll(ctx, []int{1}))
	require.ErrorIs(t, res[0].Err, context.Canceled)
	require.Equal(t, coalesce.BatcherStats{}, b.Stats())
}

func TestBatcherFieldsThatMakeNoSensePanicAtFirstUse(t *testing.T) {
	fetch := new(squares).fetch
	for want, b := range map[string]*coalesce.Batcher[int, int]{
		"coalesce: Batcher.Fetch is nil, want a function":     {},
		"coalesce: Batcher.MaxBatch is -1, want 0 or more":    {Fetch: fetch, MaxBatch: -1},
		"coalesce: Batcher.MaxInFlight is -2, want 0 or more": {Fetch: fetch, MaxInFlight: -2},
		"coalesce: Batcher.Linger is -1s, want 0 or more":     {Fetch: fetch, Linger: -time.Second},
		"coalesce: Batcher.Timeout is -1ns, want 0 or more":   {Fetch: fetch, Timeout: -1},
	} {
		for range 2 { // the second use is no better
			require.PanicsWithValue(t, want, func() { _, _ = b.Load(t.Context(), 1) })
		}
		require.PanicsWithValue(t, want, func() { results(b.LoadAll(t.Context(), []int{1})) })
		require.PanicsWithValue(t, want, func() { b.Forget(1) })
		require.PanicsWithValue(t, want, func() { _ = b.Close(t.Context()) })
	}
}

func TestErrorsUnwrapToEachOfThem(t *testing.T) {
	boom, bang := errors.New("boom"), errors.New("bang")
	err := error(coalesce.Errors[string]{"a": boom, "b": bang, "c": nil})
	require.ErrorIs(t, err, boom)
	require.ErrorIs(t, err, bang)
	require.Equal(t, "coalesce: 1 of the keys failed, among them a: boom", coalesce.Errors[string]{"a": boom, "c": nil}.Error())
	require.Equal(t, "coalesce: no key failed", coalesce.Errors[string]{"c": nil}.Error())
}
