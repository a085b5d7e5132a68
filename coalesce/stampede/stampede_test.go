package stampede_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func run(t *testing.T, st strategy, s scenario) (r result) {
	synctest.Test(t, func(*testing.T) { r = simulate(s, st.make, 1) })
	if st.shared {
		r.ideal /= s.processes
	}
	return r
}

func BenchmarkStampede(b *testing.B) {
	for _, readers := range []int{100, 1000, 4000} {
		for _, st := range strategies {
			b.Run(fmt.Sprintf("readers=%d/strategy=%s", readers, st.name), func(b *testing.B) {
				var r result
				for b.Loop() {
					// A bubble needs a test. This runs one, with the flags of this process.
					ok := testing.RunTests(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{{
						Name: b.Name(), F: func(t *testing.T) { r = run(t, st, standard(readers)) },
					}})
					require.True(b, ok)
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(r.loads), "loads")
				b.ReportMetric(float64(r.ideal), "ideal")
				b.ReportMetric(float64(r.peak), "peak")
				b.ReportMetric(float64(r.p99.Microseconds())/1000, "p99-ms")
				b.ReportMetric(float64(r.max.Microseconds())/1000, "max-ms")
				b.ReportMetric(r.age.Seconds(), "age-s")
			})
		}
	}
}

// What each strategy is for shows, and what it costs.
func TestEachStrategyKeepsItsPromise(t *testing.T) {
	s := standard(1000)
	r := map[string]result{}
	for _, st := range strategies {
		t.Run(st.name, func(t *testing.T) {
			r[st.name] = run(t, st, s)
			t.Logf("%+v", r[st.name])
		})
	}
	require.Greater(t, r["none"].loads, 2*r["none"].ideal, "the stampede")
	require.Greater(t, r["none"].peak, 10*r["group"].peak)

	require.LessOrEqual(t, r["group"].loads, r["group"].ideal, "a load for each process, key and lifetime")
	require.Less(t, r["group"].max, r["none"].max)

	require.Zero(t, r["swr"].max, "nobody waits")
	require.Greater(t, r["swr"].age, s.ttl, "for fresh values")
	require.LessOrEqual(t, r["swr"].age, 2*s.ttl)

	require.Less(t, r["xfetch"].p99, s.query, "hardly anybody waits")
	require.LessOrEqual(t, r["xfetch"].age, s.ttl+s.query, "and values are fresh")

	require.LessOrEqual(t, r["lease"].loads, r["lease"].ideal+s.keys, "one process for all")
	require.LessOrEqual(t, r["lease"].age, s.ttl+s.query)
}

// Jitter is for many keys that were loaded at the same moment.
func TestJitterKeepsKeysFromExpiringTogether(t *testing.T) {
	s := standard(2000)
	s.keys, s.capacity = 200, 40
	r := map[string]result{}
	for _, st := range strategies {
		if st.name == "group" || st.name == "jitter" {
			t.Run(st.name, func(t *testing.T) { r[st.name] = run(t, st, s) })
		}
	}
	require.Less(t, r["jitter"].peak, r["group"].peak)
}
