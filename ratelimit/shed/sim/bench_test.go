package sim_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed/sim"
)

// BenchmarkOverload runs the strategies against loads. The figures are the result;
// ns/request is what the simulator costs, and without recover-s it does not recover. The loads other than 3 and the peak are for
// the strategies that differ most.
func BenchmarkOverload(b *testing.B) {
	everywhere := map[string]bool{"none": true, "fifo": true, "codel": true, "recommended": true}
	for _, s := range sim.Strategies(32) {
		for _, load := range []float64{0.5, 1, 2, 3, 5} {
			if load == 3 || everywhere[s.Name] {
				b.Run(fmt.Sprintf("strategy=%s/load=%v", s.Name, load), func(b *testing.B) {
					report(b, sim.Config{Seed: 1, Strategy: s, Warm: warm, Phases: onset(load, time.Minute)})
				})
			}
		}
		b.Run(fmt.Sprintf("strategy=%s/load=peak", s.Name), func(b *testing.B) {
			report(b, sim.Config{Seed: 1, Strategy: s, Warm: warm, Phases: peak(5 * time.Minute)})
		})
	}
}

func report(b *testing.B, c sim.Config) {
	b.ReportAllocs()
	var r sim.Result
	requests := 0
	for b.Loop() {
		var err error
		r, err = sim.Run(c)
		require.NoError(b, err)
		requests += r.Total().Requests
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(requests), "ns/request")
	b.ReportMetric(100*r.Goodput, "goodput%")
	for i, c := range r.Classes {
		class := shed.Background + shed.Class(i)
		b.ReportMetric(100*c.Goodput(), class.String()+"%")
	}
	b.ReportMetric(ms(r.P50), "p50-ms")
	b.ReportMetric(ms(r.P99), "p99-ms")
	b.ReportMetric(ms(r.Of(shed.Critical).P99), "critical-p99-ms")
	b.ReportMetric(100*r.Wasted, "wasted%")
	b.ReportMetric(100*r.Refusing, "refusing%")
	b.ReportMetric(100*r.Lost, "lost%")
	b.ReportMetric(100*r.Torn, "torn%")
	b.ReportMetric(r.Amplification, "attempts")
	if len(c.Phases) > 2 && r.Recovery != sim.Never {
		b.ReportMetric(r.Recovery.Seconds(), "recover-s")
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
