package balance_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/balance"
)

// zoned returns backends in zones: n of each, by name such as a0, a1.
func zoned(zones map[string]int) (set []balance.Backend[string]) {
	for _, zone := range []string{"a", "b", "c"} {
		for i := range zones[zone] {
			id := fmt.Sprint(zone, i)
			set = append(set, balance.Backend[string]{ID: id, Value: id, Zone: zone})
		}
	}
	return set
}

// zoneShare returns the part of picks that zone a gets.
func zoneShare(shares map[string]float64) (share float64) {
	for id, s := range shares {
		if id[0] == 'a' {
			share += s
		}
	}
	return share
}

func TestZonePreference(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		zones map[string]int
		zone  balance.Zone
		want  float64 // of zone a
	}{
		{"no preference", map[string]int{"a": 4, "b": 4}, balance.Zone{}, 0.5},
		{"all local", map[string]int{"a": 4, "b": 4, "c": 4}, balance.Zone{Local: "a"}, 1},
		{"the zone is gone", map[string]int{"b": 4, "c": 4}, balance.Zone{Local: "a"}, 0},
		{"too few are left", map[string]int{"a": 2, "b": 4, "c": 4}, balance.Zone{Local: "a"}, 0.2},
		{"enough, by Min", map[string]int{"a": 2, "b": 4, "c": 4}, balance.Zone{Local: "a", Min: 1}, 1},
		{"only this zone", map[string]int{"a": 4}, balance.Zone{Local: "a"}, 1},
		{"as many clients as backends", map[string]int{"a": 4, "b": 4}, balance.Zone{Local: "a", Clients: 0.5}, 1},
		{"twice as many clients", map[string]int{"a": 4, "b": 12}, balance.Zone{Local: "a", Clients: 0.5}, 0.5},
		{"all clients", map[string]int{"a": 4, "b": 12}, balance.Zone{Local: "a", Clients: 1}, 0.25},
	} {
		for name, strategy := range exactStrategies() {
			s := stage(t, strategy, balance.Options{Zone: c.zone}, 0)
			require.NoError(t, s.Update(zoned(c.zones)))
			require.InDelta(t, c.want, zoneShare(s.shares(5000)), 0.03, "%s: %s", c.name, name)
		}
	}
}

// A zone takes 1.4 times its usual load, and what is above that goes elsewhere.
func TestAZoneSpillsOver(t *testing.T) {
	t.Parallel()
	o := balance.Options{Zone: balance.Zone{Local: "a"}, Health: balance.Health{MaxEjected: 1}}
	s := stage(t, balance.Random(), o, 0)
	require.NoError(t, s.Update(zoned(map[string]int{"a": 10, "b": 10})))
	for i, want := range []float64{1, 1, 1, 0.98, 0.84, 0.7, 0.56, 0.42} {
		require.InDelta(t, want, zoneShare(s.shares(20_000)), 0.015, "%d ejected", i)
		s.end(fmt.Sprint("a", i), errTest, 5)
	}
	require.InDelta(t, 2.0/12, zoneShare(s.shares(20_000)), 0.015, "no preference with less than Min")
}

func TestASubsetHasAtLeastItsSizeAndAllBackendsGetTheSame(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "backends")
		clients := rapid.IntRange(1, 30).Draw(t, "clients")
		size := rapid.IntRange(1, 70).Draw(t, "size")
		set := equals(n)
		covered := map[string]float64{}
		for client := range clients {
			parts := balance.Slice(balance.Subset{Client: client, Clients: clients, Size: size}, set)
			require.GreaterOrEqual(t, len(parts), min(n, size))
			require.LessOrEqual(t, len(parts), max(1, size+n/clients+2))
			sum := 0.0
			for id, part := range parts {
				sum += part
				require.Greater(t, part, 0.0)
				require.LessOrEqual(t, part, 1.0)
				covered[id] += part
			}
			require.GreaterOrEqual(t, sum, float64(min(n, size))-1e-9)
		}
		require.Len(t, covered, n, "no backend is left out")
		for _, c := range covered {
			require.InDelta(t, covered["b0"], c, 1e-9)
		}
	})
}

// All clients agree on the ring, and one backend more changes little of a slice.
func TestASubsetIsStable(t *testing.T) {
	t.Parallel()
	set := equals(100)
	of := func(set []balance.Backend[string]) map[string]float64 {
		return balance.Slice(balance.Subset{Client: 3, Clients: 10, Size: 12}, set)
	}
	before := of(set)
	shuffled := slices.Clone(set)
	slices.Reverse(shuffled)
	require.Equal(t, before, of(shuffled))
	kept := 0
	for id := range of(append(set, equals(101)[100])) {
		if _, ok := before[id]; ok {
			kept++
		}
	}
	require.GreaterOrEqual(t, kept, 10)
}

func TestPicksStayInTheSubset(t *testing.T) {
	t.Parallel()
	subset := balance.Subset{Client: 1, Clients: 4, Size: 5}
	for name, strategy := range exactStrategies() {
		s := stage(t, strategy, balance.Options{Subset: subset}, 30)
		parts := balance.Slice(subset, equals(30))
		sum := 0.0
		for _, part := range parts {
			sum += part
		}
		shares := s.shares(20_000)
		for id, share := range shares {
			require.InDelta(t, parts[id]/sum, share, 0.02, "%s %s", name, id)
		}
		all := 0
		for range s.Stats() {
			all++
		}
		require.Equal(t, 30, all, "Stats tells of all")
	}
}

func TestASubsetIsTakenOfEachSideOfTheZoneBorder(t *testing.T) {
	t.Parallel()
	o := balance.Options{
		Zone:   balance.Zone{Local: "a"},
		Subset: balance.Subset{Client: 2, Clients: 3, Size: 4},
		Health: balance.Health{MaxEjected: 1, Keep: -1, Panic: -1},
	}
	s := stage(t, balance.Random(), o, 0)
	require.NoError(t, s.Update(zoned(map[string]int{"a": 12, "b": 6, "c": 6})))
	local := s.shares(1000)
	require.Len(t, local, 4)
	require.InDelta(t, 1, zoneShare(local), 1e-9)
	for id := range local {
		s.end(id, errTest, 5)
	}
	elsewhere := s.shares(1000)
	require.Len(t, elsewhere, 4)
	require.Zero(t, zoneShare(elsewhere))
}

// The slice of client 5 ends in the backend that it begins in.
func TestASliceThatEndsWhereItBeganHasEachBackendOnce(t *testing.T) {
	t.Parallel()
	parts := balance.Slice(balance.Subset{Client: 5, Clients: 8, Size: 2}, equals(3))
	require.Len(t, parts, 3)
	require.InDelta(t, 18.0/8, parts["b0"]+parts["b1"]+parts["b2"], 1e-9)
}

func TestASubsetOfManyClients(t *testing.T) {
	t.Parallel()
	const clients = 1 << 30
	for _, client := range []int{0, clients / 3, clients - 1} {
		parts := balance.Slice(balance.Subset{Client: client, Clients: clients, Size: 12}, equals(1000))
		require.GreaterOrEqual(t, len(parts), 12)
		require.LessOrEqual(t, len(parts), 14)
	}
}

// What is outside of the subset gets no picks, so that nothing is due for it: its state
// must still be right, and a late failure must not eject it.
func TestStatesOutsideOfTheSubset(t *testing.T) {
	t.Parallel()
	for client := range 3 {
		o := balance.Options{Subset: balance.Subset{Client: client, Clients: 3, Size: 2}}
		s := stage(t, balance.Random(), o, 6)
		var open []balance.Pick[string]
		for range 100 {
			p, err := s.Pick()
			require.NoError(t, err)
			open = append(open, p)
		}
		require.NoError(t, s.Update(equals(40))) // another slice of the ring
		s.now += 10 * time.Second
		for backend, stats := range s.Stats() {
			require.Equal(t, balance.Healthy, stats.State, backend.ID)
		}
		reached := s.shares(1000)
		s.changes = nil
		for i := range open {
			if _, ok := reached[open[i].ID()]; !ok {
				open[i].Done(errTest)
				require.Equal(t, balance.Healthy, s.state(open[i].ID()))
			}
		}
		require.Empty(t, s.changes)
	}
}

func TestExtremeWeightsLeaveTheZonePreference(t *testing.T) {
	t.Parallel()
	for _, weight := range []float64{math.MaxFloat64, math.SmallestNonzeroFloat64} {
		for name, strategy := range exactStrategies() {
			s := stage(t, strategy, balance.Options{Zone: balance.Zone{Local: "a"}}, 0)
			set := zoned(map[string]int{"a": 5, "b": 5})
			for i := range set {
				set[i].Weight = weight
			}
			require.NoError(t, s.Update(set))
			shares := s.shares(2000)
			require.InDelta(t, 1, zoneShare(shares), 1e-9, name)
			require.Len(t, shares, 5)
		}
	}
}

func TestTopologyOutOfRangeIsRefused(t *testing.T) {
	t.Parallel()
	for field, o := range map[string]balance.Options{
		"Zone.Min":          {Zone: balance.Zone{Min: -1}},
		"Zone.Clients":      {Zone: balance.Zone{Clients: math.NaN()}},
		"Zone.Clients ":     {Zone: balance.Zone{Clients: 1.5}},
		"Subset.Size":       {Subset: balance.Subset{Size: -1}},
		"Subset.Client":     {Subset: balance.Subset{Size: 3, Client: 3, Clients: 3}},
		"Subset.Clients is": {Subset: balance.Subset{Size: 3, Clients: 1<<30 + 1}},
	} {
		_, err := balance.New[string](balance.Random(), o)
		require.ErrorContains(t, err, field)
	}
}
