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

// Group is a number of like servers.
type Group struct {
	// Name is for the result.
	Name string

	// Count is the number of servers in the group.
	Count int

	// Speed is the work that each processor of a server does in a unit of time. 0
	// means 1.
	Speed float64

	// Workers is the number of requests that a server works on at a time, at Speed
	// each; the others wait, first come, first served. 0 means 1.
	Workers int

	// Sharing makes a server work on all its requests at once, on Workers processors:
	// if there are more requests they share the processors evenly.
	Sharing bool

	// Weight and Zone are those of the backend.
	Weight float64
	Zone   string

	// Absent servers are not there until an event lets them join.
	Absent bool
}

// Action is what an [Event] does to a server.
type Action uint8

const (
	// Slow multiplies the speed by Factor: another tenant of the machine, or with a
	// factor of 0 the pause of a garbage collector.
	Slow Action = iota

	// Fail makes requests fail with probability Prob, After their arrival and
	// without any work. Probes are answered.
	Fail

	// Crash loses all requests of the server, and makes those and new ones, and
	// probes, fail After that. The server is still in the balancers' sets.
	Crash

	// Leave takes the server out of the balancers' sets. It finishes what it has.
	Leave

	// Join puts the server into the balancers' sets, as a new one. Its speed is
	// multiplied by Factor For that long: caches are cold.
	Join
)

func (a Action) String() string {
	if a > Join {
		return fmt.Sprintf("Action(%d)", uint8(a))
	}
	return [...]string{"Slow", "Fail", "Crash", "Leave", "Join"}[a]
}

// Event is something that happens to servers.
type Event struct {
	// At is when, from the start.
	At float64

	// Do is what.
	Do Action

	// First and Count are the servers that it happens to, by their numbers. A Count of
	// 0 means 1.
	First, Count int

	// For is how long it lasts. 0 means until the end, and for Join that the server is
	// not slow. A server whose Leave is over joins.
	For float64

	// Every makes it come again, with pauses that are exponentially distributed and
	// Every long on average, on each of the servers by itself. The first pause begins
	// at At. Not with Leave and Join.
	Every float64

	// Factor is what Slow and Join multiply the speed by, from 0 to 1. A factor of 0
	// needs a For.
	Factor float64

	// Prob is the probability that Fail makes a request fail. 0 means 1.
	Prob float64

	// After is the time until Fail and Crash show at the server: 0 is a connection
	// that is refused, a long one a timeout.
	After float64
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

// validate checks a config with its defaults. Run adds the package to the errors.
func (c *Config) validate() error {
	switch {
	case c.Jobs < 1 || c.Jobs > most:
		return fmt.Errorf("Jobs is %d, expected 0 (for 200000) to %d", c.Jobs, most)
	case !(c.Warm < 1):
		return fmt.Errorf("Warm is %v, expected less than 1", c.Warm)
	case !(c.Utilization > 0) || math.IsInf(c.Utilization, 1):
		return fmt.Errorf("Utilization is %v, expected more than 0 and finite", c.Utilization)
	case c.Service.err != nil:
		return fmt.Errorf("Service: %w", c.Service.err)
	case c.Clients < 1 || c.Clients > most:
		return fmt.Errorf("Clients is %d, expected 0 (for 1) to %d", c.Clients, most)
	case c.Unit < time.Microsecond || c.Unit > time.Hour:
		return fmt.Errorf("Unit is %v, expected 0 (for 100ms) or 1µs to 1h", c.Unit)
	case c.PreferZone && len(c.Zones) == 0:
		return errors.New("PreferZone is true and Zones is empty, expected the zones of the clients")
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
			return fmt.Errorf("%s is %v, expected 0 or more and finite", f.name, f.value)
		}
	}
	servers, present := 0, 0
	for i, g := range c.Servers {
		if err := g.validate(); err != nil {
			return fmt.Errorf("Servers[%d]: %w", i, err)
		}
		servers += g.Count
		if !g.Absent {
			present += g.Count
		}
	}
	if present == 0 || servers > most {
		return fmt.Errorf("Servers are %d, of which %d are there at the start, expected 1 to %d", servers, present, most)
	}
	for i, e := range c.Events {
		if err := e.validate(servers); err != nil {
			return fmt.Errorf("Events[%d] (%v): %w", i, e.Do, err)
		}
	}
	return nil
}

func nonNegative(x float64) bool { return x >= 0 && !math.IsInf(x, 1) }

func (g Group) validate() error {
	switch {
	case g.Count < 1 || g.Count > most:
		return fmt.Errorf("Count is %d, expected 1 to %d", g.Count, most)
	case !nonNegative(g.Speed):
		return fmt.Errorf("Speed is %v, expected 0 (for 1) or more and finite", g.Speed)
	case g.Workers < 0 || g.Workers > most:
		return fmt.Errorf("Workers is %d, expected 0 (for 1) to %d", g.Workers, most)
	case !nonNegative(g.Weight):
		return fmt.Errorf("Weight is %v, expected 0 (for 1) or more and finite", g.Weight)
	}
	return nil
}

func (e Event) validate(servers int) error {
	switch {
	case e.Do > Join:
		return errors.New("Do is unknown, expected Slow, Fail, Crash, Leave or Join")
	case !nonNegative(e.At):
		return fmt.Errorf("At is %v, expected 0 or more and finite", e.At)
	case !nonNegative(e.For):
		return fmt.Errorf("For is %v, expected 0 (to the end) or more and finite", e.For)
	case !nonNegative(e.Every):
		return fmt.Errorf("Every is %v, expected 0 (once) or more and finite", e.Every)
	case !nonNegative(e.After):
		return fmt.Errorf("After is %v, expected 0 or more and finite", e.After)
	case !(e.Factor >= 0 && e.Factor <= 1):
		return fmt.Errorf("Factor is %v, expected 0 to 1", e.Factor)
	case !(e.Prob >= 0 && e.Prob <= 1):
		return fmt.Errorf("Prob is %v, expected 0 (for 1) to 1", e.Prob)
	case e.Do == Slow && e.Factor == 0 && e.For == 0:
		return errors.New("Factor is 0 and For is 0, expected one of them: the servers would stand still for ever")
	case e.Every > 0 && e.Do >= Leave:
		return fmt.Errorf("Every is %v, expected 0", e.Every)
	case e.Every > 0 && e.For == 0:
		return fmt.Errorf("Every is %v and For is 0, expected more than 0 for both", e.Every)
	case e.First < 0 || e.First >= servers:
		return fmt.Errorf("First is %d, expected 0 to %d", e.First, servers-1)
	case e.Count < 0 || e.Count > servers-e.First:
		return fmt.Errorf("Count is %d, expected 0 (for 1) to %d", e.Count, servers-e.First)
	}
	return nil
}
