package shard_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
)

// What was opened for a map that is refused is dropped after the lock of updates is free.
func TestDropOfARefusedMapMayUpdate(t *testing.T) {
	t.Parallel()
	var r *shard.Router[shard.ID, string]
	var err error
	m2 := newMap(t, 2, shard.Shard{Range: parse(t, "-80"), Node: "c"}, shard.Shard{Range: parse(t, "80-"), Node: "gone"})
	r, err = shard.NewRouter(identity, one(t, 1, "a"), func(node string) (string, error) {
		if node == "gone" {
			return "", errNotThere
		}
		return node, nil
	}, shard.RouterOptions[string]{Drop: func(node, _ string) { _ = r.Update(one(t, 1, "a")) }})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- r.Update(m2) }()
	select {
	case err := <-done:
		require.ErrorIs(t, err, shard.ErrUnknownNode)
	case <-time.After(5 * time.Second):
		t.Fatal("deadlock")
	}
}

// A panic that is recovered further up, as net/http does, must not end the chain of
// releases.
func TestADropThatPanicsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	dropped := map[string]bool{}
	r, err := shard.NewRouter(identity, one(t, 1, "a"), func(node string) (string, error) { return node, nil },
		shard.RouterOptions[string]{Drop: func(node, _ string) {
			dropped[node] = true
			if node == "a" {
				panic("close")
			}
		}})
	require.NoError(t, err)
	require.Panics(t, func() { _ = r.Update(one(t, 2, "b")) })
	require.NoError(t, r.Update(one(t, 3, "c")))
	require.NoError(t, r.Update(one(t, 4, "d")))
	require.Equal(t, map[string]bool{"a": true, "b": true, "c": true}, dropped)
}

// Promised and right, and without a test: Drop may use the router.
func TestDropMayUpdateAndCall(t *testing.T) {
	t.Parallel()
	var r *shard.Router[shard.ID, string]
	var seen []uint64
	r, err := shard.NewRouter(identity, one(t, 1, "a"), func(node string) (string, error) { return node, nil },
		shard.RouterOptions[string]{Drop: func(node, _ string) {
			seen = append(seen, r.Stats().Epoch)
			if node == "a" {
				require.NoError(t, r.Do(t.Context(), 7, func(context.Context, shard.Target[string]) error {
					return r.Update(one(t, 3, "c"))
				}))
			}
		}})
	require.NoError(t, err)
	require.NoError(t, r.Update(one(t, 2, "b")))
	require.Equal(t, []uint64{2, 3}, seen)
}

// A snapshot without references may not come back to life.
func TestADroppedSnapshotIsNotUsedAgain(t *testing.T) {
	t.Parallel()
	r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
	acquire := r.Hold()
	require.NoError(t, r.Update(one(t, 2, "b")))
	require.False(t, acquire())
}

type closing struct{ closed atomic.Bool }

// No call is made with a handle that was dropped, however closely updates follow.
func TestCallsDuringUpdatesNeverSeeADroppedHandle(t *testing.T) {
	t.Parallel()
	var dropped atomic.Int64
	r, err := shard.NewRouter(identity, one(t, 1, "a"), func(string) (*closing, error) { return new(closing), nil },
		shard.RouterOptions[*closing]{Drop: func(_ string, h *closing) {
			dropped.Add(1)
			if h.closed.Swap(true) {
				t.Error("dropped twice")
			}
		}})
	require.NoError(t, err)
	const last = 5000
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for r.Stats().Epoch < last {
				if err := r.Do(t.Context(), 7, func(_ context.Context, target shard.Target[*closing]) error {
					if target.Node.closed.Load() {
						return errors.New("the handle was dropped")
					}
					return nil
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for epoch := uint64(2); epoch <= last; epoch++ {
		require.NoError(t, r.Update(one(t, epoch, fmt.Sprint(epoch%2))))
	}
	all.Wait()
	require.Equal(t, int64(last-1), dropped.Load())
}

// A call that loads a snapshot just before its last reference goes takes
// the next one.
func TestACallTakesTheNextSnapshotWhenItsOwnIsDead(t *testing.T) {
	t.Parallel()
	r := newRouter(t, &nodes{}, one(t, 1, "a"), shard.RouterOptions[*handle]{})
	require.True(t, r.AcquireFromTheDead())
}

// Without the lock of updates two opens run at once (and a snapshot is superseded twice).
func TestOneUpdateAtATime(t *testing.T) {
	t.Parallel()
	var opening atomic.Int64
	r, err := shard.NewRouter(identity, one(t, 1, "a"), func(node string) (string, error) {
		if opening.Add(1) > 1 {
			t.Error("two updates at a time")
		}
		for range 1000 {
			runtime.Gosched()
		}
		opening.Add(-1)
		return node, nil
	}, shard.RouterOptions[string]{})
	require.NoError(t, err)
	var all sync.WaitGroup
	for i := range uint64(4) {
		all.Go(func() { _ = r.Update(one(t, i+2, fmt.Sprint("n", i))) })
	}
	all.Wait()
	require.Equal(t, uint64(5), r.Stats().Epoch)
}
