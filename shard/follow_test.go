package shard_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
)

// memory is a Source whose map and whose failures the test sets.
type memory struct {
	m       atomic.Pointer[shard.Map]
	failure error         // what Load returns, if not nil
	slow    time.Duration // how long Load takes
	loads   atomic.Int64
	loading atomic.Int64
	most    atomic.Int64 // loads at one time
	said    chan event   // what Watch yields
}

type event struct {
	m   *shard.Map
	err error
}

func newMemory() *memory { return &memory{said: make(chan event)} }

func (s *memory) Load(ctx context.Context) (*shard.Map, error) {
	s.loads.Add(1)
	s.most.Store(max(s.most.Load(), s.loading.Add(1)))
	defer s.loading.Add(-1)
	select {
	case <-time.After(s.slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s.failure != nil {
		return nil, s.failure
	}
	return s.m.Load(), nil
}

func (s *memory) Watch(ctx context.Context) iter.Seq2[*shard.Map, error] {
	return func(yield func(*shard.Map, error) bool) {
		for {
			select {
			case e, open := <-s.said:
				if !open || !yield(e.m, e.err) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

func one(t require.TestingT, epoch uint64, node string) *shard.Map {
	return newMap(t, epoch, shard.Shard{Node: node})
}

// follow runs Follow in the bubble until the test ends.
func follow(t *testing.T, r *shard.Router[shard.ID, *handle], s shard.Source) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Follow(ctx, s) }()
	synctest.Wait()
	return func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	}
}

func TestFollowPutsTheNewestMapToUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := newRouter(t, &nodes{refused: "gone"}, one(t, 1, "a"), shard.RouterOptions[*handle]{Log: slog.New(slog.NewTextHandler(&log, nil))})
		first, second := newMemory(), newMemory()
		stopFirst, stopSecond := follow(t, r, first), follow(t, r, second)

		say := func(s *memory, m *shard.Map, err error, epoch uint64) {
			t.Helper()
			s.said <- event{m, err}
			synctest.Wait()
			require.Equal(t, epoch, r.Stats().Epoch)
		}
		say(first, one(t, 3, "b"), nil, 3)
		say(second, one(t, 2, "a"), nil, 3) // a source that is behind is no error
		say(second, one(t, 3, "b"), nil, 3)
		require.Zero(t, r.Stats().Refused)
		say(second, one(t, 3, "c"), nil, 3) // split brain
		say(first, one(t, 4, "gone"), nil, 3)
		say(first, nil, nil, 3)
		require.Equal(t, int64(3), r.Stats().Refused)
		say(first, nil, errNotThere, 3) // down, and the last map is in use
		say(second, nil, errNotThere, 3)
		require.Equal(t, int64(2), r.Stats().SourceErrors)
		require.Equal(t, "b", r.Route(7).Node.name)
		say(second, one(t, 5, "d"), nil, 5)
		stopFirst()
		say(second, one(t, 6, "e"), nil, 6)
		stopSecond()
		for _, line := range []string{"two maps of one epoch", `unknown node \"gone\"`, "not there", "epoch=6"} {
			require.Contains(t, log.String(), line)
		}
	})
}

func TestFollowSaysWhenItsSourceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
		s := newMemory()
		close(s.said)
		require.ErrorContains(t, r.Follow(t.Context(), s), "ended its watch")
		require.ErrorContains(t, r.Follow(t.Context(), nil), "source is nil")
	})
}

// stale is a call that the fence of a shard refuses below an epoch.
func stale(below uint64, calls *atomic.Int64) func(context.Context, shard.Target[*handle]) error {
	return func(_ context.Context, target shard.Target[*handle]) error {
		calls.Add(1)
		if target.Epoch < below {
			return fmt.Errorf("write: %w", &shard.StaleError{Epoch: below})
		}
		return nil
	}
}

func TestAStaleCallWaitsForTheMapItNeedsAndTriesOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
		var calls atomic.Int64
		done := make(chan error, 1)
		go func() { done <- r.Do(t.Context(), 7, stale(3, &calls)) }()
		synctest.Wait()
		require.Equal(t, int64(1), r.Stats().Waiting)
		require.NoError(t, r.Update(one(t, 2, "a"))) // newer, and not new enough
		synctest.Wait()
		require.Equal(t, int64(1), calls.Load())
		time.Sleep(5 * time.Second)
		require.NoError(t, r.Update(one(t, 3, "b")))
		require.NoError(t, <-done)
		require.Equal(t, int64(2), calls.Load())
		require.Equal(t, shard.RouterStats{Epoch: 3, Calls: 1, StaleCalls: 1, Updates: 3}, r.Stats())
	})
}

func TestAStaleCallIsRepeatedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
		calls := 0
		err := r.Do(t.Context(), 7, func(context.Context, shard.Target[*handle]) error {
			calls++
			require.NoError(t, r.Update(one(t, uint64(calls)+1, "a"))) // always a newer one
			return shard.ErrStaleMap
		})
		require.ErrorIs(t, err, shard.ErrStaleMap)
		require.Equal(t, 2, calls)
	})
}

func TestOtherErrorsAreReturnedAsTheyAre(t *testing.T) {
	t.Parallel()
	r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
	calls := 0
	err := r.Do(t.Context(), 7, func(context.Context, shard.Target[*handle]) error { calls++; return errNotThere })
	require.Equal(t, errNotThere, err)
	require.Equal(t, 1, calls)
}

func TestAStaleCallAsksTheSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
		down, up := newMemory(), newMemory()
		down.failure = errNotThere
		up.slow = 30 * time.Millisecond
		up.m.Store(one(t, 1, "a"))
		stopDown, stopUp := follow(t, r, down), follow(t, r, up)
		var calls atomic.Int64
		const callers = 50
		done := make(chan error, callers)
		for range callers {
			go func() { done <- r.Do(t.Context(), 7, stale(2, &calls)) }()
		}
		time.Sleep(300 * time.Millisecond)
		require.Equal(t, int64(callers), calls.Load())
		up.m.Store(one(t, 2, "b"))
		for range callers {
			require.NoError(t, <-done)
		}
		require.Equal(t, int64(1), up.most.Load(), "one call asks for all")
		require.Less(t, up.loads.Load(), int64(10), "with growing pauses")
		require.Positive(t, r.Stats().SourceErrors)
		stopDown()
		stopUp()

		loads := up.loads.Load() // a source that is no longer followed is not asked
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, r.Do(ctx, 7, stale(3, &calls)), context.DeadlineExceeded)
		require.Equal(t, loads, up.loads.Load())
	})
}

// The update ends the question to a source that hangs.
func TestAnUpdateFreesTheCallThatAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
		s := newMemory()
		s.slow = time.Hour
		stop := follow(t, r, s)
		var calls atomic.Int64
		done := make(chan error, 2)
		for range 2 {
			go func() { done <- r.Do(t.Context(), 7, stale(2, &calls)) }()
		}
		synctest.Wait()
		start := time.Now()
		require.NoError(t, r.Update(one(t, 2, "b")))
		require.NoError(t, <-done)
		require.NoError(t, <-done)
		require.Zero(t, time.Since(start))
		synctest.Wait()
		require.Zero(t, s.loading.Load(), "and the question has ended")
		stop()
	})
}

// The call that asks the sources ends by its own context; another takes over.
func TestAnotherCallTakesOverTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
		s := newMemory()
		s.m.Store(one(t, 1, "a"))
		stop := follow(t, r, s)
		var calls atomic.Int64
		ctx, cancel := context.WithCancelCause(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- r.Do(ctx, 7, stale(2, &calls)) }()
		synctest.Wait()
		go func() { second <- r.Do(t.Context(), 7, stale(2, &calls)) }()
		synctest.Wait()
		start := time.Now()
		cancel(errNotThere)
		err := <-first
		require.Zero(t, time.Since(start))
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, errNotThere)
		require.ErrorIs(t, err, shard.ErrStaleMap)
		s.m.Store(one(t, 2, "b"))
		require.NoError(t, <-second)
		stop()
	})
}

func TestTheBufferIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		for name, c := range map[string]struct {
			o       shard.RouterOptions[*handle]
			waiting int
			timeout time.Duration
		}{
			"by default": {shard.RouterOptions[*handle]{}, 1000, 10 * time.Second},
			"as asked":   {shard.RouterOptions[*handle]{Buffer: 3, BufferTimeout: time.Minute}, 3, time.Minute},
			"off":        {shard.RouterOptions[*handle]{Buffer: -1}, 0, 0},
		} {
			r := newRouter(t, &nodes{}, one(t, 1, "a"), c.o)
			done := make(chan error, c.waiting)
			start := time.Now()
			for range c.waiting {
				go func() { done <- r.Do(t.Context(), 7, stale(2, &calls)) }()
			}
			synctest.Wait()
			err := r.Do(t.Context(), 7, stale(2, &calls))
			require.ErrorIs(t, err, shard.ErrBufferFull, name)
			require.ErrorIs(t, err, shard.ErrStaleMap, name)
			require.Zero(t, time.Since(start), name)
			require.Equal(t, int64(1), r.Stats().BufferFull, name)
			for range c.waiting {
				err := <-done
				require.ErrorIs(t, err, shard.ErrStaleMap, name)
				require.NotErrorIs(t, err, shard.ErrBufferFull, name)
				require.ErrorContains(t, err, fmt.Sprintf("no map of epoch 2 or later within %v", c.timeout), name)
			}
			require.Equal(t, c.timeout, time.Since(start), name)
			require.Zero(t, r.Stats().Waiting, name)
		}
	})
}

func TestACallThatFailsInItsWorkLeavesNothingHeld(t *testing.T) {
	t.Parallel()
	n := &nodes{}
	r := newRouter(t, n, one(t, 1, "a"), shard.RouterOptions[*handle]{})
	require.Panics(t, func() {
		_ = r.Do(t.Context(), 7, func(context.Context, shard.Target[*handle]) error { panic("in the work") })
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Do(t.Context(), 7, func(context.Context, shard.Target[*handle]) error { runtime.Goexit(); return nil })
	}()
	<-done
	require.NoError(t, r.Update(one(t, 2, "b")))
	require.Equal(t, []string{"b"}, n.Names())
}

// The source says a map once; a node that could not be opened then may be there a moment later.
func TestAMapThatOpenRefusedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var works atomic.Bool
		r, err := shard.NewRouter(identity, one(t, 1, "a"), func(node string) (string, error) {
			if node == "b" && !works.Load() {
				return "", errors.New("the secret store is down")
			}
			return node, nil
		}, shard.RouterOptions[string]{})
		require.NoError(t, err)
		s := newMemory()
		s.m.Store(one(t, 2, "b"))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Follow(ctx, s) }()
		s.said <- event{one(t, 2, "b"), nil}
		time.Sleep(10 * time.Second) // tried after 1, 3 and 7 s
		require.Equal(t, int64(4), r.Stats().Refused)
		works.Store(true)
		time.Sleep(4 * time.Second)
		require.Equal(t, uint64(1), r.Stats().Epoch)
		time.Sleep(2 * time.Second) // and after 15
		require.Equal(t, uint64(2), r.Stats().Epoch)
		require.Equal(t, "b", r.Route(7).Node)
		time.Sleep(time.Hour)
		require.Equal(t, int64(4), r.Stats().Refused, "no more")
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

// The zero Map has epoch 0, and is yet no map that is merely behind.
func TestTheZeroMapFromASourceIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
		s := newMemory()
		stop := follow(t, r, s)
		s.said <- event{new(shard.Map), nil}
		synctest.Wait()
		refused := r.Stats().Refused
		stop()
		require.Equal(t, int64(1), refused)
	})
}

// A newer map may come while an older one is being looked at: that is no refusal.
func TestASourceThatIsOvertakenIsNotRefused(t *testing.T) {
	t.Parallel()
	opening, opened := make(chan struct{}), make(chan struct{})
	r, err := shard.NewRouter(identity, one(t, 1, "a"), func(node string) (string, error) {
		if node == "slow" {
			close(opening)
			<-opened
		}
		return node, nil
	}, shard.RouterOptions[string]{})
	require.NoError(t, err)
	var all sync.WaitGroup
	all.Go(func() { require.NoError(t, r.Update(one(t, 3, "slow"))) })
	<-opening
	s := newMemory()
	ctx, cancel := context.WithCancel(t.Context())
	all.Go(func() { _ = r.Follow(ctx, s) })
	s.said <- event{one(t, 2, "b"), nil} // behind the map that is being put to use
	for buf := make([]byte, 1<<20); !strings.Contains(string(buf[:runtime.Stack(buf, true)]), "heard("); {
		runtime.Gosched()
	}
	for range 1000 {
		runtime.Gosched()
	}
	close(opened)
	s.said <- event{one(t, 3, "slow"), nil}
	cancel()
	all.Wait()
	require.Zero(t, r.Stats().Refused)
}

// A source that does not look at its context is left at its next map.
type endless struct{ t *testing.T }

func (endless) Load(context.Context) (*shard.Map, error) { return nil, errNotThere }
func (s endless) Watch(context.Context) iter.Seq2[*shard.Map, error] {
	return func(yield func(*shard.Map, error) bool) {
		for epoch := uint64(2); epoch < 100; epoch++ {
			time.Sleep(time.Second)
			if !yield(one(s.t, epoch, "a"), nil) {
				return
			}
		}
	}
}

func TestFollowEndsWithItsContextAtTheNextMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, r.Follow(ctx, endless{t}), context.DeadlineExceeded)
		require.LessOrEqual(t, r.Stats().Epoch, uint64(3))
	})
}

// Follow may begin and end while calls ask. Meant for -race.
func TestFollowsComeAndGoWhileCallsAsk(t *testing.T) {
	t.Parallel()
	r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{BufferTimeout: time.Nanosecond})
	s := loader(func(context.Context) (*shard.Map, error) { return one(t, 1, "a"), nil })
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				_ = r.Follow(ctx, s)
			}
		})
		all.Go(func() {
			var calls atomic.Int64
			for range 200 {
				_ = r.Do(t.Context(), 7, stale(2, &calls))
			}
		})
	}
	all.Wait()
}
