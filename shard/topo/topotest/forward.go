package topotest

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
)

// Without a map there is an error that says so, and the first map ends it.
func noneYet(t *testing.T, p Place) {
	s := p.Open(t)
	_, err := s.Load(soon(t))
	require.ErrorIs(t, err, topo.ErrNoMap)
	require.ErrorContains(t, err, p.Where)
	w := Watch(t, p.Open(t))
	err = w.UntilError(topo.ErrNoMap)
	require.ErrorContains(t, err, p.Where)
	require.Empty(t, w.Maps())
	first := NewMap(t, 0, 2, "db") // an epoch like another
	publish(t, s, first)
	requireMap(t, first, w.Until(0))
	requireLoads(t, p.Open(t), first)
}

// Whatever names a map may have come back as they were.
func roundTrip(t *testing.T, p Place) {
	ranges, err := shard.EvenRanges(8)
	require.NoError(t, err)
	m, err := shard.NewMap(
		1,
		shard.Shard{Range: ranges[0], Node: `'; DROP TABLE shard_maps; --`},
		shard.Shard{Range: ranges[1], Node: "\x00\x01\x1f\x7f", Name: "control"},
		shard.Shard{Range: ranges[2], Node: `"\\"\n`, Name: `back\slash "quote" 'apostrophe' $1 ? %s`},
		shard.Shard{Range: ranges[3], Node: "база 数据库 🗄️"},
		shard.Shard{Range: ranges[4], Name: "  spaces  "},
		shard.Shard{Range: ranges[5], Node: "<a href='x'>&amp;\u2028\u2029\ufeff"},
		shard.Shard{Range: ranges[6], Node: "db", Name: "-80"}, // not its own range
		shard.Shard{Range: ranges[7], Node: "\ufffd"},
	)
	require.NoError(t, err)
	w := Watch(t, p.Open(t))
	publish(t, p.Open(t), m)
	requireLoads(t, p.Open(t), m)
	requireMap(t, m, w.Until(1))
	// Changes of it come back too, and so do maps of one shard.
	split, err := m.Split(m.Lookup(0).Name, 1, 2, 3)
	require.NoError(t, err)
	publish(t, p.Open(t), split)
	requireLoads(t, p.Open(t), split)
	one := NewMap(t, split.Epoch()+1, 1, "")
	publish(t, p.Open(t), one)
	requireLoads(t, p.Open(t), one)
	requireMap(t, one, w.Until(one.Epoch()))
}

func bigMap(t *testing.T, p Place) {
	w := Watch(t, p.Open(t))
	for epoch := range uint64(3) {
		m := NewMap(t, epoch, 4096, "postgres://shard.example.com:5432/a_database_with_a_long_name")
		publish(t, p.Open(t), m)
		requireLoads(t, p.Open(t), m)
		requireMap(t, m, w.Until(epoch))
	}
}

// What is no map, or would not come back as it is, is not published.
func notAMap(t *testing.T, p Place) {
	s := p.Open(t)
	require.ErrorIs(t, s.Publish(soon(t), nil), shard.ErrBadMap)
	require.ErrorIs(t, s.Publish(soon(t), new(shard.Map)), shard.ErrBadMap)
	require.ErrorIs(t, s.Publish(soon(t), NewMap(t, 1, 2, "\xff is not UTF-8")), shard.ErrBadMap)
	_, err := s.Load(soon(t))
	require.ErrorIs(t, err, topo.ErrNoMap)
}

// Publish goes forward only, and what it refuses changes nothing.
func onlyForward(t *testing.T, p Place) {
	a, b := p.Open(t), p.Open(t)
	w := Watch(t, p.Open(t))
	seven := NewMap(t, 7, 4, "db")
	publish(t, a, seven)
	publish(t, b, seven)
	publish(t, b, NewMap(t, 7, 4, "db")) // another value that says the same
	requireLoads(t, a, seven)

	err := b.Publish(soon(t), NewMap(t, 7, 4, "other"))
	require.ErrorIs(t, err, shard.ErrSplitBrain)
	require.ErrorContains(t, err, p.Where)
	for _, old := range []uint64{0, 6} {
		err = b.Publish(soon(t), NewMap(t, old, 4, "db"))
		require.ErrorIs(t, err, shard.ErrStaleMap)
		require.ErrorContains(t, err, p.Where)
	}
	requireLoads(t, a, seven)
	requireMap(t, seven, w.Until(7))

	for _, epoch := range []uint64{8, 1 << 40, math.MaxInt64 - 1, math.MaxInt64} {
		m := NewMap(t, epoch, 4, "db")
		publish(t, a, m)
		publish(t, b, m)
		requireLoads(t, b, m)
		require.ErrorIs(t, b.Publish(soon(t), seven), shard.ErrStaleMap)
	}
	requireMap(t, NewMap(t, math.MaxInt64, 4, "db"), w.Until(math.MaxInt64))
	require.Empty(t, w.Maps(), "nothing newer was published")
}

// Two keyspaces have nothing to do with each other.
func neighbors(t *testing.T, p Place) {
	a, b := p.Open(t), p.Neighbor(t)
	w := Watch(t, p.Neighbor(t))
	mine := NewMap(t, 5, 4, "mine")
	publish(t, a, mine)
	_, err := b.Load(soon(t))
	require.ErrorIs(t, err, topo.ErrNoMap)
	theirs := NewMap(t, 5, 2, "theirs")
	publish(t, b, theirs)
	publish(t, b, NewMap(t, 6, 2, "theirs"))
	requireLoads(t, a, mine)
	requireLoads(t, b, NewMap(t, 6, 2, "theirs"))
	w.Until(6)
	publish(t, a, NewMap(t, 9, 2, "mine"))
	requireLoads(t, b, NewMap(t, 6, 2, "theirs"))
	require.Empty(t, w.Maps())
}
