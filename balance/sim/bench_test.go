package sim_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance/sim"
)

// BenchmarkSim runs the scenarios. Their figures are the result, in service times
// (st) where they are times; ns/job is what the simulator costs.
func BenchmarkSim(b *testing.B) {
	for _, s := range sim.Scenarios() {
		for _, c := range s.Cases {
			b.Run("scenario="+s.Name+"/"+c.Name, func(b *testing.B) {
				b.ReportAllocs()
				var r sim.Result
				jobs := 0
				for b.Loop() {
					config := c.Config
					config.Seed = 1
					var err error
					r, err = sim.Run(config)
					require.NoError(b, err)
					jobs += r.Jobs
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(r.Mean, "mean")
				b.ReportMetric(r.P50, "p50-st")
				b.ReportMetric(r.P99, "p99-st")
				b.ReportMetric(r.P999, "p999-st")
				b.ReportMetric(r.MaxShare, "maxshare")
				b.ReportMetric(100*r.FailRate, "fail%")
				b.ReportMetric(100*r.Blind, "blind%")
				if c.Theory > 0 {
					b.ReportMetric(c.Theory, "theory")
				}
				if len(c.Config.Zones) > 0 {
					b.ReportMetric(100*r.CrossZone, "crosszone%")
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(jobs), "ns/job")
			})
		}
	}
}
