package sim

import (
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/balance"
)

// Scenario is a case in which strategies differ.
type Scenario struct {
	// Name is one word.
	Name string

	// Doc says what happens and what to look for.
	Doc string

	// Cases are the configs to compare.
	Cases []Case
}

// Case is one config of a [Scenario].
type Case struct {
	// Name tells the case from the others of the scenario, as parts of key=value
	// with slashes between them, the last of which is the strategy's.
	Name string

	// Config is ready for [Run]. Seed, Jobs and all else may be changed.
	Config Config

	// Theory is the mean latency by a closed form, with as many servers as one likes
	// and a run without end. 0 means that there is none.
	Theory float64
}

// contender is a strategy to compare.
type contender struct {
	name     string
	strategy balance.Strategy // nil is Prequal
	choices  int              // for the closed form; 0 if there is none
}

func choices(d int) balance.Strategy {
	return balance.LeastRequest(balance.LeastRequestOptions{Choices: d})
}

var (
	randomly   = contender{"random", balance.Random(), 1}
	roundRobin = contender{"roundrobin", balance.RoundRobin(), 0}
	p2c        = contender{"p2c", choices(2), 2}
	p3c        = contender{"p3c", choices(3), 3}
	p10c       = contender{"p10c", choices(10), 10}
	latency    = contender{"latency", balance.LeastLatency(balance.LatencyOptions{}), 0}
	prequal    = contender{"prequal", nil, 0}
)

// healthOff switches off what balancers do about failures and new servers. An
// ejection that is off never happens, so its times do not matter.
func healthOff() balance.Health {
	return balance.Health{Penalty: -1, Consecutive: -1, SuccessRate: -1, SlowStart: -1}
}

// Scenarios returns the cases that every strategy should be seen in. Each of them
// runs for a second or less, and all for less than a minute. The slice is the
// caller's.
func Scenarios() []Scenario {
	return []Scenario{
		supermarket(), manyClients(), stale(), sinkhole(), heterogeneous(), weights(),
		antagonist(), slowStart(), rollingDeploy(), zoneLoss(), rendering(),
	}
}

// all are the strategies of every scenario.
func all() []contender {
	return []contender{randomly, roundRobin, p2c, p3c, latency, prequal}
}

// add adds a case for each contender; set may be nil.
func (s *Scenario) add(key string, base Config, contenders ...contender) {
	for _, c := range contenders {
		base.Strategy = c.strategy
		s.Cases = append(s.Cases, Case{Name: key + "strategy=" + c.name, Config: base})
	}
}

func supermarket() Scenario {
	s := Scenario{Name: "supermarket", Doc: "One client, 100 like servers, exponential sizes: " +
		"a little choice is nearly as good as all of it. Compare the mean with theory."}
	for _, rho := range []float64{0.5, 0.7, 0.9} {
		base := Config{Utilization: rho, Servers: []Group{{Name: "servers", Count: 100}}}
		for _, c := range all() {
			s.add(fmt.Sprintf("rho=%v/", rho), base, c)
			if c.choices > 0 {
				s.Cases[len(s.Cases)-1].Theory = Supermarket(c.choices, rho)
			}
		}
	}
	return s
}

func manyClients() Scenario {
	s := Scenario{Name: "clients", Doc: "More and more clients share 100 servers at 0.8. Each knows of its own " +
		"requests only, so that counting them becomes blind (see Blind) and no better than random, " +
		"unless each client keeps to a subset, or servers are asked."}
	base := Config{Utilization: 0.8, Servers: []Group{{Name: "servers", Count: 100}}}
	for _, clients := range []int{1, 10, 100, 1000} {
		base.Clients = clients
		some := all()
		if clients == 1000 {
			some = []contender{randomly, p2c, latency}
		}
		s.add(fmt.Sprintf("clients=%d/subset=all/", clients), base, some...)
	}
	base.Clients = 100
	for _, size := range []int{4, 12} {
		base.Options.Subset.Size = size
		s.add(fmt.Sprintf("clients=100/subset=%d/", size), base, p2c, latency, prequal)
	}
	return s
}

func stale() Scenario {
	s := Scenario{Name: "stale", Doc: "What is known is old. Signal reports: 100 clients, to which each server tells its " +
		"load every so often (or, to Prequal, the load of then); between two times all clients prefer the same " +
		"servers, so that old news sends herds: the more choices, the larger. Signal ends: one client, which " +
		"hears of the ends of its requests late but knows of its picks, and so sends no herd."}
	servers := []Group{{Name: "servers", Count: 100}}
	for _, age := range []float64{1, 5, 20} {
		told := Config{Utilization: 0.9, Clients: 100, Servers: servers, StaleLoads: age}
		s.add(fmt.Sprintf("signal=reports/age=%v/", age), told, randomly, prequal)
		told.Reports = age
		s.add(fmt.Sprintf("signal=reports/age=%v/", age), told, p2c, p3c, p10c)
	}
	for _, age := range []float64{1, 5, 20} {
		late := Config{Utilization: 0.9, Servers: servers, StaleEnds: age}
		s.add(fmt.Sprintf("signal=ends/age=%v/", age), late, p2c, p3c, p10c)
	}
	return s
}

func sinkhole() Scenario {
	s := Scenario{Name: "sinkhole", Doc: "One of 20 servers fails at once, and so always looks idle. Its fair share is " +
		"0.05 of the requests, which is what fails with random and round robin. Without penalties and ejections " +
		"it attracts up to twice as much."}
	base := Config{
		Utilization: 0.7, Clients: 4,
		Servers: []Group{{Name: "broken", Count: 1}, {Name: "sound", Count: 19}},
		Events:  []Event{{Do: Fail, Count: 1, After: 0.01}},
	}
	s.add("health=on/", base, all()...)
	base.Options.Health = healthOff()
	s.add("health=off/", base, all()...)
	return s
}

func heterogeneous() Scenario {
	s := Scenario{Name: "heterogeneous", Doc: "A quarter of 100 servers has a quarter of the speed, and nobody told the " +
		"balancers. What treats them alike overloads them. With many clients counts are blind, and only latency " +
		"and probes show which is which."}
	base := Config{
		Utilization: 0.75,
		Servers:     []Group{{Name: "slow", Count: 25, Speed: 0.25}, {Name: "fast", Count: 75}},
	}
	for _, clients := range []int{1, 10, 100} {
		base.Clients = clients
		s.add(fmt.Sprintf("clients=%d/", clients), base, all()...)
	}
	return s
}

func weights() Scenario {
	s := Scenario{Name: "weights", Doc: "Ten of 100 servers are eight times as fast and have eight times the weight: " +
		"nearly half of the requests are theirs. What draws its candidates evenly can give them a fifth at most."}
	base := Config{
		Utilization: 0.8,
		Servers:     []Group{{Name: "large", Count: 10, Speed: 8, Weight: 8}, {Name: "small", Count: 90}},
	}
	s.add("", base, all()...)
	return s
}

func antagonist() Scenario {
	s := Scenario{Name: "antagonist", Doc: "Each of 50 servers has a neighbour that takes two thirds of its speed for 20 " +
		"service times, in turns of 120, and collects garbage for half a service time, every 20."}
	base := Config{
		Utilization: 0.6, Clients: 10, Network: 0.05,
		Servers: []Group{{Name: "servers", Count: 50}},
		Events: []Event{
			{Do: Slow, Count: 50, Factor: 0.33, For: 20, Every: 100},
			{Do: Slow, Count: 50, Factor: 0, For: 0.5, Every: 20},
		},
	}
	s.add("", base, all()...)
	return s
}

func slowStart() Scenario {
	s := Scenario{Name: "slowstart", Doc: "Five servers join twenty, again and again, and for their first 50 service times " +
		"have a fifth of their speed. Without a slow start they get their full part at once."}
	base := Config{
		Utilization: 0.7, Clients: 10, Jobs: 60_000,
		Servers: []Group{{Name: "old", Count: 20}, {Name: "new", Count: 5, Absent: true}},
	}
	for at := 400.0; at < 4000; at += 400 {
		base.Events = append(
			base.Events,
			Event{At: at, Do: Join, First: 20, Count: 5, Factor: 0.2, For: 50},
			Event{At: at + 200, Do: Leave, First: 20, Count: 5},
		)
	}
	s.add("health=on/", base, all()...)
	base.Options.Health = healthOff()
	s.add("health=off/", base, p2c, latency, prequal)
	return s
}

func rollingDeploy() Scenario {
	s := Scenario{Name: "deploy", Doc: "Each of 20 servers is replaced in its turn: it leaves, and five service times " +
		"later another joins, at a third of its speed for 20 service times. Nothing may fail."}
	base := Config{
		Utilization: 0.7, Clients: 10, Jobs: 40_000,
		Servers: []Group{{Name: "servers", Count: 20}},
	}
	for i := range 20 {
		at := 300 + 120*float64(i)
		base.Events = append(
			base.Events,
			Event{At: at, Do: Leave, First: i},
			Event{At: at + 5, Do: Join, First: i, Factor: 0.33, For: 20},
		)
	}
	s.add("", base, all()...)
	return s
}

func zoneLoss() Scenario {
	s := Scenario{Name: "zoneloss", Doc: "Three zones of 20 servers and 10 clients each, a quarter of a service time apart. " +
		"One zone's servers leave for a third of the run: its clients go to the others. Compare the part that " +
		"crosses zones with and without a preference."}
	base := Config{
		Utilization: 0.5, Clients: 30, Jobs: 60_000, Zones: []string{"a", "b", "c"}, Network: 0.05, CrossZone: 0.25,
		Servers: []Group{{Name: "a", Count: 20, Zone: "a"}, {Name: "b", Count: 20, Zone: "b"}, {Name: "c", Count: 20, Zone: "c"}},
		Events:  []Event{{At: 700, Do: Leave, First: 40, Count: 20, For: 600}},
	}
	for _, prefer := range []bool{true, false} {
		base.PreferZone = prefer
		s.add(fmt.Sprintf("prefer=%v/", prefer), base, all()...)
	}
	return s
}

func rendering() Scenario {
	s := Scenario{Name: "rendering", Doc: "Server-side rendering: pages that need processors and nothing else, a few of them " +
		"fifty times as long as most, on 20 servers of four processors that work on all of them at once. A fifth " +
		"of the machines is older."}
	base := Config{
		Utilization: 0.7, Clients: 8, Network: 0.02, Service: Pareto(1.5, 200),
		Unit: 50 * time.Millisecond,
		Servers: []Group{
			{Name: "older", Count: 4, Workers: 4, Sharing: true, Speed: 0.7},
			{Name: "newer", Count: 16, Workers: 4, Sharing: true},
		},
	}
	s.add("", base, all()...)
	return s
}
