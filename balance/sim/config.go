package sim

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/evenkeel-go/evenkeel/balance"
)

// Config is what [Run] simulates. Times are in units of the mean service time, the
// time that a server of speed 1 takes for an average request alone; Unit says how
// long that is on the balancers' clocks.
type Config struct {
	// Seed selects the random numbers. Configs that differ in nothing but what the
	// balancers are see the same requests: the same arrivals, clients and sizes.
	Seed uint64

	// Jobs is the number of requests. 0 means 200000.
	Jobs int

	// Warm is the part of them, the first ones, that is not measured, since it sees
	// servers that are still empty. 0 means a tenth; negative means none.
	Warm float64

	// Utilization is the rate of the requests relative to what the servers that are
	// there at the start can do. Requests arrive as a Poisson process.
	Utilization float64

	// Service is the distribution of the requests' sizes.
	Service Dist

	// Servers are the servers, group by group. They are numbered from 0 through all
	// groups.
	Servers []Group

	// Clients is the number of clients. Each has a balancer of its own, and each
	// request comes from one of them at random. 0 means 1.
	Clients int

	// Strategy is that of all balancers. Nil means [balance.Prequal] with Prequal, of
	// which the simulator sets Go and is the Prober.
	Strategy balance.Strategy
	Prequal  balance.PrequalOptions

	// Options are those of all balancers. The simulator sets Rand, Clock, Zone.Local,
	// Zone.Clients, Subset.Client and Subset.Clients.
	Options balance.Options

	// Unit is the mean service time on the clocks, for the times in Options and in
	// the strategy. 0 means 100 milliseconds.
	Unit time.Duration

	// Network is the round trip between clients and servers, of requests and probes.
	Network float64

	// Zones are where the clients are: client i is in Zones[i%len(Zones)]. Between
	// zones CrossZone is added to the round trip. With PreferZone the balancers know
	// their zones.
	Zones      []string
	CrossZone  float64
	PreferZone bool

	// StaleEnds holds back the ends of requests from the balancers, though not from
	// what is measured, until the next multiple of it.
	StaleEnds float64

	// StaleLoads makes servers tell their load as it was at the last multiple of it.
	StaleLoads float64

	// Reports makes every server tell every client that has ever picked it its load, at
	// each multiple of it. With Piggyback every answer does.
	Reports   float64
	Piggyback bool

	// Events are what happens to servers.
	Events []Event

	// Trace, if set, is called at the end of each request, measured or not.
	Trace func(Request)
}

// Request is a request that has ended, for [Config].Trace.
type Request struct {
	// Number counts the requests in the order of their arrival.
	Number int

	// Client and Server are who sent and who answered it. Server is -1 if there was
	// none to pick.
	Client, Server int

	// Start is when the client picked, Latency the time until it had the answer.
	Start, Latency float64

	// Size is the work that the request needed.
	Size float64

	// Failed says that it failed.
	Failed bool
}

func (c Config) withDefaults() Config {
	if c.Jobs == 0 {
		c.Jobs = 200_000
	}
	switch {
	case c.Warm == 0:
		c.Warm = 0.1
	case c.Warm < 0:
		c.Warm = 0
	}
	if c.Clients == 0 {
		c.Clients = 1
	}
	if c.Unit == 0 {
		c.Unit = 100 * time.Millisecond
	}
	if c.Service.draw == nil && c.Service.err == nil {
		c.Service = Exponential()
	}
	return c
}

// most bounds counts, so that they fit the simulator's numbers.
const most = 1 << 30

// validate checks a config with its defaults.
func (c *Config) validate() error {
	switch {
	case c.Jobs < 1 || c.Jobs > most:
		return fmt.Errorf("sim: Jobs is %d, expected 0 (for 200000) to %d", c.Jobs, most)
	case !(c.Warm < 1):
		return fmt.Errorf("sim: Warm is %v, expected less than 1", c.Warm)
	case !(c.Utilization > 0) || math.IsInf(c.Utilization, 1):
		return fmt.Errorf("sim: Utilization is %v, expected more than 0 and finite", c.Utilization)
	case c.Service.err != nil:
		return c.Service.err
	case c.Clients < 1 || c.Clients > most:
		return fmt.Errorf("sim: Clients is %d, expected 0 (for 1) to %d", c.Clients, most)
	case c.Unit < time.Microsecond || c.Unit > time.Hour:
		return fmt.Errorf("sim: Unit is %v, expected 0 (for 100ms) or 1µs to 1h", c.Unit)
	case c.PreferZone && len(c.Zones) == 0:
		return errors.New("sim: PreferZone is true and Zones is empty, expected the zones of the clients")
	}
	for _, f := range []struct {
		name  string
		value float64
	}{
		{"Network", c.Network},
		{"CrossZone", c.CrossZone},
		{"StaleEnds", c.StaleEnds},
		{"StaleLoads", c.StaleLoads},
		{"Reports", c.Reports},
	} {
		if !nonNegative(f.value) {
			return fmt.Errorf("sim: %s is %v, expected 0 or more and finite", f.name, f.value)
		}
	}
	servers, present := 0, 0
	for i, g := range c.Servers {
		if err := g.validate(fmt.Sprintf("sim: Servers[%d]", i)); err != nil {
			return err
		}
		servers += g.Count
		if !g.Absent {
			present += g.Count
		}
	}
	if present == 0 || servers > most {
		return fmt.Errorf("sim: Servers are %d, of which %d are there at the start, expected 1 to %d", servers, present, most)
	}
	for i, e := range c.Events {
		if err := e.validate(fmt.Sprintf("sim: Events[%d]", i), servers); err != nil {
			return err
		}
	}
	return nil
}

func nonNegative(x float64) bool { return x >= 0 && !math.IsInf(x, 1) }
