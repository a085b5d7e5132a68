package topotest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard/topo"
)

// A watch ends when its loop is left and when its context ends, with and without a map.
func watchEnds(t *testing.T, p Place) {
	s := p.Open(t)
	for _, err := range s.Watch(soon(t)) {
		require.ErrorIs(t, err, topo.ErrNoMap)
		break
	}
	idle := Watch(t, s)
	idle.UntilError(topo.ErrNoMap)
	idle.Stop()
	publish(t, s, NewMap(t, 1, 2, "db"))
	for m, err := range s.Watch(soon(t)) {
		require.NoError(t, err)
		requireMap(t, NewMap(t, 1, 2, "db"), m)
		break
	}
	busy := Watch(t, s)
	busy.Until(1)
	busy.Stop()
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	seen := 0
	for range s.Watch(ctx) {
		seen++
		cancel() // inside the loop
	}
	require.Equal(t, 1, seen)
	watch := s.Watch(soon(t)) // the same sequence again
	for range 2 {
		for m := range watch {
			require.Equal(t, uint64(1), m.Epoch())
			break
		}
	}
}

// A loop whose body panics is left: the panic comes out as it was, the watch has ended, and
// the sequence can be looped over again.
func loopPanics(t *testing.T, p Place) {
	s := p.Open(t)
	watch := s.Watch(soon(t))
	loop := func() {
		for m, err := range watch {
			panic([2]bool{m != nil, err != nil})
		}
	}
	for range 3 {
		require.PanicsWithValue(t, [2]bool{false, true}, loop)
	}
	publish(t, s, NewMap(t, 1, 2, "db"))
	for range 3 {
		require.PanicsWithValue(t, [2]bool{true, false}, loop)
	}
	publish(t, s, NewMap(t, 2, 2, "db"))
	w := Watch(t, s)
	requireMap(t, NewMap(t, 2, 2, "db"), w.Until(2))
}

// What is canceled before it begins does nothing.
func canceledBefore(t *testing.T, p Place) {
	s := p.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Load(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, s.Publish(ctx, NewMap(t, 1, 2, "db")), context.Canceled)
	for m, err := range s.Watch(ctx) {
		t.Fatalf("watch yielded %v, %v", m, err)
	}
	_, err = s.Load(soon(t))
	require.ErrorIs(t, err, topo.ErrNoMap)
}

// While the place answers nobody, contexts still end what waits for it, and afterwards
// all is well.
func canceledWhileBlocked(t *testing.T, p Place) {
	if p.Block == nil {
		canceledBefore(t, p)
		return
	}
	s := p.Open(t)
	publish(t, s, NewMap(t, 1, 2, "db"))
	w := Watch(t, p.Open(t))
	w.Until(1)
	early := Watch(t, p.Open(t))
	other, watched := p.Open(t), p.Open(t) // which may ask the place
	unblock := p.Block(t)
	late := Watch(t, watched)
	ctx, cancel := context.WithCancel(soon(t))
	results := make(chan error, 2)
	go func() { results <- s.Publish(ctx, NewMap(t, 2, 2, "db")) }()
	go func() { results <- other.Publish(ctx, NewMap(t, 2, 2, "db")) }()
	early.Stop() // which take a moment, in which the publishers get as far as they can
	late.Stop()
	cancel()
	for range 2 {
		require.ErrorIs(t, <-results, context.Canceled)
	}
	unblock()
	publish(t, s, NewMap(t, 3, 2, "db"))
	requireMap(t, NewMap(t, 3, 2, "db"), w.Until(3))
}
