package coalesce_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// Under load from all sides: no fetch is larger than MaxBatch, has a key twice or
// runs beside MaxInFlight others; everybody gets the value of its own key; and no
// result was finished before its caller asked. A value tells its key and which
// fetch it comes from. Fetches that run one at a time land in their order, so
// that the number of those that had landed before the call is its ticket.
func TestBatcherUnderLoadFromAllSides(t *testing.T) {
	const maxBatch = 8
	for _, procs := range []int{1, 2, 4} {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
		maxInFlight := int64(1 + procs%3) // 2, 3, 2
		if procs == 2 {
			maxInFlight = 1
		}
		var running, begun atomic.Int64
		type value struct{ key, fetch int64 }
		b := coalesce.Batcher[int64, value]{MaxBatch: maxBatch, MaxInFlight: int(maxInFlight)}
		landed := func() int64 {
			s := b.Stats()
			return s.Fetches - int64(s.InFlight)
		}
		b.Fetch = func(ctx context.Context, keys []int64) (map[int64]value, error) {
			if at := running.Add(1); at > maxInFlight || len(keys) > maxBatch || len(keys) == 0 {
				t.Errorf("%d fetches, %d keys", at, len(keys))
			}
			defer running.Add(-1)
			n := begun.Add(1)
			for range 3 {
				runtime.Gosched()
			}
			if keys[0]%7 == 0 {
				return nil, ctx.Err() // sometimes one that has none
			}
			m := map[int64]value{}
			for _, k := range keys {
				if _, twice := m[k]; twice {
					t.Errorf("key %d twice", k)
				}
				m[k] = value{k, n}
			}
			return m, nil
		}
		var all sync.WaitGroup
		for worker := range 16 {
			all.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(procs), uint64(worker)))
				verify := func(key, before int64, v value, err error) {
					if err == nil && (v.key != key || maxInFlight == 1 && v.fetch <= before) {
						t.Errorf("key %d, %d before: %+v", key, before, v)
					}
				}
				for range 500 {
					ctx, cancel := context.WithCancel(context.Background())
					if rng.IntN(3) == 0 {
						go cancel()
					}
					if rng.IntN(4) == 0 {
						ctx = context.Background()
					}
					before := landed()
					if rng.IntN(2) == 0 {
						key := rng.Int64N(20)
						v, err := b.Load(ctx, key)
						verify(key, before, v, err)
					} else {
						keys := make([]int64, 1+rng.IntN(20))
						for i := range keys {
							keys[i] = rng.Int64N(40)
						}
						i := 0
						for key, r := range b.LoadAll(ctx, keys) {
							if key != keys[i] {
								t.Errorf("key %d at %d, want %d", key, i, keys[i])
							}
							i++
							verify(key, before, r.Val, r.Err)
						}
					}
					if rng.IntN(8) == 0 {
						b.Forget(rng.Int64N(40))
					}
					cancel()
				}
			})
		}
		all.Wait()
		require.NoError(t, b.Close(t.Context()))
		s := b.Stats()
		require.Zero(t, s.InFlight)
		require.Zero(t, s.Queued)
		require.Zero(t, running.Load())
	}
}
