package balance

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"
)

// pool is what Prequal knows of the backends: its probes.
type pool struct {
	options PrequalOptions
	prober  Prober
	fleet   *fleet

	mu       sync.Mutex
	probes   []probe // at most options.Pool, in the order of their coming
	recent   recentLoads
	credit   float64 // probes that may be sent
	underWay int
	worstOut bool // whether the next probe to be removed is the worst or the oldest
}

// probe is the answer of a backend.
type probe struct {
	node     *node
	index    int // of the node in the set, when last looked for
	inFlight float64
	latency  float64 // seconds; 0 is unknown
	at       time.Duration
	uses     int
}

// choose returns the best backend by the pool, and sends the probes for later picks.
func (p *pool) choose(c *chooser, s *set, now time.Duration) int {
	bits := c.rand()
	p.mu.Lock()
	i := p.best(c, s, now)
	targets := p.targets(c, s)
	p.mu.Unlock()

	for k := range targets.count {
		p.send(s.nodes[targets.index[k]])
	}
	if i < 0 {
		return c.fastestOf(s, now)
	}
	if sampled(bits) {
		c.blind.see(false)
	}
	return i
}

// best returns the index in the set of the backend that the probes speak for, or -1
// if there are too few. Call it with mu held.
func (p *pool) best(c *chooser, s *set, now time.Duration) int {
	p.prune(s, now)
	if len(p.probes) < 2 {
		return -1
	}
	hot := p.recent.quantile(p.options.Hot)
	best, tied := -1, 0.0 // the weights of all that are as good
	for k := range p.probes {
		probe := &p.probes[k]
		if s.warming != nil && c.unit() >= s.warmth(probe.index, now) {
			continue
		}
		switch {
		case best < 0 || p.better(s, now, probe, &p.probes[best], hot):
			best, tied = k, s.weight(probe.index, now)
		case !p.better(s, now, &p.probes[best], probe, hot):
			// As good: each takes the place of those before it with its share of the weights.
			w := s.weight(probe.index, now)
			if tied += w; c.unit()*tied < w {
				best = k
			}
		}
	}
	if best < 0 {
		return -1
	}
	i := p.probes[best].index
	p.use(best, s, now, hot)
	return i
}

// prune removes the probes that are too old, and those of backends that are not in
// the set.
func (p *pool) prune(s *set, now time.Duration) {
	maxAge := p.options.MaxAge
	if maxAge == 0 {
		if maxAge = 2 * duration(p.fleet.meanLatency()); maxAge == 0 {
			maxAge = time.Second
		}
	}
	p.probes = slices.DeleteFunc(p.probes, func(probe probe) bool { return now-probe.at > maxAge })
	for k := 0; k < len(p.probes); {
		if p.probes[k].locate(s) {
			k++
		} else {
			p.probes = slices.Delete(p.probes, k, k+1)
		}
	}
}

// locate finds the index of the probe's backend in a set.
func (probe *probe) locate(s *set) bool {
	if probe.index < len(s.nodes) && s.nodes[probe.index] == probe.node {
		return true
	}
	probe.index = slices.Index(s.nodes, probe.node)
	return probe.index >= 0
}

// load is the requests in flight by the probe, with the penalties of those that
// failed, for each unit of the backend's weight.
func (p *pool) load(s *set, now time.Duration, probe *probe) float64 {
	load := probe.inFlight + p.fleet.penaltyOf(probe.node.penalty.word.Load(), now)
	if s.inverse != nil {
		load *= s.inverse[probe.index]
	}
	return load
}

// better is the rule of hot and cold: the cold before the hot, the cold by latency,
// the hot by load.
func (p *pool) better(s *set, now time.Duration, a, b *probe, hot float64) bool {
	x, y := p.load(s, now, a), p.load(s, now, b)
	if p.options.Hot < 0 {
		return x < y
	}
	switch {
	case x > hot && y > hot:
		return x < y
	case x > hot || y > hot:
		return y > hot
	case a.latency != b.latency && a.latency > 0 && b.latency > 0:
		return a.latency < b.latency
	default:
		return x < y
	}
}

// use notes that a request is sent on the word of a probe, and removes one probe.
func (p *pool) use(k int, s *set, now time.Duration, hot float64) {
	probe := &p.probes[k]
	// With one request more, the latency is more in proportion.
	probe.latency *= (probe.inFlight + 2) / (probe.inFlight + 1)
	probe.inFlight++
	probe.uses++
	if float64(probe.uses) >= p.reuse(len(s.nodes)) {
		p.probes = slices.Delete(p.probes, k, k+1)
		return
	}
	if p.worstOut = !p.worstOut; p.worstOut && len(p.probes) > 0 {
		k = p.worst(s, now, hot)
		p.probes = slices.Delete(p.probes, k, k+1)
	} else {
		p.probes = slices.Delete(p.probes, 0, 1)
	}
}

func (p *pool) worst(s *set, now time.Duration, hot float64) (worst int) {
	for k := range p.probes {
		if p.better(s, now, &p.probes[worst], &p.probes[k], hot) {
			worst = k
		}
	}
	return worst
}

// reuse is how often a probe may be used, by the paper's formula with its 1 for
// delta: so that the pool does not run dry while probes come and are removed.
func (p *pool) reuse(backends int) float64 {
	gain := (1-float64(p.options.Pool)/float64(backends))*p.options.Probes - 1
	if gain <= 0 {
		return math.Inf(1) // few backends: the probes of one replace each other
	}
	return max(1, 2/gain)
}

// add puts the answer of a backend into the pool, in the place of its last one.
func (p *pool) add(n *node, l Load, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remove(n)
	if len(p.probes) == p.options.Pool {
		p.probes = slices.Delete(p.probes, 0, 1)
	}
	p.probes = append(p.probes, probe{node: n, inFlight: float64(l.InFlight), latency: l.Latency.Seconds(), at: now})
	p.recent.add(float64(l.InFlight))
}

// forget removes what a backend answered.
func (p *pool) forget(n *node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remove(n)
}

func (p *pool) remove(n *node) {
	p.probes = slices.DeleteFunc(p.probes, func(probe probe) bool { return probe.node == n })
}

// targets are indexes of backends to send a probe to.
type targets struct {
	index [maxProbes]int
	count int
}

// targets draws the backends to probe for one pick, distinct and at random. Call it
// with mu held.
func (p *pool) targets(c *chooser, s *set) (t targets) {
	n := len(s.nodes)
	p.credit += p.options.Probes // what is left of before is less than 1
	for p.credit >= 1 {
		p.credit--
		if t.count == n || p.underWay >= 4*p.options.Pool {
			continue
		}
		// Floyd's method would need to know how many; with so few a repeated draw is rare,
		// and stepping on from it harms nobody: all are probed before long.
		i := below(uint32(c.rand()>>32), n)
		for slices.Contains(t.index[:t.count], i) {
			i = (i + 1) % n
		}
		t.index[t.count] = i
		t.count++
		p.underWay++
	}
	return t
}

// send probes one backend.
func (p *pool) send(n *node) {
	p.options.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), p.options.Timeout)
		defer cancel()
		defer p.ended() // also if the prober panics
		load, err := p.prober.Probe(ctx, n.id)
		switch {
		case err != nil:
			p.forget(n)
			p.fleet.penalise(n, p.fleet.clock())
		case load.valid():
			p.add(n, load, p.fleet.clock())
		}
	})
}

func (p *pool) ended() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.underWay--
}

// recentLoads are the requests in flight of the last probes, of which quantiles are
// asked.
type recentLoads struct {
	ring   [recentSize]float64
	sorted [recentSize]float64
	count  int
	next   int
}

const recentSize = 64

func (r *recentLoads) add(load float64) {
	if r.count == recentSize {
		i, _ := slices.BinarySearch(r.sorted[:], r.ring[r.next])
		copy(r.sorted[i:], r.sorted[i+1:])
		r.count--
	}
	i, _ := slices.BinarySearch(r.sorted[:r.count], load)
	r.count++
	copy(r.sorted[i+1:r.count], r.sorted[i:])
	r.sorted[i] = load
	r.ring[r.next] = load
	r.next = (r.next + 1) % recentSize
}

// quantile is the load that a part q of the recent ones does not exceed.
func (r *recentLoads) quantile(q float64) float64 {
	if r.count == 0 || q < 0 {
		return 0
	}
	return r.sorted[min(int(q*float64(r.count)), r.count-1)]
}
