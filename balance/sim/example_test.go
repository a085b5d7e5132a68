package sim_test

import (
	"fmt"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/sim"
)

// How much a little choice helps: 100 servers that are busy nine tenths of the time.
func ExampleRun() {
	for _, strategy := range []struct {
		name string
		balance.Strategy
	}{
		{"random", balance.Random()},
		{"two choices", balance.LeastRequest(balance.LeastRequestOptions{})},
		{"three", balance.LeastRequest(balance.LeastRequestOptions{Choices: 3})},
	} {
		r, err := sim.Run(sim.Config{
			Seed:        1,
			Utilization: 0.9,
			Servers:     []sim.Group{{Count: 100}},
			Strategy:    strategy.Strategy,
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%-12s mean %4.1f  p99 %4.1f\n", strategy.name, r.Mean, r.P99)
	}
	// Output:
	// random       mean 10.1  p99 44.7
	// two choices  mean  2.7  p99  8.9
	// three        mean  2.1  p99  7.5
}

// What a server that fails at once does to the requests of the others, and what the
// balancers do about it.
func ExampleScenarios() {
	for _, s := range sim.Scenarios() {
		if s.Name != "sinkhole" {
			continue
		}
		for _, c := range s.Cases {
			if c.Name != "health=on/strategy=p2c" && c.Name != "health=off/strategy=p2c" {
				continue
			}
			c.Config.Seed = 1
			c.Config.Jobs = 50_000
			r, err := sim.Run(c.Config)
			if err != nil {
				fmt.Println(err)
				return
			}
			fmt.Printf("%s: %.1f %% of the requests fail\n", c.Name, 100*r.FailRate)
		}
	}
	// Output:
	// health=on/strategy=p2c: 0.2 % of the requests fail
	// health=off/strategy=p2c: 6.8 % of the requests fail
}

// A rolling deploy as one would write it down: ten servers, each of which is away for
// five service times and slow for twenty after that.
func ExampleRun_deploy() {
	c := sim.Config{
		Seed:        1,
		Jobs:        20_000,
		Utilization: 0.6,
		Clients:     4,
		Servers:     []sim.Group{{Count: 10}},
		Strategy:    balance.LeastRequest(balance.LeastRequestOptions{}),
	}
	for i := range 10 {
		at := 500 + 100*float64(i)
		c.Events = append(
			c.Events,
			sim.Event{At: at, Do: sim.Leave, First: i},
			sim.Event{At: at + 5, Do: sim.Join, First: i, Factor: 0.5, For: 20},
		)
	}
	var worst float64
	c.Trace = func(r sim.Request) { worst = max(worst, r.Latency-r.Size) }
	r, err := sim.Run(c)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("failed %v, p99 %.0f service times, longest delay %.0f\n", r.FailRate, r.P99, worst)
	// Output:
	// failed 0, p99 8 service times, longest delay 13
}
