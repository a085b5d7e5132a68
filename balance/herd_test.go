package balance_test

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
)

// At one instant, each pick sees those before it: with a load that is a few
// milliseconds old, all would go to the same backend.
func TestPicksAtOneInstantAreNoHerd(t *testing.T) {
	t.Parallel()
	const n, goroutines, rounds = 16, 64, 20
	for name, strategy := range exactStrategies() {
		// All latencies are alike, since time stands still.
		b, err := balance.New[string](strategy, balance.Options{Clock: func() time.Duration { return 0 }})
		require.NoError(t, err)
		require.NoError(t, b.Update(equals(n)))
		var picks [n]atomic.Int64
		index := map[string]int{}
		for i := range n {
			index[fmt.Sprint("b", i)] = i
		}
		for range rounds {
			var all, picked sync.WaitGroup
			begin, end := make(chan struct{}), make(chan struct{})
			picked.Add(goroutines)
			for range goroutines {
				all.Go(func() {
					<-begin
					p, err := b.Pick()
					picked.Done()
					if err != nil {
						panic(err)
					}
					picks[index[p.ID()]].Add(1)
					<-end
					p.Done(nil)
				})
			}
			close(begin)
			picked.Wait()
			if name != "random" {
				for id, open := range inFlight(b) {
					require.LessOrEqual(t, open, int64(3*goroutines/n), "%s: %s at one instant", name, id)
				}
			}
			close(end)
			all.Wait()
		}
		for i := range picks {
			require.Less(t, float64(picks[i].Load())/(goroutines*rounds), 2.0/n, name)
		}
	}
}

// Each pick is of the set that was there before it, of one that came while it ran, or
// of the one that is there after it; never of one that had been replaced.
func TestAPickIsOfTheOldSetOrTheNew(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		b, err := balance.New[int64](strategy, balance.Options{})
		require.NoError(t, err)
		var begun, done atomic.Int64
		update := func(generation int64) {
			var set []balance.Backend[int64]
			for i := range 1 + generation%7 {
				set = append(set, balance.Backend[int64]{ID: fmt.Sprint(generation, i), Value: generation})
			}
			begun.Store(generation)
			require.NoError(t, b.Update(set))
			done.Store(generation)
		}
		update(1)
		var workers sync.WaitGroup
		for range 3 {
			workers.Go(func() {
				for range 1000 {
					from := done.Load()
					p, err := b.Pick()
					to := begun.Load()
					if err != nil || p.Value < from || p.Value > to {
						t.Errorf("%s: a pick of set %d, from %d to %d: %v", name, p.Value, from, to, err)
						return
					}
					p.Done(nil)
				}
			})
		}
		for i := range int64(300) {
			update(2 + i)
		}
		workers.Wait()
	}
}

// A pick that is never done keeps its own backend in memory, and no other of the set
// that it was made from.
func TestAPickDoesNotKeepItsSet(t *testing.T) {
	t.Parallel()
	b, err := balance.New[*[1 << 10]byte](balance.RoundRobin(), balance.Options{Rand: func() uint64 { return 0 }})
	require.NoError(t, err)
	var removed []weak.Pointer[[1 << 10]byte]
	set := func(first int) (set []balance.Backend[*[1 << 10]byte]) {
		for i := range 5 {
			value := new([1 << 10]byte)
			removed = append(removed, weak.Make(value))
			set = append(set, balance.Backend[*[1 << 10]byte]{ID: fmt.Sprint(first + i), Value: value})
		}
		return set
	}
	require.NoError(t, b.Update(set(0)))
	p, err := b.Pick()
	require.NoError(t, err)
	require.NoError(t, b.Update(set(5)))
	runtime.GC()
	for _, backend := range removed[:5] {
		if value := backend.Value(); value != nil {
			require.Same(t, p.Value, value)
		}
	}
	p.Done(nil)
}
