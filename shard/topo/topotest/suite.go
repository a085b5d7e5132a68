package topotest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
)

// A Place is where the map of one keyspace is kept, empty at first.
type Place struct {
	// Open returns a store in the place, as a process of its own would have it.
	Open func(t testing.TB) topo.Store

	// Neighbor returns a store of another keyspace that is as near as can be: in the same
	// table, folder or server.
	Neighbor func(t testing.TB) topo.Store

	// Corrupt makes the place hold this text where a document should be, as an
	// operator's mistake would. The epoch beside it, if there is one, rises by one. Nil if
	// the place hides it.
	Corrupt func(t testing.TB, text string)

	// Restore puts an older document in the place of the one that is there, whole and at
	// once, as a restored backup would. Nil if that is not possible, or hidden.
	Restore func(t testing.TB, text string)

	// Delete takes the map out of the place, whole and at once. Nil as that of Restore.
	Delete func(t testing.TB)

	// Where is what an error about that text names.
	Where string

	// Block makes the place answer nobody until the function that it returns is called.
	// Nil if that cannot be.
	Block func(t testing.TB) (unblock func())

	// Publishers is how many may publish at once. 0 means 8.
	Publishers int
}

// patience bounds what must happen and may be slow.
const patience = 60 * time.Second

// Run runs the suite. It opens a place for each part.
func Run(t *testing.T, open func(t testing.TB) Place) {
	for _, part := range []struct {
		name string
		f    func(t *testing.T, p Place)
	}{
		{"none yet", noneYet},
		{"round trip", roundTrip},
		{"a big map", bigMap},
		{"not a map", notAMap},
		{"only forward", onlyForward},
		{"neighbors", neighbors},
		{"one of many wins", oneOfManyWins},
		{"changes of many are all made", changesOfManyAreAllMade},
		{"watchers", watchers},
		{"a watch ends", watchEnds},
		{"a loop that panics", loopPanics},
		{"restored", restored},
		{"deleted", deleted},
		{"canceled before", canceledBefore},
		{"canceled while blocked", canceledWhileBlocked},
		{"garbage", garbage},
		{"garbage in all forms", garbageInAllForms},
	} {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			p := open(t)
			if p.Publishers == 0 {
				p.Publishers = 8
			}
			part.f(t, p)
		})
	}
}

func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// NewMap returns a map of n shards on nodes of this name.
func NewMap(t testing.TB, epoch uint64, n int, node string) *shard.Map {
	t.Helper()
	ranges, err := shard.EvenRanges(n)
	require.NoError(t, err)
	shards := make([]shard.Shard, n)
	for i, r := range ranges {
		shards[i] = shard.Shard{Range: r, Node: node}
	}
	m, err := shard.NewMap(epoch, shards...)
	require.NoError(t, err)
	return m
}

// requireMap says that two maps are the same in all parts.
func requireMap(t testing.TB, want, got *shard.Map) {
	t.Helper()
	require.NotNil(t, got)
	require.Equal(t, want.Epoch(), got.Epoch())
	require.Equal(t, want.Digest(), got.Digest())
	require.Equal(t, want.Len(), got.Len())
	i := 0
	var all []*shard.Shard
	for s := range want.All() {
		all = append(all, s)
	}
	for s := range got.All() {
		require.Equal(t, *all[i], *s)
		i++
	}
}

func publish(t testing.TB, s topo.Store, m *shard.Map) {
	t.Helper()
	require.NoError(t, s.Publish(soon(t), m))
}

func requireLoads(t testing.TB, s topo.Store, want *shard.Map) {
	t.Helper()
	got, err := s.Load(soon(t))
	require.NoError(t, err)
	requireMap(t, want, got)
}
