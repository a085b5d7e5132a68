package coalesce_test

import (
	"context"
	"errors"
	"maps"
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

// over makes a cache that loads with load, alone or over a Batcher.
func over(t *testing.T, batched bool, o coalesce.CacheOptions[int, int64], load func(ctx context.Context, key int) (int64, error)) *coalesce.Cache[int, int64] {
	if !batched {
		return newCache(t, o, load)
	}
	c, err := coalesce.NewBatchCache(&coalesce.Batcher[int, int64]{MaxInFlight: 2, Fetch: func(ctx context.Context, keys []int) (map[int]int64, error) {
		values, failed := map[int]int64{}, coalesce.Errors[int]{}
		for _, key := range keys {
			v, err := load(ctx, key)
			if err != nil {
				failed[key] = err
			} else {
				values[key] = v
			}
		}
		if len(failed) > 0 {
			return values, failed
		}
		return values, nil
	}}, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close(context.Background())) })
	return c
}

// What Get returns after a write was made known by Invalidate, Clear or Set is
// not older than that write, whatever loads, refreshes, failures and evictions
// are going on.
func TestNoReadIsOlderThanAnInvalidationBeforeIt(t *testing.T) {
	const keys = 5
	onProcs(t, func(t *testing.T) {
		for _, batched := range []bool{false, true} {
			var data, known [keys]atomic.Int64
			var loads atomic.Int64
			c := over(t, batched, coalesce.CacheOptions[int, int64]{
				Capacity: 4, TTL: 50 * time.Microsecond, Jitter: 1, Stale: time.Millisecond, StaleIfError: time.Millisecond,
				NegativeTTL: 10 * time.Microsecond, Beta: 1,
			}, func(ctx context.Context, key int) (int64, error) {
				found := data[key].Load()
				n := loads.Add(1)
				for range n % 5 {
					runtime.Gosched()
				}
				switch {
				case n%11 == 0:
					return 0, errWork
				case n%13 == 0:
					return 0, coalesce.ErrNotFound
				case n%17 == 0:
					panic(errWork)
				}
				return found, nil
			})
			var writers, readers sync.WaitGroup
			var over atomic.Bool
			for key := range keys {
				writers.Go(func() {
					for i := range size(1500) {
						n := data[key].Add(1)
						switch i % 8 {
						case 0:
							c.Clear()
						case 1, 2:
							c.Set(key, n)
						default:
							c.Invalidate(key)
						}
						known[key].Store(n)
						runtime.Gosched()
					}
				})
			}
			var stale atomic.Int64
			var strange atomic.Pointer[error]
			for i := range 8 {
				readers.Go(func() {
					r := rand.New(rand.NewPCG(uint64(i), 0))
					ctx, cancel := context.WithCancel(context.Background())
					defer cancel()
					for !over.Load() {
						key := r.IntN(keys)
						floor := known[key].Load()
						var v int64
						var err error
						switch r.IntN(10) {
						case 0:
							v, err = c.Refresh(ctx, key)
						case 1:
							for _, one := range c.GetAll(ctx, []int{key}) {
								v, err = one.Val, one.Err
							}
						case 2:
							brief, done := context.WithTimeout(ctx, time.Duration(r.IntN(20))*time.Microsecond)
							v, err = c.Get(brief, key)
							done()
						case 3:
							v, err = c.Get(context.Background(), key)
						case 4:
							var ok bool
							if v, ok = c.Peek(key); !ok {
								v = floor
							}
						case 5:
							if all := maps.Collect(c.All()); all[key] != 0 {
								v = all[key]
							} else {
								v = floor
							}
						default:
							v, err = c.Get(ctx, key)
						}
						switch {
						case err == nil && v < floor:
							stale.Add(1)
						case err != nil && !errors.Is(err, errWork) && err != coalesce.ErrNotFound && err != context.DeadlineExceeded:
							strange.CompareAndSwap(nil, &err)
						}
					}
				})
			}
			writers.Wait()
			over.Store(true)
			readers.Wait()
			require.Zero(t, stale.Load())
			if err := strange.Load(); err != nil {
				require.NoError(t, *err)
			}
			c.Check()
			require.NoError(t, c.Close(context.Background()))
			require.Eventually(t, func() bool { return c.Leases() == 0 }, 10*time.Second, time.Millisecond, "loads that were left end soon")
		}
	})
}

// Without expiry and invalidation, each key is loaded exactly once, however many
// ask for it and however late they come to its flight.
func TestEachKeyIsLoadedOnce(t *testing.T) {
	onProcs(t, func(t *testing.T) {
		for _, batched := range []bool{false, true} {
			keys := size(3000)
			counts := make([]atomic.Int64, keys)
			c := over(t, batched, coalesce.CacheOptions[int, int64]{Capacity: keys}, func(_ context.Context, key int) (int64, error) {
				return counts[key].Add(1), nil
			})
			var readers sync.WaitGroup
			var wrong atomic.Int64
			for range 8 {
				readers.Go(func() {
					for key := range keys {
						if v, err := c.Get(t.Context(), key); v != 1 || err != nil {
							wrong.Add(1)
						}
					}
				})
			}
			readers.Wait()
			require.Zero(t, wrong.Load())
			s := c.Stats()
			require.EqualValues(t, keys, s.Loads)
			require.EqualValues(t, 8*keys, s.Hits+s.Misses)
			require.Equal(t, keys, s.Entries)
		}
	})
}

// While the table grows and shrinks, no reader misses a key that stays.
func TestNoKeyIsMissedWhileTheTableGrows(t *testing.T) {
	onProcs(t, func(t *testing.T) {
		n := size(5000)
		for range 4 {
			c := newCache(t, coalesce.CacheOptions[int, int]{Capacity: 2 * n}, func(_ context.Context, key int) (int, error) {
				return 0, errors.New("missed " + strconv.Itoa(key))
			})
			var there, missed atomic.Int64
			var readers sync.WaitGroup
			for i := range 3 {
				readers.Go(func() {
					r := rand.New(rand.NewPCG(uint64(i), 1))
					for there.Load() < int64(n) {
						if k := there.Load(); k > 0 {
							key := int(r.Int64N(k))
							if v, err := c.Get(t.Context(), key); err != nil || v != -key {
								missed.Add(1)
							}
							if v, ok := c.Peek(key); !ok || v != -key {
								missed.Add(1)
							}
						}
					}
				})
			}
			for key := range n {
				c.Set(key, -key)
				there.Store(int64(key) + 1)
				c.Set(n+key, 0)
				if key%2 == 0 {
					c.Invalidate(n + key)
				}
			}
			readers.Wait()
			require.Zero(t, missed.Load())
			c.Check()
		}
	})
}
