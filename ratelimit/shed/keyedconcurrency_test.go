package shed_test

import (
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

func newKeyedConcurrency[K comparable](tb testing.TB, limit int) *shed.KeyedConcurrency[K] {
	tb.Helper()
	k, err := shed.NewKeyedConcurrency[K](limit)
	require.NoError(tb, err)
	return k
}

func TestNewKeyedConcurrencyNamesTheLimit(t *testing.T) {
	_, err := shed.NewKeyedConcurrency[int](0)
	require.EqualError(t, err, "shed: the limit by key is 0, expected 1 or more")
	require.Equal(t, 3, newKeyedConcurrency[int](t, 3).Limit())
}

func TestKeyedDoesWhatAMapDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 3).Draw(t, "limit")
		k, err := shed.NewKeyedConcurrency[int](limit)
		require.NoError(t, err)
		model := map[int]int{}
		type held struct {
			key    int
			permit *shed.Permit
		}
		var permits []held
		var stats shed.KeyedConcurrencyStats
		acquire := func(t *rapid.T) {
			key := rapid.IntRange(0, 5).Draw(t, "key")
			p, err := k.Acquire(key)
			if model[key] == limit {
				refused(t, err, shed.Default, shed.Full)
				stats.Refused++
				return
			}
			require.NoError(t, err)
			model[key]++
			stats.Admitted++
			permits = append(permits, held{key, &p})
		}
		t.Repeat(map[string]func(*rapid.T){
			"acquire":  acquire,
			"acquire2": acquire,
			"release": func(t *rapid.T) {
				if len(permits) == 0 {
					t.Skip("nothing is in progress")
				}
				i := rapid.IntRange(0, len(permits)-1).Draw(t, "which")
				h := permits[i]
				permits = append(permits[:i], permits[i+1:]...)
				h.permit.Release(shed.Success)
				h.permit.Release(shed.Success)
				if model[h.key]--; model[h.key] == 0 {
					delete(model, h.key)
				}
			},
			"": func(t *rapid.T) {
				require.Equal(t, model, maps.Collect(k.All()))
				stats.Keys, stats.InFlight = len(model), len(permits)
				require.Equal(t, stats, k.Stats())
			},
		})
	})
}

func TestKeyedNeverMoreThanTheLimit(t *testing.T) {
	const keys, limit = 3, 2
	k := newKeyedConcurrency[int](t, limit)
	var inflight [keys]atomic.Int64
	var wg sync.WaitGroup
	for worker := range uint64(8) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(worker, 0))
			for range 2000 {
				key := random.IntN(keys)
				p, err := k.Acquire(key)
				if err != nil {
					continue
				}
				if inflight[key].Add(1) > limit {
					t.Error("more than the limit")
				}
				runtime.Gosched()
				inflight[key].Add(-1)
				p.Release(shed.Success)
			}
		})
	}
	wg.Wait()
	s := k.Stats()
	require.Zero(t, s.Keys)
	require.Zero(t, s.InFlight)
	require.Equal(t, uint64(8*2000), s.Admitted+s.Refused)
}

func TestKeyedCopiesDoNotMakeCountsNegative(t *testing.T) {
	k := newKeyedConcurrency[int](t, 1)
	p, err := k.Acquire(1)
	require.NoError(t, err)
	forged := p
	p.Release(shed.Success)
	forged.Release(shed.Success)
	for key := range 3 {
		_, err := k.Acquire(key)
		require.NoError(t, err)
	}
	require.Equal(t, map[int]int{0: 1, 1: 1, 2: 1}, maps.Collect(k.All()))
}

// A key that is not equal to itself could be acquired without end, and never forgotten.
func TestKeyedRefusesNaN(t *testing.T) {
	k := newKeyedConcurrency[float64](t, 1)
	_, err := k.Acquire(math.NaN())
	refused(t, err, shed.Default, shed.Full)
	require.Equal(t, shed.KeyedConcurrencyStats{Refused: 1}, k.Stats())
}

func TestKeyedIterationMayStopAndUseTheGate(t *testing.T) {
	k := newKeyedConcurrency[int](t, 2)
	for key := range 100 {
		_, err := k.Acquire(key)
		require.NoError(t, err)
	}
	n := 0
	for key, inflight := range k.All() {
		require.Equal(t, 1, inflight)
		_, err := k.Acquire(key)
		require.NoError(t, err)
		if n++; n == 10 {
			break
		}
	}
	require.Equal(t, 110, k.Stats().InFlight)
}

// Keys that are no longer in progress cost nothing, however many they were.
func TestKeyedForgetsKeys(t *testing.T) {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const keys = 50_000
	k := newKeyedConcurrency[int](t, 1)
	permits := make([]shed.Permit, keys)
	before := heap()
	for key := range permits {
		permits[key], _ = k.Acquire(key)
	}
	full := heap() - before
	for i := range permits {
		permits[i].Release(shed.Success)
	}
	left := heap() - before
	require.Greater(t, full, int64(keys*32))
	require.Less(t, left, full/10)
	runtime.KeepAlive(k)
}
