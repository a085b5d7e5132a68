package coalesce_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// What the tests and the bug reports of other libraries ask, and the other tests of
// this package do not. Each names where it is from; docs/coalesce-peers.md has those
// that the others fail.

// resenje.org/singleflight, TestDo_multipleCallsCanceled and janos/singleflight#4:
// whichever caller stays, it keeps the work, and so does who joins it after that.
func TestWhicheverCallerStaysKeepsTheWork(t *testing.T) {
	for stays := range 5 {
		t.Run(strconv.Itoa(stays), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var g coalesce.Group[string, int]
				leave := make([]context.CancelFunc, 5)
				calls := make([]<-chan coalesce.Result[int], 5)
				for i := range calls {
					var ctx context.Context
					ctx, leave[i] = context.WithCancel(t.Context())
					defer leave[i]()
					calls[i] = g.DoChan(ctx, "k", func(ctx context.Context) (int, error) {
						time.Sleep(time.Second)
						return i, ctx.Err()
					})
				}
				for i := range calls {
					if i != stays {
						leave[i]()
						require.ErrorIs(t, (<-calls[i]).Err, context.Canceled)
					}
				}
				late := g.DoChan(t.Context(), "k", mustNotRun)
				want := coalesce.Result[int]{Val: 0, Shared: true, Waiters: 2}
				require.Equal(t, want, <-calls[stays])
				require.Equal(t, want, <-late)
			})
		})
	}
}

// tailscale/tailscale#18919: who comes when all others have left does not get the
// error of their work, which was cancelled and has not yet returned.
func TestWhoComesAfterAllHaveLeftIsNotCancelled(t *testing.T) {
	for name, policy := range map[string]coalesce.AbandonPolicy{
		"CancelWork": coalesce.CancelWork, "KeepRunning": coalesce.KeepRunning, "Exclusive": coalesce.Exclusive,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := coalesce.Group[string, int]{Abandon: policy}
				slowToObey := func(ctx context.Context) (int, error) {
					time.Sleep(time.Second)
					return 1, ctx.Err()
				}
				ctx, leave := context.WithCancel(t.Context())
				gone := g.DoChan(ctx, "k", slowToObey)
				leave()
				require.ErrorIs(t, (<-gone).Err, context.Canceled)
				r := <-g.DoChan(t.Context(), "k", slowToObey)
				require.NoError(t, r.Err)
				require.Equal(t, 1, r.Val)
			})
		})
	}
}

// janos/singleflight#14: a caller that has left forgets the key while others wait. The
// end of that flight leaves the one that followed.
func TestForgetByACallerThatHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		one, two := make(chan struct{}), make(chan struct{})
		ctx, leave := context.WithCancel(t.Context())
		gone := g.DoChan(ctx, "k", until(one, 1))
		stays := g.DoChan(t.Context(), "k", mustNotRun)
		leave()
		<-gone
		require.True(t, g.Forget("k"))
		later := g.DoChan(t.Context(), "k", until(two, 2))
		close(one)
		require.Equal(t, 1, (<-stays).Val)
		latest := g.DoChan(t.Context(), "k", mustNotRun)
		close(two)
		require.Equal(t, 2, (<-later).Val)
		require.Equal(t, 2, (<-latest).Val)
	})
}

// otter, TestCache_GetWaiterSharesFailureOfTheKey: a panic is one of the key, also if
// the starter's context has ended, and even if it is that context's error.
func TestPanicIsSharedThoughTheStarterIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		ctx, die := context.WithCancel(t.Context())
		finish := make(chan struct{})
		gone := g.DoChan(ctx, "k", func(context.Context) (int, error) { <-finish; panic(context.Canceled) })
		stays := g.DoChan(t.Context(), "k", mustNotRun)
		die()
		<-gone
		close(finish)
		var p *coalesce.PanicError
		require.ErrorAs(t, (<-stays).Err, &p)
		require.EqualValues(t, 1, g.Stats().Executions)
	})
}

// graph-gophers/dataloader#64: a nil value is a value.
func TestNilValueOfAFetchIsFound(t *testing.T) {
	b := coalesce.Batcher[string, *int]{Fetch: func(context.Context, []string) (map[string]*int, error) {
		return map[string]*int{"nil": nil}, nil
	}}
	v, err := b.Load(t.Context(), "nil")
	require.NoError(t, err)
	require.Nil(t, v)
	_, err = b.Load(t.Context(), "none")
	require.Equal(t, coalesce.ErrNotFound, err)
}

// dataloadgen, convertMappedFetch: there a nil error for a key that is missing makes it
// (0, nil).
func TestNilErrorOfAMissingKeyIsNotAValue(t *testing.T) {
	b := coalesce.Batcher[int, int]{Fetch: func(context.Context, []int) (map[int]int, error) {
		return nil, coalesce.Errors[int]{1: nil}
	}}
	_, err := b.Load(t.Context(), 1)
	require.Equal(t, coalesce.ErrNotFound, err)
}

// The keys are the fetch's own: dataloadgen and graph-gophers find the results by their
// place among them.
func TestFetchMayChangeItsKeys(t *testing.T) {
	for name, change := range map[string]func([]int){"reverse": slices.Reverse[[]int], "clear": func(keys []int) { clear(keys) }} {
		t.Run(name, func(t *testing.T) {
			b := coalesce.Batcher[int, int]{Fetch: func(_ context.Context, keys []int) (map[int]int, error) {
				m := map[int]int{}
				for _, k := range keys {
					m[k] = 10 * k
				}
				change(keys)
				return m, nil
			}}
			keys, res := results(b.LoadAll(t.Context(), []int{1, 2, 3, 2}))
			require.Equal(t, []int{1, 2, 3, 2}, keys)
			for i, r := range res {
				require.NoError(t, r.Err)
				require.Equal(t, 10*keys[i], r.Val)
			}
		})
	}
}

// graph-gophers/dataloader#113: keys that come as a window ends, and fill the batch at
// that moment, are lost there.
func TestNoKeyIsLostWhereLingerMeetsAFullBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fetched, keys atomic.Int64
		b := coalesce.Batcher[int, int]{
			Linger: 10 * time.Millisecond, MaxBatch: 3, MaxInFlight: 1000,
			Fetch: func(_ context.Context, ks []int) (map[int]int, error) {
				fetched.Add(int64(len(ks)))
				m := map[int]int{}
				for _, k := range ks {
					m[k] = k + 1
				}
				return m, nil
			},
		}
		var all sync.WaitGroup
		load := func(key int) {
			all.Go(func() {
				keys.Add(1)
				if v, err := b.Load(t.Context(), key); err != nil || v != key+1 {
					t.Errorf("key %d: %d, %v", key, v, err)
				}
			})
		}
		for round := range 300 {
			load(10 * round)
			time.Sleep(10 * time.Millisecond) // to the moment when it stops to linger
			for i := range round % 5 {
				load(10*round + 1 + i)
			}
			if round%2 == 0 {
				synctest.Wait()
			}
		}
		all.Wait()
		require.Equal(t, keys.Load(), fetched.Load(), "each once")
	})
}

// dataloadgen and graph-gophers, "test thunkmany does not contain race conditions".
func TestOneSequenceIsRangedOverByMany(t *testing.T) {
	b := coalesce.Batcher[int, int]{Fetch: func(_ context.Context, keys []int) (map[int]int, error) {
		m := map[int]int{}
		for _, k := range keys {
			m[k] = 10 * k
		}
		return m, nil
	}}
	c := newCache(t, coalesce.CacheOptions[int, int]{Capacity: 2}, func(_ context.Context, key int) (int, error) { return 10 * key, nil })
	for name, seq := range map[string]iter.Seq2[int, coalesce.Result[int]]{
		"LoadAll": b.LoadAll(t.Context(), []int{1, 2, 3}),
		"GetAll":  c.GetAll(t.Context(), []int{1, 2, 3}),
	} {
		t.Run(name, func(t *testing.T) {
			var all sync.WaitGroup
			for range 16 {
				all.Go(func() {
					for range 50 {
						keys, res := results(seq)
						if !slices.Equal(keys, []int{1, 2, 3}) || res[0].Val != 10 || res[1].Val != 20 || res[2].Val != 30 {
							t.Errorf("%v: %v", keys, res)
						}
					}
				})
			}
			all.Wait()
		})
	}
}

// bothCaches runs a test of the keys "k" and "l" with each kind of cache. Load is called
// for each key that is loaded.
func bothCaches(t *testing.T, o stringOptions, load func(ctx context.Context, key string) (int, error), test func(t *testing.T, c *stringCache)) {
	for _, kind := range []string{"single", "batch"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if kind == "single" {
					test(t, newCache(t, o, load))
					return
				}
				test(t, newBatchCache(t, &stringBatcher{MaxBatch: 1, MaxInFlight: 10, Fetch: func(ctx context.Context, keys []string) (map[string]int, error) {
					v, err := load(ctx, keys[0])
					return map[string]int{keys[0]: v}, err
				}}, o))
			})
		})
	}
}

// otter, TestCache_BulkGetReloadsWhenOwnerContextFails: here it need not load again.
func TestGetAllKeepsTheLoadOfAGetThatWasCancelled(t *testing.T) {
	x := &backend{takes: time.Second}
	bothCaches(t, stringOptions{Capacity: 10}, x.load, func(t *testing.T, c *stringCache) {
		x.calls.Store(0)
		ctx, leave := context.WithCancel(t.Context())
		gone := observe(func() (r coalesce.Result[int]) { r.Val, r.Err = c.Get(ctx, "k"); return r })
		synctest.Wait()
		all := make(chan []string)
		go func() { all <- lines(c.GetAll(t.Context(), []string{"k", "l"})) }()
		synctest.Wait()
		leave()
		require.Equal(t, []string{"k=1", "l=2"}, <-all)
		synctest.Wait()
		require.ErrorIs(t, gone.result.Err, context.Canceled)
		require.EqualValues(t, 2, x.calls.Load())
	})
}

// otter#137 and TestCache_GetStopsReloadingInvalidatedKeyWhenContextEnds: a key that is
// invalidated again and again holds up nobody. Who asked before has the load that began
// then, and never a zero value without an error.
func TestGetIsNotHeldUpByInvalidations(t *testing.T) {
	for name, invalidate := range map[string]func(*stringCache){
		"Invalidate": func(c *stringCache) { c.Invalidate("k") },
		"Clear":      (*stringCache).Clear,
	} {
		t.Run(name, func(t *testing.T) {
			x := &backend{takes: time.Second}
			bothCaches(t, stringOptions{Capacity: 10}, x.load, func(t *testing.T, c *stringCache) {
				x.calls.Store(0)
				begin := time.Now()
				var all sync.WaitGroup
				for n := 1; n <= 20; n++ {
					all.Go(func() {
						asked := time.Now()
						v, err := c.Get(t.Context(), "k")
						assert.NoError(t, err)
						assert.Equal(t, n, v)
						assert.Equal(t, time.Second, time.Since(asked))
					})
					time.Sleep(100 * time.Millisecond)
					invalidate(c)
				}
				all.Wait()
				require.Equal(t, 2900*time.Millisecond, time.Since(begin))
				_, ok := c.Peek("k")
				require.False(t, ok, "what was invalidated is not kept")
			})
		})
	}
}

// otter, TestCache_BulkGetRetryTakesValueWrittenDuringFailedLoad.
func TestGetAllServesWhatWasSetDuringItsFailingLoad(t *testing.T) {
	load := func(context.Context, string) (int, error) { time.Sleep(time.Second); return 0, io.EOF }
	bothCaches(t, stringOptions{Capacity: 10}, load, func(t *testing.T, c *stringCache) {
		all := make(chan []string)
		go func() { all <- lines(c.GetAll(t.Context(), []string{"k", "l"})) }()
		synctest.Wait()
		c.Set("k", 99)
		require.Equal(t, []string{"k=99", "l: EOF"}, <-all)
		require.Equal(t, 99, get(t, c, "k"))
	})
}

// otter, TestCache_GetWithEndedContextDoesNotLoad and its bulk sister.
func TestEndedContextLoadsNothing(t *testing.T) {
	var x backend
	bothCaches(t, stringOptions{Capacity: 10}, x.load, func(t *testing.T, c *stringCache) {
		ctx, end := context.WithCancel(t.Context())
		end()
		for name, read := range readers {
			require.Equal(t, context.Canceled, read(c, ctx).Err, name)
		}
		require.Zero(t, x.calls.Load())
		require.Zero(t, c.Leases())
	})
}

// otter, TestCache_BulkGetPanic: a panic concerns the key whose load it was.
func TestPanicOfOneLoadOfGetAll(t *testing.T) {
	load := func(_ context.Context, key string) (int, error) {
		if key == "k" {
			panic(io.EOF)
		}
		return 7, nil
	}
	bothCaches(t, stringOptions{Capacity: 10}, load, func(t *testing.T, c *stringCache) {
		got := maps.Collect(c.GetAll(t.Context(), []string{"k", "l"}))
		var p *coalesce.PanicError
		require.ErrorAs(t, got["k"].Err, &p)
		require.ErrorIs(t, p, io.EOF)
		require.NoError(t, got["l"].Err)
		require.Equal(t, 7, got["l"].Val)
	})
}

// sturdyc, TestDistributedStorageDoesNotCachePartialResponseAsMissingRecords: when a
// fetch fails, what it did not return is not known to be missing.
func TestFailedFetchSaysNothingOfWhatItLeftOut(t *testing.T) {
	x := &table{rows: map[string]int{"k": 1}, err: errors.New("half of the shards are down")}
	c := newBatchCache(t, &stringBatcher{Fetch: x.fetch}, stringOptions{Capacity: 10, NegativeTTL: time.Hour})
	for key, r := range c.GetAll(t.Context(), []string{"k", "l"}) {
		require.Equal(t, x.err, r.Err, key)
	}
	x.rows, x.err = map[string]int{"k": 1, "l": 2}, nil
	require.Equal(t, []string{"k=1", "l=2"}, lines(c.GetAll(t.Context(), []string{"k", "l"})))
}

// sturdyc, TestBatchGetOrFetchNilMapMissingRecords: without an error it is.
func TestNilMapOfAFetchIsRememberedAsMissing(t *testing.T) {
	x := &table{}
	c := newBatchCache(t, &stringBatcher{Fetch: x.fetch}, stringOptions{Capacity: 10, NegativeTTL: time.Hour})
	for range 2 {
		for key, r := range c.GetAll(t.Context(), []string{"k", "l"}) {
			require.ErrorIs(t, r.Err, coalesce.ErrNotFound, key)
		}
	}
	require.Len(t, x.asked, 1)
}

// otter#188, TestCache_EvictionDoesNotCancelInFlightLoad: keys that push each other out
// are loaded side by side, and each caller has its value.
func TestLoadsOfKeysThatEvictEachOther(t *testing.T) {
	load := func(_ context.Context, key string) (int, error) {
		time.Sleep(time.Second)
		return len(key), nil
	}
	bothCaches(t, stringOptions{Capacity: 1, TTL: time.Minute, Stale: time.Hour}, load, func(t *testing.T, c *stringCache) {
		for range 5 {
			var all sync.WaitGroup
			for _, key := range []string{"a", "bb", "ccc"} {
				all.Go(func() {
					v, err := c.Get(t.Context(), key)
					assert.NoError(t, err)
					assert.Equal(t, len(key), v)
				})
			}
			all.Wait()
			require.Equal(t, 1, c.Stats().Entries)
			time.Sleep(2 * time.Minute)
		}
	})
}
