package sim_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
)

const (
	peakRate  = 2.3e6 // queries a second
	nightRate = 0.6e6
	sampled   = 100_000 // one query of so many is routed
)

// rate is the queries a second at a minute of the day: least at four in the morning.
func rate(minute int) float64 {
	phase := 2 * math.Pi * float64(minute-4*60) / (24 * 60)
	return nightRate + (peakRate-nightRate)*(1-math.Cos(phase))/2
}

// day is what a simulated day came to.
type day struct {
	queries float64 // that it had
	routed  int     // of these
	spent   time.Duration
	updates int64
}

// simulateDay routes the sampled queries of a day minute by minute, and changes the map
// every quarter of an hour as a coordinator would.
func simulateDay(t testing.TB, shards int) day {
	rng := rand.New(rand.NewPCG(1, 2))
	m := evenMap(t, shards)
	r, err := shard.NewRouter(shard.XXHash, m, func(node string) (string, error) { return node, nil }, shard.RouterOptions[string]{})
	require.NoError(t, err)
	channels := make([]string, 1<<16)
	for i := range channels {
		channels[i] = fmt.Sprintf("channel:%08d", i)
	}
	popular := rand.NewZipf(rng, 1.1, 10, uint64(len(channels)-1))
	var d day
	var keys []string
	carried := 0.0
	for minute := range 24 * 60 {
		if minute%15 == 0 && minute > 0 {
			m = nextMap(t, rng, m)
			require.NoError(t, r.Update(m))
		}
		queries := 60 * rate(minute)
		d.queries += queries
		carried += queries / sampled
		keys = keys[:0]
		for ; carried >= 1; carried-- {
			keys = append(keys, channels[popular.Uint64()])
		}
		d.routed += len(keys)
		// A routed query is some nanoseconds: a pass over the minute's keys is timed, often
		// enough for the clock.
		const passes = 20
		started := time.Now()
		for range passes {
			for _, key := range keys {
				target := r.Route(key)
				if len(target.Node) == 0 || target.Epoch != m.Epoch() {
					t.Fatalf("%s went to %+v", key, target)
				}
			}
		}
		d.spent += time.Since(started) / passes
	}
	d.updates = r.Stats().Updates
	return d
}

// nextMap splits a shard, or merges two, or moves one.
func nextMap(t testing.TB, rng *rand.Rand, m *shard.Map) *shard.Map {
	shards := slices.Collect(m.All())
	i := rng.IntN(len(shards) - 1)
	var next *shard.Map
	var err error
	switch a, b := shards[i], shards[i+1]; {
	case rng.IntN(2) == 0:
		next, err = m.Split(a.Name)
	case a.Node == b.Node:
		next, err = m.Merge(a.Name, b.Name)
	default:
		next, err = m.Move(a.Name, b.Node)
	}
	require.NoError(t, err)
	return next
}

func BenchmarkDay(b *testing.B) {
	for _, shards := range []int{16, 256, 4096} {
		b.Run(fmt.Sprintf("shards=%d", shards), func(b *testing.B) {
			var d day
			for b.Loop() {
				d = simulateDay(b, shards)
			}
			route := float64(d.spent.Nanoseconds()) / float64(d.routed)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(route, "ns/route")
			b.ReportMetric(100*route*peakRate/1e9, "core%-at-peak")
			b.ReportMetric(d.queries/1e6, "Mqueries")
			b.ReportMetric(float64(d.updates), "updates")
		})
	}
}

// A day of updates leaves no query without a route, and Do finds every key's new home.
func TestADayOfUpdates(t *testing.T) {
	d := simulateDay(t, 64)
	require.Equal(t, int64(24*4), d.updates)
	require.InDelta(t, d.queries/sampled, d.routed, 1)
	require.InDelta(t, 24*3600*(peakRate+nightRate)/2, d.queries, 1e6, "the mean of the curve")

	r, err := shard.NewRouter(shard.XXHash, evenMap(t, 4), func(node string) (string, error) { return node, nil }, shard.RouterOptions[string]{})
	require.NoError(t, err)
	next, err := r.Snapshot().Map().Move("40-80", "elsewhere")
	require.NoError(t, err)
	calls := 0
	require.NoError(t, r.Do(t.Context(), "channel:00000001", func(_ context.Context, target shard.Target[string]) error {
		if calls++; calls == 1 {
			require.NoError(t, r.Update(next))
			return &shard.StaleError{Epoch: next.Epoch()}
		}
		require.Equal(t, next.Epoch(), target.Epoch)
		return nil
	}))
	require.Equal(t, 2, calls)
}
