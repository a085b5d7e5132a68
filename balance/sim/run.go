package sim

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/evenkeel-go/evenkeel/balance"
)

// errFailed is what requests and probes fail with.
var errFailed = errors.New("sim: server failed")

// Run simulates a config and returns what it measured. It is deterministic: the same
// config gives the same result, on every machine of the same architecture, as long as
// the functions in it are deterministic too.
//
// It returns an error that names field, value and what was expected for a config
// that is out of range, and what [balance.New] or [balance.Balancer.Update] returned.
//
// A request costs a few hundred nanoseconds, and with Prequal about a microsecond
// for each probe. Run starts no goroutine that outlives it. Different runs may go on
// concurrently.
func Run(c Config) (Result, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return Result{}, err
	}
	s := newSimulation(&c)
	defer s.coroutines.stop()
	if err := s.join(); err != nil {
		return Result{}, err
	}
	if err := s.loop(); err != nil {
		return Result{}, err
	}
	r := s.tally.result(&c, s.servers, s.unit)
	r.Blind = s.blind()
	return r, nil
}

// blind is the blind part of all picks. A balancer estimates its own from a 64th of
// its picks, and says 0 if there was none among them, which few picks must not drag
// down the estimate of all.
func (s *simulation) blind() float64 {
	sum, weight := 0.0, 0.0
	for i := range s.clients {
		client := &s.clients[i]
		picks := float64(client.picks)
		sum += client.balancer.Blind() * picks
		weight += picks * (1 - math.Pow(63.0/64, picks))
	}
	if weight == 0 {
		return 0
	}
	return min(1, sum/weight)
}

// simulation is a run. Times inside it are nanoseconds since the start, on the clock
// that the balancers read.
type simulation struct {
	config *Config
	unit   float64 // nanoseconds
	now    time.Duration
	queue  queue

	workload *rand.Rand // arrivals, clients and sizes, which do not depend on picks
	chance   *rand.Rand // failures
	fate     *rand.Rand // events

	servers []server
	clients []client
	byID    map[string]int32 // servers
	jobs    []job            // under way, and free places
	free    []int32

	between  float64 // mean time between arrivals
	next     time.Duration
	arrived  int
	ended    int
	warm     int // requests that are not measured
	crossing time.Duration
	network  time.Duration
	held     []int32 // requests whose ends the balancers do not know yet

	coroutines coroutines
	tally      tally
}

type client struct {
	balancer *balance.Balancer[int32] // of the numbers of servers
	zone     string
	picks    int
	latest   []balance.Pick[int32] // by server, for Reports
}

// job is a request under way.
type job struct {
	pick     balance.Pick[int32]
	size     float64
	start    time.Duration // at the client
	entered  time.Duration // at the server
	latency  time.Duration
	load     balance.Load // for Piggyback
	number   int32
	client   int32
	server   int32
	inFlight int32 // at the server, when it entered
	failed   bool
}

// Streams of random numbers; those of the clients follow.
const (
	workloadStream = iota
	chanceStream
	fateStream
	clientStream
)

func (c *Config) stream(n uint64) *rand.PCG { return rand.NewPCG(c.Seed, n) }

func newSimulation(c *Config) *simulation {
	s := &simulation{
		config:   c,
		unit:     float64(c.Unit),
		workload: rand.New(c.stream(workloadStream)),
		chance:   rand.New(c.stream(chanceStream)),
		fate:     rand.New(c.stream(fateStream)),
		byID:     map[string]int32{},
		warm:     int(c.Warm * float64(c.Jobs)),
	}
	s.network, s.crossing = s.duration(c.Network), s.duration(c.CrossZone)
	capacity := 0.0
	for i, g := range c.Servers {
		sv := server{
			group:   int32(i),
			workers: max(g.Workers, 1),
			sharing: g.Sharing,
			speed:   g.Speed,
			weight:  g.Weight,
			member:  !g.Absent,
		}
		if sv.speed == 0 {
			sv.speed = 1
		}
		if sv.weight == 0 {
			sv.weight = 1
		}
		sv.setRate()
		if sv.member {
			capacity += sv.speed * float64(sv.workers) * float64(g.Count)
		}
		for range g.Count {
			s.byID[serverID(len(s.servers))] = int32(len(s.servers))
			s.servers = append(s.servers, sv)
		}
	}
	s.between = s.unit / (c.Utilization * capacity)
	s.next = time.Duration(s.workload.ExpFloat64() * s.between)
	n := len(s.servers)
	s.tally = tally{
		groups:   make([]histogram, len(c.Servers)),
		failures: make([]int, len(c.Servers)),
		picks:    make([]int, n),
		fair:     make([]float64, n),
	}
	for i, e := range c.Events {
		if e.Every == 0 {
			s.queue.push(s.duration(e.At), begins, int32(i), -1)
			continue
		}
		for k := range max(e.Count, 1) {
			s.queue.push(s.duration(e.At+s.fate.ExpFloat64()*e.Every), begins, int32(i), int32(e.First+k))
		}
	}
	for _, p := range []struct {
		period float64
		kind   kind
	}{{c.StaleLoads, refreshes}, {c.Reports, reports}} {
		if p.period > 0 {
			s.queue.push(max(1, s.duration(p.period)), p.kind, 0, 0)
		}
	}
	return s
}

func serverID(i int) string { return fmt.Sprintf("server-%d", i) }

// duration converts service times to the clock. What is longer than a century is a
// century, which no run lasts.
func (s *simulation) duration(x float64) time.Duration {
	const century = 100 * 365 * 24 * time.Hour
	return time.Duration(min(x*s.unit, float64(century)))
}

// join makes the clients and tells them the servers.
func (s *simulation) join() error {
	c := s.config
	inZone := map[string]float64{}
	for i := range c.Clients {
		if len(c.Zones) > 0 {
			inZone[c.Zones[i%len(c.Zones)]] += 1 / float64(c.Clients)
		}
	}
	s.clients = make([]client, c.Clients)
	for i := range s.clients {
		client := &s.clients[i]
		o := c.Options
		o.Rand = c.stream(clientStream + uint64(i)).Uint64
		o.Clock = func() time.Duration { return s.now }
		if len(c.Zones) > 0 {
			client.zone = c.Zones[i%len(c.Zones)]
		}
		if c.PreferZone {
			o.Zone.Local, o.Zone.Clients = client.zone, inZone[client.zone]
		}
		if o.Subset.Size > 0 {
			o.Subset.Client, o.Subset.Clients = i, c.Clients
		}
		o.OnChange = func(id string, state balance.State) {
			if state == balance.Ejected {
				s.tally.ejections++
			}
			if c.Options.OnChange != nil {
				c.Options.OnChange(id, state)
			}
		}
		strategy := c.Strategy
		if strategy == nil {
			p := c.Prequal
			if p.Timeout == 0 {
				p.Timeout = time.Second
			}
			p.Go = s.coroutines.launch
			strategy = balance.Prequal(&prober{s, int32(i), p.Timeout}, p)
		}
		b, err := balance.New[int32](strategy, o)
		if err != nil {
			return fmt.Errorf("sim: %w", err)
		}
		client.balancer = b
		if c.Reports > 0 {
			client.latest = make([]balance.Pick[int32], len(s.servers))
		}
	}
	return s.announce()
}

// announce tells the clients which servers there are.
func (s *simulation) announce() error {
	var set []balance.Backend[int32]
	for i := range s.servers {
		if sv := &s.servers[i]; sv.member {
			set = append(set, balance.Backend[int32]{
				ID: serverID(i), Value: int32(i), Weight: sv.weight, Zone: s.config.Servers[sv.group].Zone,
			})
		}
	}
	for i := range s.clients {
		if err := s.clients[i].balancer.Update(set); err != nil {
			return fmt.Errorf("sim: %w", err)
		}
	}
	return nil
}
