package shard_test

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
)

// Any sequence of changes keeps a legal map, raises the epoch by one each, changes the
// owner of exactly the points it says, and Diff finds exactly those.
func TestChangesOfAMapBehaveAsTheyAreNamed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newMap(t, 5, anyTiles().Draw(t, "shards")...)
		name := func(t *rapid.T) string {
			return rapid.SampledFrom(slices.Collect(m.All())).Draw(t, "shard").Name
		}
		change := func(t *rapid.T, next *shard.Map, err error, changed shard.Range) {
			require.NoError(t, err)
			require.Equal(t, m.Epoch()+1, next.Epoch())
			for s := range m.All() {
				if !changed.Overlaps(s.Range) {
					require.Equal(t, s, next.Lookup(s.Range.Start))
				}
			}
			requireDiff(t, m, next)
			m = next
		}
		t.Repeat(map[string]func(*rapid.T){
			"split": func(t *rapid.T) {
				s := m.ByName(name(t))
				points := []shard.ID{anyID().Draw(t, "at")}
				if rapid.Bool().Draw(t, "halve") {
					points = nil
				}
				next, err := m.Split(s.Name, points...)
				if ranges, wrong := s.Range.Split(points...); wrong != nil {
					require.ErrorIs(t, err, shard.ErrBadRange)
				} else {
					change(t, next, err, s.Range)
					for _, r := range ranges {
						require.Equal(t, shard.Shard{Name: r.String(), Range: r, Node: s.Node}, *m.Lookup(r.Start))
					}
				}
			},
			"merge": func(t *rapid.T) {
				a, b := m.ByName(name(t)), m.ByName(name(t))
				next, err := m.Merge(a.Name, b.Name)
				if whole, ok := a.Range.Join(b.Range); !ok || a.Node != b.Node {
					require.ErrorIs(t, err, shard.ErrCannotMerge)
				} else {
					change(t, next, err, whole)
					require.Equal(t, shard.Shard{Name: whole.String(), Range: whole, Node: a.Node}, *m.Lookup(whole.Start))
				}
			},
			"move": func(t *rapid.T) {
				s := m.ByName(name(t))
				node := rapid.SampledFrom([]string{"node0", "node1", "new"}).Draw(t, "node")
				next, err := m.Move(s.Name, node)
				change(t, next, err, s.Range)
				require.Equal(t, shard.Shard{Name: s.Name, Range: s.Range, Node: node}, *m.Lookup(s.Range.Start))
			},
		})
	})
}

// requireDiff compares Diff with a look-up on both sides of every boundary.
func requireDiff(t *rapid.T, m, next *shard.Map) {
	changes := slices.Collect(m.Diff(next))
	at := func(id shard.ID) *shard.Change {
		for i := range changes {
			if changes[i].Range.Contains(id) {
				return &changes[i]
			}
		}
		return nil
	}
	for _, some := range []*shard.Map{m, next} {
		for s := range some.All() {
			for _, id := range []shard.ID{s.Range.Start, s.Range.End - 1} {
				from, to, change := m.Lookup(id), next.Lookup(id), at(id)
				if *from == *to {
					require.Nil(t, change)
					continue
				}
				require.NotNil(t, change)
				require.Equal(t, from, change.From)
				require.Equal(t, to, change.To)
				require.Equal(t, from.Node != to.Node, change.Moves())
			}
		}
	}
	require.Empty(t, slices.Collect(m.Diff(m)))
	for range m.Diff(next) {
		break // leaving the loop is allowed
	}
}

func TestChangesSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	m := newMap(t, 1,
		shard.Shard{Range: parse(t, "-40"), Node: "a"}, shard.Shard{Range: parse(t, "40-80"), Node: "b"},
		shard.Shard{Range: parse(t, "80-"), Node: "b", Name: "-20"})
	for name, c := range map[string]struct {
		change func() (*shard.Map, error)
		want   error
		text   string
	}{
		"split an unknown shard": {func() (*shard.Map, error) { return m.Split("x") }, shard.ErrNoShard, `"x"`},
		"move an unknown shard":  {func() (*shard.Map, error) { return m.Move("x", "a") }, shard.ErrNoShard, `"x"`},
		"merge with an unknown":  {func() (*shard.Map, error) { return m.Merge("-40", "x") }, shard.ErrNoShard, `"x"`},
		"merge an unknown":       {func() (*shard.Map, error) { return m.Merge("x", "-40") }, shard.ErrNoShard, `"x"`},
		"merge over two nodes":   {func() (*shard.Map, error) { return m.Merge("-40", "40-80") }, shard.ErrCannotMerge, `"-40" is on node "a" and "40-80" on "b"`},
		"merge with a gap":       {func() (*shard.Map, error) { return m.Merge("-20", "-40") }, shard.ErrCannotMerge, "do not adjoin"},
		"split outside":          {func() (*shard.Map, error) { return m.Split("-40", 0x50<<56) }, shard.ErrBadRange, `split "-40"`},
		"a part's name is taken": {func() (*shard.Map, error) { return m.Split("-40") }, shard.ErrDuplicateName, `"-20"`},
	} {
		next, err := c.change()
		require.ErrorIs(t, err, c.want, name)
		require.ErrorContains(t, err, c.text, name)
		require.Nil(t, next, name)
	}
	last := newMap(t, math.MaxUint64, shard.Shard{})
	_, err := last.Split("-")
	require.ErrorIs(t, err, shard.ErrLastEpoch)
	require.Nil(t, m.ByName("x"))
}

// The zero Map has nothing to differ in, on either side.
func TestDiffWithTheZeroMapYieldsNothing(t *testing.T) {
	t.Parallel()
	for range newMap(t, 1, shard.Shard{}).Diff(new(shard.Map)) {
		t.Fatal("yielded")
	}
	for range new(shard.Map).Diff(newMap(t, 1, shard.Shard{})) {
		t.Fatal("yielded")
	}
}
