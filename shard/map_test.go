package shard_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
)

// tiles turns cut points into shards that tile the ring.
func tiles(cuts []shard.ID) []shard.Shard {
	cuts = slices.Clone(cuts)
	slices.Sort(cuts)
	cuts = slices.Compact(append([]shard.ID{0}, slices.DeleteFunc(cuts, func(id shard.ID) bool { return id == 0 })...))
	shards := make([]shard.Shard, len(cuts))
	for i, c := range cuts {
		shards[i].Range.Start = c
		if i+1 < len(cuts) {
			shards[i].Range.End = cuts[i+1]
		}
		shards[i].Node = fmt.Sprint("node", i%3)
	}
	return shards
}

// anyTiles draws maps that are even or random, and maps whose shards crowd: into one bucket
// of the first table, beside each other, or each half as far as the one before.
func anyTiles() *rapid.Generator[[]shard.Shard] {
	return rapid.Custom(func(t *rapid.T) []shard.Shard {
		cuts := rapid.SliceOfN(anyID(), 0, 60).Draw(t, "cuts")
		in := rapid.SampledFrom([]shard.ID{0, 0xab << 56, 0xff << 56}).Draw(t, "in")
		shape := rapid.SampledFrom([]string{"as drawn", "one bucket", "adjacent", "halves", "even"}).Draw(t, "shape")
		for i := range cuts {
			switch shape {
			case "one bucket":
				cuts[i] = cuts[i]>>32 | in
			case "adjacent":
				cuts[i] = in + shard.ID(i)
			case "halves":
				cuts[i] = in + 1<<(i%56)
			case "even":
				cuts[i] = shard.ID(uint64(i) * (1 << 63 / uint64(len(cuts)) * 2))
			}
		}
		return tiles(cuts)
	})
}

// naiveOwner is the model of Lookup: ask every shard.
func naiveOwner(shards []shard.Shard, id shard.ID) shard.Range {
	for _, s := range shards {
		if s.Range.Contains(id) {
			return s.Range
		}
	}
	panic("no owner")
}

func TestLookupFindsTheShardThatContainsThePoint(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		shards := anyTiles().Draw(t, "shards")
		shuffled := slices.Clone(shards)
		rand.New(rand.NewPCG(1, uint64(len(shards)))).Shuffle(len(shuffled), func(i, j int) {
			shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
		})
		m, err := shard.NewMap(7, shuffled...)
		require.NoError(t, err)
		require.Equal(t, uint64(7), m.Epoch())
		require.Equal(t, len(shards), m.Len())

		points := rapid.SliceOf(anyID()).Draw(t, "points")
		points = append(points, 0, 1<<64-1)
		for _, s := range shards {
			points = append(points, s.Range.Start-1, s.Range.Start, s.Range.Start+1)
		}
		for _, id := range points {
			require.Equal(t, naiveOwner(shards, id), m.Lookup(id).Range, "%v", id)
		}
	})
}

func TestOverlappingYieldsWhatOverlaps(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		shards := anyTiles().Draw(t, "shards")
		m, err := shard.NewMap(1, shards...)
		require.NoError(t, err)
		r := anyRange().Draw(t, "range")
		var want, got []shard.Range
		for _, s := range shards {
			if s.Range.Overlaps(r) {
				want = append(want, s.Range)
			}
		}
		for s := range m.Overlapping(r) {
			got = append(got, s.Range)
		}
		require.Equal(t, want, got)
	})
}

func TestOverlappingAnEmptyRangeYieldsNothing(t *testing.T) {
	t.Parallel()
	m, err := shard.NewMap(1, shard.Shard{})
	require.NoError(t, err)
	for s := range m.Overlapping(shard.Range{Start: 5, End: 5}) {
		t.Fatalf("yielded %v", s)
	}
}

func TestByNodeGroupsEveryShardOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m, err := shard.NewMap(1, anyTiles().Draw(t, "shards")...)
		require.NoError(t, err)
		want := map[string][]*shard.Shard{}
		var order []string
		for s := range m.All() {
			if want[s.Node] == nil {
				order = append(order, s.Node)
			}
			want[s.Node] = append(want[s.Node], s)
		}
		var gotOrder []string
		for node, shards := range m.ByNode() {
			gotOrder = append(gotOrder, node)
			require.Equal(t, want[node], shards)
		}
		require.Equal(t, order, gotOrder)
	})
}

func TestIteratorsStopWhenAsked(t *testing.T) {
	t.Parallel()
	m, err := shard.NewMap(1, tiles([]shard.ID{1 << 60, 1 << 61, 1 << 62})...)
	require.NoError(t, err)
	n := 0
	for range m.All() {
		n++
		break
	}
	for range m.ByNode() {
		n++
		break
	}
	require.Equal(t, 2, n)
}

func TestNewMapRefusesWhatDoesNotTileTheRing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ranges []string
		want   error
	}{
		"none":                {nil, shard.ErrGap},
		"gap at the start":    {[]string{"40-"}, shard.ErrGap},
		"gap in the middle":   {[]string{"-40", "80-"}, shard.ErrGap},
		"gap at the end":      {[]string{"-40", "40-80"}, shard.ErrGap},
		"overlap":             {[]string{"-50", "40-"}, shard.ErrOverlap},
		"one inside another":  {[]string{"-", "40-80"}, shard.ErrOverlap},
		"two whole rings":     {[]string{"-", "-8000", "80-"}, shard.ErrOverlap},
		"same start":          {[]string{"-40", "-80", "80-"}, shard.ErrOverlap},
		"the same name twice": {[]string{"-40", "-40", "40-"}, shard.ErrDuplicateName},
	} {
		var shards []shard.Shard
		for _, text := range c.ranges {
			r, err := shard.ParseRange(text)
			require.NoError(t, err)
			shards = append(shards, shard.Shard{Range: r})
		}
		m, err := shard.NewMap(1, shards...)
		require.ErrorIs(t, err, c.want, name)
		require.Nil(t, m, name)
	}
	_, err := shard.NewMap(1, shard.Shard{Name: "x", Range: shard.Range{Start: 9, End: 3}})
	require.ErrorIs(t, err, shard.ErrBadRange)
	_, err = shard.NewMap(1, shard.Shard{Name: "x", Range: shard.Range{End: 1 << 63}}, shard.Shard{Name: "x", Range: shard.Range{Start: 1 << 63}})
	require.ErrorIs(t, err, shard.ErrDuplicateName)
}

func TestNewMapSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for want, shards := range map[string][]shard.Shard{
		"shard: gap between shards: no shards":              nil,
		"nothing owns -40":                                  {{Range: shard.Range{Start: 0x40 << 56}}},
		"nothing owns 40-80":                                {{Range: shard.Range{End: 0x40 << 56}}, {Range: shard.Range{Start: 0x80 << 56}}},
		"nothing owns 80-":                                  {{Range: shard.Range{End: 0x80 << 56}}},
		`"a" (-40) and "b" (30-)`:                           {{Name: "a", Range: shard.Range{End: 0x40 << 56}}, {Name: "b", Range: shard.Range{Start: 0x30 << 56}}},
		`"a" has ranges -40 and 40-`:                        {{Name: "a", Range: shard.Range{End: 0x40 << 56}}, {Name: "a", Range: shard.Range{Start: 0x40 << 56}}},
		`[0000000000000009, 0000000000000003) of shard num`: {{Range: shard.Range{Start: 9, End: 3}}},
	} {
		_, err := shard.NewMap(1, shards...)
		require.ErrorContains(t, err, want)
	}
}

// Any one change of a boundary breaks the tiling, and NewMap must see it.
func TestNewMapSeesEveryMovedBoundary(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		shards := anyTiles().Draw(t, "shards")
		i := rapid.IntRange(0, len(shards)-1).Draw(t, "which")
		by := shard.ID(rapid.Uint64Range(1, 1<<64-1).Draw(t, "by"))
		if rapid.Bool().Draw(t, "end") {
			shards[i].Range.End += by
		} else {
			shards[i].Range.Start += by
		}
		_, err := shard.NewMap(1, shards...)
		require.Error(t, err)
	})
}

func TestNewMapCopiesAndNames(t *testing.T) {
	t.Parallel()
	shards := []shard.Shard{{Range: shard.Range{Start: 1 << 63}}, {Range: shard.Range{End: 1 << 63}, Name: "left"}}
	m, err := shard.NewMap(1, shards...)
	require.NoError(t, err)
	shards[0].Node = "changed"
	require.Equal(t, "80-", m.Lookup(1<<64-1).Name)
	require.Equal(t, "left", m.Lookup(0).Name)
	require.Empty(t, m.Lookup(1<<63).Node)
	require.Empty(t, shards[0].Name)
}

func TestTheZeroMapHasNoShards(t *testing.T) {
	t.Parallel()
	var m shard.Map
	require.Zero(t, m.Len())
	for s := range m.All() {
		t.Fatalf("yielded %v", s)
	}
	for node := range m.ByNode() {
		t.Fatalf("yielded %v", node)
	}
	require.Panics(t, func() { m.Lookup(0) })
}

func TestLookupAllocatesNothing(t *testing.T) {
	cuts := []shard.ID{1 << 60, 1<<60 + 1, 1 << 61}
	for i := range shard.ID(100) {
		cuts = append(cuts, 1<<62+i*i*i)
	}
	m, err := shard.NewMap(1, tiles(cuts)...)
	require.NoError(t, err)
	for _, id := range []shard.ID{0, 1 << 60, 1<<60 + 2, 1<<62 + 70, 1<<62 + 1e6, 1<<64 - 1} {
		require.Zero(t, testing.AllocsPerRun(100, func() { m.Lookup(id) }))
	}
}

func TestGroupSortsPositionsByShard(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newMap(t, 1, anyTiles().Draw(t, "shards")...)
		ids := rapid.SliceOf(anyID()).Draw(t, "ids")
		want := map[string][]int{}
		for i, id := range ids {
			name := m.Lookup(id).Name
			want[name] = append(want[name], i)
		}
		got := map[string][]int{}
		last := shard.ID(0)
		for s, positions := range m.Group(ids) {
			require.NotContains(t, got, s.Name)
			require.GreaterOrEqual(t, s.Range.Start, last)
			last = s.Range.Start
			got[s.Name] = append(positions, -1)[:len(positions)] // to append to it harms no other
		}
		require.Equal(t, want, got)
	})
}

// newMap is NewMap for shards that are right.
func newMap(t require.TestingT, epoch uint64, shards ...shard.Shard) *shard.Map {
	m, err := shard.NewMap(epoch, shards...)
	require.NoError(t, err)
	return m
}

// Every iterator stops when its loop is left.
func TestOverlappingAndGroupStopWhenAsked(t *testing.T) {
	t.Parallel()
	m := newMap(t, 1, tiles([]shard.ID{1 << 60, 1 << 61, 1 << 62})...)
	n := 0
	for range m.Overlapping(shard.Range{}) {
		n++
		break
	}
	for range m.Group([]shard.ID{0, 1 << 60, 1 << 61, 1 << 62}) {
		n++
		break
	}
	for range m.Diff(newMap(t, 2, shard.Shard{Node: "x"})) {
		n++
		break
	}
	require.Equal(t, 3, n)
}

// As All, ByNode, ByName and Diff of it.
func TestOverlappingOfTheZeroMapYieldsNothing(t *testing.T) {
	t.Parallel()
	require.NotPanics(t, func() { require.Empty(t, slices.Collect(new(shard.Map).Overlapping(shard.Range{}))) })
}

// Group's doc says two allocations; from another package it is one for each comparison.
func TestGroupAllocatesNothingAComparison(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	m := newMap(t, 1, tiles([]shard.ID{1 << 60, 1 << 61, 1 << 62, 1 << 63})...)
	ids := make([]shard.ID, 1000)
	for i := range ids {
		ids[i] = shard.XXHash(string(rune('a' + i)))
	}
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		for range m.Group(ids) {
		}
	}), 3.0)
}
