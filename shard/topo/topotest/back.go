package topotest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
)

// A place that went back to an older epoch, or to another map of the same, is reported
// once and not followed; a newer map ends it. Who comes new takes what is there.
func restored(t *testing.T, p Place) {
	if p.Restore == nil {
		onlyForward(t, p)
		return
	}
	s, polls := p.Open(t), pollsOf(t, p)
	w := Watch(t, p.Open(t))
	for epoch := range uint64(3) {
		publish(t, s, NewMap(t, epoch, 2, "db"))
		w.Until(epoch)
	}
	w.Errors()

	older := NewMap(t, 1, 2, "db")
	p.Restore(t, textOf(t, older))
	err := w.UntilError(shard.ErrStaleMap)
	require.ErrorContains(t, err, p.Where)
	requireLoads(t, p.Open(t), older) // it says what the place says
	newcomer := Watch(t, p.Open(t))
	requireMap(t, older, newcomer.Until(1))
	polls()
	require.Empty(t, w.Errors(), "it was told again")

	other := NewMap(t, 2, 2, "of another history")
	p.Restore(t, textOf(t, other))
	err = w.UntilError(shard.ErrSplitBrain)
	require.ErrorContains(t, err, p.Where)
	requireMap(t, other, newcomer.Until(2))
	polls()
	require.Empty(t, w.Errors(), "it was told again")
	require.Empty(t, w.Maps())

	require.ErrorIs(t, s.Publish(soon(t), NewMap(t, 2, 2, "db")), shard.ErrSplitBrain)
	require.ErrorIs(t, s.Publish(soon(t), older), shard.ErrStaleMap)
	newer := NewMap(t, 3, 2, "db")
	publish(t, s, newer)
	for _, w := range []*Watcher{w, newcomer} {
		requireMap(t, newer, w.Until(3))
		require.Empty(t, w.Errors())
	}
	p.Restore(t, textOf(t, older)) // and again, which is news
	w.UntilError(shard.ErrStaleMap)
}

// A deleted map is reported once, stays in use, and is not forgotten: only a newer one
// takes its place.
func deleted(t *testing.T, p Place) {
	if p.Delete == nil {
		noneYet(t, p)
		return
	}
	s, polls := p.Open(t), pollsOf(t, p)
	w := Watch(t, p.Open(t))
	seven := NewMap(t, 7, 2, "db")
	publish(t, s, seven)
	w.Until(7)
	w.Errors()

	p.Delete(t)
	err := w.UntilError(topo.ErrNoMap)
	require.ErrorContains(t, err, p.Where)
	_, err = s.Load(soon(t))
	require.ErrorIs(t, err, topo.ErrNoMap)
	newcomer := Watch(t, p.Open(t))
	newcomer.UntilError(topo.ErrNoMap)
	polls()
	require.Empty(t, w.Errors(), "it was told again")

	publish(t, s, NewMap(t, 5, 2, "db")) // which nothing in the place forbids
	newcomer.Until(5)
	w.UntilError(shard.ErrStaleMap)
	publish(t, s, seven) // as before
	newcomer.Until(7)
	// No watcher says when it has seen seven again, so what follows must not depend on it.
	p.Delete(t)
	w.UntilError(topo.ErrNoMap)
	newcomer.UntilError(topo.ErrNoMap)
	require.Empty(t, w.Maps())

	eight := NewMap(t, 8, 4, "db")
	publish(t, s, eight)
	for _, w := range []*Watcher{w, newcomer} {
		requireMap(t, eight, w.Until(8))
		require.Empty(t, w.Errors())
	}
	requireLoads(t, p.Open(t), eight)
}

// pollsOf returns a function that lets every watcher of the place ask at least once. It
// takes its time from a watcher of the neighbor, which asks as often: between its first
// map and its last there are three pauses of three quarters of a poll at least, and the
// longest of another is five quarters.
func pollsOf(t *testing.T, p Place) (polls func()) {
	near := p.Neighbor(t)
	w := Watch(t, near)
	epoch := uint64(0)
	return func() {
		for range 4 {
			publish(t, near, NewMap(t, epoch, 1, "near"))
			w.Until(epoch)
			epoch++
		}
	}
}

func textOf(t *testing.T, m *shard.Map) string {
	text, err := m.MarshalJSON()
	require.NoError(t, err)
	return string(text)
}
