package coalesce_test

import (
	"context"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

func skipUnderRace(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and sync.Pool drops at random under it")
	}
}

func TestAllocationsOfAFlight(t *testing.T) {
	skipUnderRace(t)
	type pair struct{ tenant, channel string }
	cancellable, cancel := context.WithCancel(t.Context())
	defer cancel()

	var byString coalesce.Group[string, int]
	require.EqualValues(t, 1, testing.AllocsPerRun(1000, func() {
		_, _ = byString.Do(context.Background(), "key", work)
	}), "inline: the flight")
	require.EqualValues(t, 1, testing.AllocsPerRun(1000, func() {
		byString.DoResult(context.Background(), "key", work)
	}))
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() {
		_, _ = byString.Do(cancellable, "key", work)
	}), 3.0, "detached: the flight, its channel and what starts the goroutine")

	var byInt coalesce.Group[int, string]
	require.EqualValues(t, 1, testing.AllocsPerRun(1000, func() {
		_, _ = byInt.Do(context.Background(), 1, func(context.Context) (string, error) { return "", nil })
	}))
	var byPair coalesce.Group[pair, int]
	require.EqualValues(t, 1, testing.AllocsPerRun(1000, func() {
		_, _ = byPair.Do(context.Background(), pair{"a", "b"}, work)
	}))
}

// A caller that joins allocates nothing. A flight with 256 callers that joined
// may allocate what a flight with none does, and a few for what the pool lost
// to the garbage collector.
func TestJoiningAllocatesNothing(t *testing.T) {
	skipUnderRace(t)
	var g coalesce.Group[string, int]
	cancellable, cancel := context.WithCancel(t.Context())
	defer cancel()
	for name, ctx := range map[string]context.Context{"background": context.Background(), "cancellable": cancellable} {
		const callers, rounds = 256, 100
		var want int64
		fn := func(context.Context) (int, error) {
			for g.Stats().Joined < want {
				runtime.Gosched()
			}
			return 1, nil
		}
		begin, end := make(chan struct{}), make(chan struct{})
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				for range begin {
					_, _ = g.Do(ctx, "hot", fn)
					end <- struct{}{}
				}
			})
		}
		perFlight := testing.AllocsPerRun(rounds, func() {
			want = g.Stats().Joined + callers - 1
			for range callers {
				begin <- struct{}{}
			}
			for range callers {
				<-end
			}
		})
		close(begin)
		all.Wait()
		require.Less(t, perFlight, 16.0, "%s: %d callers", name, callers)
	}
}
