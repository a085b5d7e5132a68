package sim_test

import (
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed/sim"
)

// A server is asked for three times what it can do, for 20 seconds. Unprotected, it
// answers next to nothing: all that it does comes too late. Protected, it does nine
// tenths of what it can, and the critical requests notice nothing.
func ExampleRun() {
	fmt.Println("strategy       goodput  critical  background   p99  attempts")
	for _, s := range sim.Strategies(32) {
		switch s.Name {
		case "none", "fifo", "fixed", "codel", "recommended":
		default:
			continue
		}
		r, err := sim.Run(sim.Config{
			Seed:     1,
			Strategy: s,
			Phases:   []sim.Phase{{For: 20 * time.Second, Load: 3}},
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%-12s %7.0f %%  %6.0f %%    %6.0f %%  %3d ms  %.1f\n", s.Name, 100*r.Goodput,
			100*r.Of(shed.Critical).Goodput(), 100*r.Of(shed.Background).Goodput(), r.P99.Milliseconds(), r.Amplification)
	}
	// Output:
	// strategy       goodput  critical  background   p99  attempts
	// none               1 %       1 %         1 %  974 ms  3.0
	// fifo               7 %       3 %         3 %  991 ms  2.9
	// fixed             96 %      33 %        33 %  250 ms  2.6
	// codel             97 %     100 %         0 %  256 ms  2.5
	// recommended       96 %     100 %         0 %  317 ms  1.1
}
