package coalesce_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// onProcs runs the test with one, two and four threads: they differ in which
// races can happen at all.
func onProcs(t *testing.T, test func(t *testing.T)) {
	for _, n := range []int{1, 2, 4} {
		t.Run("procs="+strconv.Itoa(n), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
			test(t)
		})
	}
}

func size(full int) int {
	if testing.Short() {
		return full / 10
	}
	return full
}

// No caller gets a result that was finished before it asked. A caller draws its
// ticket under the lock under which flights land: how many have landed. Flights
// of one key follow each other, so the n-th execution is the n-th to land, and a
// caller that has seen n landings must get the result of a later one.
func TestNoResultIsOlderThanItsCaller(t *testing.T) {
	onProcs(t, func(t *testing.T) {
		var g coalesce.Group[string, int64]
		var executions atomic.Int64
		fn := func(context.Context) (int64, error) {
			n := executions.Add(1)
			for range n % 4 {
				runtime.Gosched()
			}
			return n, nil
		}
		background, detached := context.Background(), t.Context()
		var callers sync.WaitGroup
		var stale, calls atomic.Int64
		for i := range 16 {
			callers.Go(func() {
				for j := range size(600) {
					ticket := g.Landed("k")
					var n int64
					switch (i + j) % 4 {
					case 0:
						n, _ = g.Do(background, "k", fn)
					case 1:
						n, _ = g.Do(detached, "k", fn)
					case 2:
						n = g.DoResult(detached, "k", fn).Val
					default:
						n = (<-g.DoChan(background, "k", fn)).Val
					}
					if n <= ticket {
						stale.Add(1)
					}
					calls.Add(1)
				}
			})
		}
		callers.Wait()
		require.Zero(t, stale.Load())
		s := g.Stats()
		require.Equal(t, calls.Load(), s.Executions+s.Joined)
		require.Equal(t, executions.Load(), s.Executions)
		require.Equal(t, executions.Load(), g.Landed("k"))
		require.Equal(t, coalesce.Stats{Executions: s.Executions, Joined: s.Joined}, s)
	})
}

// A caller that joins while the last other one leaves gets a flight that lives:
// whoever stays never sees the end of those who went. And while callers come,
// go and forget, no two executions of a key run that have neither been
// abandoned nor forgotten.
func TestCallersThatStayNeverSeeTheEndOfThoseWhoGo(t *testing.T) {
	type execution struct {
		ctx  context.Context
		done atomic.Bool
	}
	onProcs(t, func(t *testing.T) {
		var g coalesce.Group[int, int]
		const keys = 3
		var current [keys]atomic.Pointer[execution]
		work := func(key int) func(ctx context.Context) (int, error) {
			return func(ctx context.Context) (int, error) {
				e := &execution{ctx: ctx}
				defer e.done.Store(true)
				if old := current[key].Swap(e); old != nil && key != 0 { // key 0 is forgotten at times
					// The one before has ended in the critical section that let this one
					// begin; its context is told right after.
					for patience := 0; !old.done.Load() && old.ctx.Err() == nil; patience++ {
						if runtime.Gosched(); patience > 1e7 {
							t.Errorf("two executions of key %d", key)
							return 0, nil
						}
					}
				}
				for range rand.IntN(20) {
					runtime.Gosched()
					if err := ctx.Err(); err != nil {
						return 0, err
					}
				}
				return key, nil
			}
		}
		var callers sync.WaitGroup
		var stayed, left atomic.Int64
		for range 16 {
			callers.Go(func() {
				for range size(300) {
					key := rand.IntN(keys)
					goes, stays := rand.IntN(4) > 0, time.Hour
					if goes && rand.IntN(2) == 0 {
						stays = time.Duration(rand.IntN(20)) * time.Microsecond
					}
					ctx, leave := context.WithTimeout(t.Context(), stays)
					if goes && stays == time.Hour {
						go leave()
					}
					if key == 0 && rand.IntN(4) == 0 {
						g.Forget(0)
					}
					v, err := g.Do(ctx, key, work(key))
					switch {
					case err == nil && v != key:
						t.Errorf("the value of another key")
					case err != nil && !goes:
						t.Errorf("a caller that stays: %v", err)
					case err != nil:
						left.Add(1)
					default:
						stayed.Add(1)
					}
					leave()
				}
			})
		}
		callers.Wait()
		require.NotZero(t, stayed.Load())
		require.NotZero(t, left.Load(), "the test must see both")
		for g.Stats().InFlight > 0 {
			runtime.Gosched()
		}
		require.Zero(t, g.Listed())
		require.NotZero(t, g.Stats().Abandoned)
	})
}

// Panics and Goexit under load, from inline and detached flights alike: every
// caller gets one of the two, and the table is empty afterwards.
func TestPanicsAndGoexitUnderLoad(t *testing.T) {
	onProcs(t, func(t *testing.T) {
		var g coalesce.Group[int, int]
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				for range size(200) {
					key := rand.IntN(2)
					ctx := context.Background()
					if rand.IntN(2) == 0 {
						ctx = t.Context()
					}
					over := make(chan string, 1)
					go func() {
						how := "exited"
						defer func() {
							if recover() != nil {
								how = "panicked"
							}
							over <- how
						}()
						_, err := g.Do(ctx, key, func(context.Context) (int, error) {
							runtime.Gosched()
							if key == 0 {
								panic("work")
							}
							runtime.Goexit()
							return 0, nil
						})
						if errors.Is(err, coalesce.ErrGoexit) {
							how = "told"
						} else {
							how = "neither"
						}
					}()
					if how := <-over; key == 0 && how != "panicked" || key == 1 && how != "told" && how != "exited" {
						t.Errorf("key %d: %s", key, how)
					}
				}
			})
		}
		callers.Wait()
		require.Zero(t, g.Listed())
		s := g.Stats()
		require.Zero(t, s.InFlight)
		require.Nil(t, s.LostPanic)
	})
}
