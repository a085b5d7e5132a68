package shard_test

import (
	"context"
	"iter"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// A function may return its *StaleError variable although it is nil.
func TestANilStaleErrorIsAStaleMap(t *testing.T) {
	t.Parallel()
	r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{BufferTimeout: time.Millisecond})
	require.NotPanics(t, func() {
		err := r.Do(t.Context(), 7, func(context.Context, shard.Target[*handle]) error {
			var e *shard.StaleError
			return e
		})
		require.ErrorIs(t, err, shard.ErrStaleMap)
	})
	require.NotPanics(t, func() { var e *shard.StaleError; _ = e.Error() })
}

// There is no newer map to wait for.
func TestAStaleCallAtTheLastEpochIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, math.MaxUint64, "a"), shard.RouterOptions[*handle]{})
		calls := 0
		err := r.Do(t.Context(), 7, func(context.Context, shard.Target[*handle]) error { calls++; return shard.ErrStaleMap })
		require.ErrorIs(t, err, shard.ErrStaleMap)
		require.Equal(t, 1, calls, "there is no newer map to repeat it by")
	})
}

// An epoch of 0 means any that is newer.
func TestAStaleErrorWithoutAnEpochSaysSo(t *testing.T) {
	t.Parallel()
	require.NotContains(t, (&shard.StaleError{}).Error(), "epoch 0 or later")
}

// The first look in await. The newer map is there: nobody waits, so a buffer of
// none does not matter.
func TestACallWhoseNewerMapIsThereNeedsNoBuffer(t *testing.T) {
	t.Parallel()
	r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{Buffer: -1})
	calls := 0
	require.NoError(t, r.Do(t.Context(), 7, func(_ context.Context, target shard.Target[*handle]) error {
		if calls++; calls == 1 {
			require.NoError(t, r.Update(one(t, 2, "b")))
			return shard.ErrStaleMap
		}
		return nil
	}))
	require.Zero(t, r.Stats().BufferFull)
}

// Without an epoch, or with one that is not newer, any newer map will
// do, and the one in use will not.
func TestWithoutAnEpochAnyNewerMapWillDo(t *testing.T) {
	for _, says := range []error{shard.ErrStaleMap, &shard.StaleError{}, &shard.StaleError{Epoch: 4}, &shard.StaleError{Epoch: 5}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRouter(t, &nodes{}, one(t, 5, "a"), shard.RouterOptions[*handle]{})
			done := make(chan error, 1)
			calls := 0
			go func() {
				done <- r.Do(t.Context(), 7, func(_ context.Context, target shard.Target[*handle]) error {
					if calls++; target.Epoch == 5 {
						return says
					}
					return nil
				})
			}()
			synctest.Wait()
			require.Equal(t, int64(1), r.Stats().Waiting)
			require.Equal(t, 1, calls)
			require.NoError(t, r.Update(one(t, 6, "b")))
			require.NoError(t, <-done)
			require.Equal(t, 2, calls)
		})
	}
}

// A call that needs less than the one that asks the sources goes on first.
func TestACallThatNeedsLessDoesNotWaitForMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
		var calls atomic.Int64
		asks, waits := make(chan error, 1), make(chan error, 1)
		go func() { asks <- r.Do(t.Context(), 7, stale(3, &calls)) }()
		synctest.Wait()
		go func() { waits <- r.Do(t.Context(), 7, stale(2, &calls)) }()
		synctest.Wait()
		start := time.Now()
		require.NoError(t, r.Update(one(t, 2, "b")))
		require.NoError(t, <-waits)
		require.Zero(t, time.Since(start))
		require.NoError(t, r.Update(one(t, 3, "c")))
		require.NoError(t, <-asks)
	})
}

// The context of a call that waits while another asks.
func TestACallThatWaitsForAnothersQuestionEndsByItsOwnContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
		var calls atomic.Int64
		asks, waits := make(chan error, 1), make(chan error, 1)
		go func() { asks <- r.Do(t.Context(), 7, stale(2, &calls)) }()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		go func() { waits <- r.Do(ctx, 7, stale(2, &calls)) }()
		synctest.Wait()
		start := time.Now()
		cancel()
		require.ErrorIs(t, <-waits, context.Canceled)
		require.Zero(t, time.Since(start))
		require.NoError(t, r.Update(one(t, 2, "b")))
		require.NoError(t, <-asks)
	})
}

// A map that is there when the context ends is not refused.
func TestAMapThatCameBeforeTheEndOfTheContextCounts(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			var calls atomic.Int64
			go func() { done <- r.Do(ctx, 7, stale(2, &calls)) }()
			synctest.Wait()
			require.NoError(t, r.Update(one(t, 2, "b")))
			cancel()
			require.NoError(t, <-done)
		})
	}
}

// Ended. The caller's own deadline is told as such, once.
func TestTheCallersDeadlineIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := r.Do(ctx, 7, func(context.Context, shard.Target[*handle]) error { return shard.ErrStaleMap })
		require.EqualError(t, err, "context deadline exceeded: shard: stale map")
	})
}

type loader func(context.Context) (*shard.Map, error)

func (l loader) Load(ctx context.Context) (*shard.Map, error) { return l(ctx) }
func (l loader) Watch(ctx context.Context) iter.Seq2[*shard.Map, error] {
	return func(func(*shard.Map, error) bool) { <-ctx.Done() }
}

// A source that hangs until its context ends must not keep a healthy one from being asked again.
func TestASourceThatHangsHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
		hangs := loader(func(ctx context.Context) (*shard.Map, error) { <-ctx.Done(); return nil, ctx.Err() })
		published := time.Now().Add(50 * time.Millisecond)
		healthy := loader(func(context.Context) (*shard.Map, error) {
			if time.Now().Before(published) {
				return one(t, 1, "a"), nil
			}
			return one(t, 2, "b"), nil
		})
		stop1, stop2 := follow(t, r, hangs), follow(t, r, healthy)
		start := time.Now()
		err := r.Do(t.Context(), 7, func(_ context.Context, target shard.Target[*handle]) error {
			if target.Epoch < 2 {
				return &shard.StaleError{Epoch: 2}
			}
			return nil
		})
		took := time.Since(start)
		stop1()
		stop2()
		require.NoError(t, err)
		require.Less(t, took, 2*time.Second)
	})
}

// Nor may one that does not look at its context hold a call beyond the end of its own.
func TestASourceThatIgnoresItsContextHoldsNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{BufferTimeout: time.Second})
		stop := follow(t, r, loader(func(context.Context) (*shard.Map, error) { time.Sleep(time.Minute); return one(t, 1, "a"), nil }))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		start := time.Now()
		err := r.Do(ctx, 7, func(context.Context, shard.Target[*handle]) error { return shard.ErrStaleMap })
		took := time.Since(start)
		stop()
		time.Sleep(2 * time.Minute)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 50*time.Millisecond, took)
	})
}

// Nor after the newer map is in use.
func TestASourceThatIgnoresItsContextHoldsNoCallAfterTheUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
		stop := follow(t, r, loader(func(context.Context) (*shard.Map, error) { time.Sleep(time.Minute); return one(t, 1, "a"), nil }))
		done := make(chan error, 1)
		go func() {
			done <- r.Do(t.Context(), 7, func(_ context.Context, target shard.Target[*handle]) error {
				if target.Epoch < 2 {
					return shard.ErrStaleMap
				}
				return nil
			})
		}()
		synctest.Wait()
		start := time.Now()
		require.NoError(t, r.Update(one(t, 2, "b")))
		err := <-done
		took := time.Since(start)
		stop()
		time.Sleep(2 * time.Minute)
		require.NoError(t, err)
		require.Zero(t, took)
	})
}

// The first pause is some milliseconds, and pauses stop growing at a second.
func TestTheSourcesAreAskedSoonAndOften(t *testing.T) {
	for _, published := range []time.Duration{15 * time.Millisecond, 30 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{BufferTimeout: time.Hour})
			s := newMemory()
			s.m.Store(one(t, 1, "a"))
			stop := follow(t, r, s)
			time.AfterFunc(published, func() { s.m.Store(one(t, 2, "b")) })
			start := time.Now()
			var calls atomic.Int64
			require.NoError(t, r.Do(t.Context(), 7, stale(2, &calls)))
			require.LessOrEqual(t, time.Since(start), min(2*published, published+time.Second))
			require.LessOrEqual(t, s.loads.Load(), 20+int64(published/time.Second), "with growing pauses")
			stop()
		})
	}
}

// A wait that has ended leaves nothing behind in the caller's context.
func TestAWaitLeavesNoTimerBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
		var seen context.Context
		s := loader(func(ctx context.Context) (*shard.Map, error) { seen = ctx; return one(t, 2, "b"), nil })
		stop := follow(t, r, s)
		var calls atomic.Int64
		require.NoError(t, r.Do(t.Context(), 7, stale(2, &calls)))
		synctest.Wait()
		require.ErrorIs(t, seen.Err(), context.Canceled, "the context of the question has ended with the call")
		stop()
	})
}

// AddSource's ids. Of two sources that are followed both are asked, and the end
// of one does not remove the other.
func TestEverySourceIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{BufferTimeout: time.Second})
		first, second := newMemory(), newMemory()
		first.m.Store(one(t, 1, "a"))
		second.m.Store(one(t, 1, "a"))
		stopFirst, stopSecond := follow(t, r, first), follow(t, r, second)
		var calls atomic.Int64
		require.Error(t, r.Do(t.Context(), 7, stale(2, &calls)))
		require.Positive(t, first.loads.Load())
		require.Positive(t, second.loads.Load())
		stopSecond()
		before := first.loads.Load()
		require.Error(t, r.Do(t.Context(), 7, stale(2, &calls)))
		require.Greater(t, first.loads.Load(), before)
		stopFirst()
	})
}

// An error of Load that comes because nobody waits any more is not the source's.
func TestAnAbandonedQuestionIsNoErrorOfTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
		s := newMemory()
		s.slow = time.Hour
		stop := follow(t, r, s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var calls atomic.Int64
		require.ErrorIs(t, r.Do(ctx, 7, stale(2, &calls)), context.DeadlineExceeded)
		synctest.Wait()
		require.Zero(t, r.Stats().SourceErrors)
		stop()
	})
}

// A scatter that meets a stale shard is repeated as a whole, by the newer map, and has all
// its handles until it has returned.
func TestDoAllRepeatsTheWholeByTheNewerMap(t *testing.T) {
	t.Parallel()
	n := &nodes{}
	left, right := parse(t, "-80"), parse(t, "80-")
	r := newRouter(t, n, newMap(t, 1, shard.Shard{Range: left, Node: "a"}, shard.Shard{Range: right, Node: "b"}), shard.RouterOptions[*handle]{})
	var epochs []uint64
	err := r.DoAll(t.Context(), func(ctx context.Context, all shard.Snapshot[*handle]) error {
		epochs = append(epochs, all.Map().Epoch())
		_, err := gather.Scatter(ctx, all.Map().All(), func(_ context.Context, s *shard.Shard) (int, error) {
			if s.Node == "b" {
				require.NoError(t, r.Update(newMap(t, 2, shard.Shard{Range: left, Node: "a"}, shard.Shard{Range: right, Node: "c"})))
				return 0, &shard.StaleError{Epoch: 2}
			}
			return 1, nil
		}, gather.Options{})
		for node := range all.Map().ByNode() {
			h, ok := all.Node(node)
			require.True(t, ok)
			require.True(t, n.IsOpen(h))
		}
		return err
	})
	require.NoError(t, err)
	require.Equal(t, []uint64{1, 2}, epochs)
	require.Equal(t, []string{"a", "c"}, n.Names())
}

func TestABufferThatIsFullOrLateSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{Buffer: 1, BufferTimeout: time.Second})
		var calls atomic.Int64
		late := make(chan error, 1)
		go func() { late <- r.Do(t.Context(), 7, stale(2, &calls)) }()
		synctest.Wait()
		for range 3 { // one that was refused takes nobody's place
			err := r.Do(t.Context(), 7, stale(2, &calls))
			require.ErrorIs(t, err, shard.ErrBufferFull)
			require.ErrorContains(t, err, "newer map: 1: ")
			require.Equal(t, int64(1), r.Stats().Waiting)
		}
		err := <-late
		require.ErrorIs(t, err, shard.ErrBufferTimeout)
		require.NotErrorIs(t, err, shard.ErrBufferFull)
	})
}
