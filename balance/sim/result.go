package sim

// Result is what [Run] measured, of the requests after the warm-up. Times are in units
// of the mean service time, as the clients see them: with waiting and the network.
type Result struct {
	// Jobs is the number of requests that were measured.
	Jobs int

	// Mean, P50, P99 and P999 are of the latency of the requests that succeeded. The
	// percentiles are true to a tenth of a percent.
	Mean, P50, P99, P999 float64

	// MaxQueue is the most requests that a server had at a time, in service and
	// waiting.
	MaxQueue int

	// MaxShare is the greatest number of requests that a server got, relative to its
	// fair part: what its weight entitled it to while it was in the balancers' sets.
	// Servers whose fair part is less than 100 requests do not count, unless all
	// are such.
	MaxShare float64

	// FailRate is the part of the requests that failed, from 0 to 1.
	FailRate float64

	// Blind is the part of the picks in which the balancers saw no difference between
	// the candidates, from 0 to 1, with the warm-up: [balance.Balancer.Blind] of all
	// clients. At 1 they choose at random.
	Blind float64

	// InFlight is the mean number of requests under way, and Rate the number of
	// requests that arrived in a unit of time. By Little's law InFlight is Rate times
	// the mean latency of all requests.
	InFlight, Rate float64

	// CrossZone is the part of the requests that left the client's zone.
	CrossZone float64

	// Ejections is how often a balancer ejected a server, and Probes the number of
	// probes, both with the warm-up.
	Ejections, Probes int

	// Groups are the groups of servers in the order of the config.
	Groups []GroupResult
}

// GroupResult is what [Run] measured of the servers of one group.
type GroupResult struct {
	Name string

	// Share is the part of all requests that the group got, and Fair what it would
	// have got by weight, both from 0 to 1.
	Share, Fair float64

	// Mean and P99 are of the latency of the requests that succeeded.
	Mean, P99 float64

	// FailRate is the part of the group's requests that failed.
	FailRate float64
}

// tally counts what the result is made of.
type tally struct {
	all      histogram
	groups   []histogram
	failures []int // by group
	picks    []int // by server

	fair    []float64 // by server, up to the last change of the sets
	pending int       // requests since

	unserved int // found no server
	crossed  int
	maxQueue int

	// The integral of the number of requests under way, and where it stands.
	area   float64
	at     float64
	inside int
	open   bool
	opened float64
	closed float64

	ejections, probes int
}

// settleFair gives the requests since the last change of the sets to the members,
// by weight.
func (t *tally) settleFair(servers []server) {
	sum := 0.0
	for i := range servers {
		if servers[i].member {
			sum += servers[i].weight
		}
	}
	if sum > 0 {
		for i := range servers {
			if servers[i].member {
				t.fair[i] += float64(t.pending) * servers[i].weight / sum
			}
		}
	}
	t.pending = 0
}

// change moves the number of requests under way by delta at the time now.
func (t *tally) change(now float64, delta int) {
	if t.open {
		t.area += float64(t.inside) * (now - t.at)
		t.at = now
	}
	t.inside += delta
}

// fewest is the fair part below which a server's share says too little.
const fewest = 100

func (t *tally) result(c *Config, servers []server, unit float64) Result {
	t.settleFair(servers)
	r := Result{
		Jobs:      t.unserved,
		Mean:      t.all.mean() / unit,
		P50:       t.all.quantile(0.50) / unit,
		P99:       t.all.quantile(0.99) / unit,
		P999:      t.all.quantile(0.999) / unit,
		MaxQueue:  t.maxQueue,
		Ejections: t.ejections,
		Probes:    t.probes,
		Groups:    make([]GroupResult, len(c.Servers)),
	}
	failures := t.unserved
	for _, n := range t.picks {
		r.Jobs += n
	}
	jobs := float64(r.Jobs)
	few := 0.0
	for i, s := range servers {
		g := &r.Groups[s.group]
		g.Share += float64(t.picks[i]) / jobs
		g.Fair += t.fair[i] / jobs
		if t.fair[i] == 0 {
			continue
		}
		if x := float64(t.picks[i]) / t.fair[i]; t.fair[i] >= fewest {
			r.MaxShare = max(r.MaxShare, x)
		} else {
			few = max(few, x)
		}
	}
	if r.MaxShare == 0 {
		r.MaxShare = few
	}
	for i := range r.Groups {
		g, h := &r.Groups[i], &t.groups[i]
		g.Name = c.Servers[i].Name
		g.Mean = h.mean() / unit
		g.P99 = h.quantile(0.99) / unit
		if n := t.failures[i] + h.n; n > 0 {
			g.FailRate = float64(t.failures[i]) / float64(n)
		}
		failures += t.failures[i]
	}
	r.FailRate = float64(failures) / jobs
	r.CrossZone = float64(t.crossed) / jobs
	if d := t.closed - t.opened; d > 0 {
		r.InFlight = t.area / d
		r.Rate = jobs / (d / unit)
	}
	return r
}
