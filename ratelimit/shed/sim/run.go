package sim

import (
	"errors"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
	"github.com/evenkeel-go/evenkeel/ratelimit/shed/internal/gate"
)

// Run simulates a config and returns what it measured. It is deterministic: the same
// config gives the same result, on every machine of the same architecture, as long as
// the functions in it are deterministic too.
//
// It returns an error that names field, value and what was expected for a config
// that is out of range, and what the constructors of shed return.
//
// An attempt costs less than a microsecond. Run starts no goroutine. Different runs may
// go on concurrently.
func Run(c Config) (Result, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return Result{}, err
	}
	s, err := newSimulation(&c)
	if err != nil {
		return Result{}, err
	}
	if err := s.loop(); err != nil {
		return Result{}, err
	}
	return s.tally.result(), nil
}

// simulation is a run. Times are distances from the start.
type simulation struct {
	config *Config
	end    time.Duration // of the phases
	now    time.Duration
	next   time.Duration // arrival
	open   int           // measured requests that have not ended
	queue  queue

	workload *rand.Rand // arrivals, users, classes and sizes, which no strategy changes
	jitter   *rand.Rand
	users    []string
	sizes    [classes]float64 // the means
	shares   [classes]float64 // cumulated

	budgets  [classes]budget
	throttle *shed.Throttle[string]
	shedder  *shed.Shedder
	door     *door
	server   *server

	attempts         uint64
	offered, started int // attempts that came to the gate, and that the server began with
	free             []*attempt
	tally            tally

	read reading
}

// reading is what the shedder saw when it looked last.
type reading struct {
	at               time.Duration
	area             float64
	offered, started int
}

// Streams of random numbers.
const (
	workloadStream = iota
	jitterStream
	strategyStream
)

func newSimulation(c *Config) (*simulation, error) {
	s := &simulation{
		config:   c,
		end:      c.length(),
		workload: rand.New(rand.NewPCG(c.Seed, workloadStream)),
		jitter:   rand.New(rand.NewPCG(c.Seed, jitterStream)),
		users:    make([]string, c.Users),
		server:   newServer(c.Workers, c.Crowding),
	}
	for i := range s.users {
		s.users[i] = strconv.Itoa(i)
	}
	sum := 0.0
	for i, class := range c.Classes {
		sum += class.Share
		s.shares[i], s.sizes[i] = sum, float64(class.Service)
		s.budgets[i] = budget{share: c.Strategy.Budget, tokens: savings}
	}
	s.tally = newTally(c)
	s.next = s.arrival(0)
	return s, s.protect(&c.Strategy)
}

// protect makes what the strategy consists of.
func (s *simulation) protect(strategy *Strategy) (err error) {
	random := rand.NewPCG(s.config.Seed, strategyStream)
	if strategy.Throttle != nil {
		o := *strategy.Throttle
		o.Rand = random.Uint64
		if s.throttle, err = shed.NewThrottle[string](o); err != nil {
			return err
		}
	}
	if strategy.Shedder != nil {
		o := *strategy.Shedder
		o.Rand = random.Uint64
		o.Seed = random.Uint64() | 1 // zero is a random one
		if o.Utilization == nil {
			o.Utilization = s.utilization
		}
		if s.shedder, err = shed.NewShedder(o); err != nil {
			return err
		}
	}
	s.door, err = newDoor(strategy, random.Uint64())
	return err
}

// utilization is what the shedder goes by.
func (s *simulation) utilization() float64 {
	now := reading{at: s.now, area: s.server.busy, offered: s.offered, started: s.started}
	if s.config.Strategy.Signal == InProgress {
		now.area = s.server.load
	}
	last := s.read
	s.read = now
	if now.at == last.at {
		return 0
	}
	mean := (now.area - last.area) / float64(now.at-last.at) / float64(s.config.Workers)
	if s.config.Strategy.Signal == Demand {
		mean *= float64(now.offered-last.offered) / float64(max(now.started-last.started, 1))
	}
	return mean
}

// arrival returns when the first request after now comes. The last phase has no end:
// what is measured ends under the load that it began with.
func (s *simulation) arrival(now time.Duration) time.Duration {
	left := s.workload.ExpFloat64() / s.config.capacity() // seconds at a load of 1
	begin := time.Duration(0)
	for i, p := range s.config.Phases {
		end := begin + p.For
		if i == len(s.config.Phases)-1 {
			end = never
		}
		if now < end {
			at := now + time.Duration(min(math.Ceil(left/p.Load*float64(time.Second)), float64(farAway)))
			if at < end {
				return at
			}
			left -= (end - now).Seconds() * p.Load
			now = end
		}
		begin = end
	}
	return now
}

// loop runs until the phases are over and all that is measured has ended.
func (s *simulation) loop() error {
	for s.now < s.end || s.open > 0 {
		event := s.queue.next()
		next := min(s.next, event, s.server.next)
		if s.door != nil {
			s.server.waiting = s.door.engine.Waiting()
		}
		for _, border := range [...]time.Duration{s.config.Warm, s.end} {
			if s.now < border && next >= border {
				s.server.advance(border)
				s.tally.border(border, s.server)
			}
		}
		s.now = next
		s.server.advance(s.now)
		var err error
		switch s.now {
		case s.server.next:
			err = s.finish()
		case event:
			err = s.handle()
		default:
			err = s.arrive()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// arrive is a new request.
func (s *simulation) arrive() error {
	r := &request{arrived: s.now, user: int32(s.workload.IntN(len(s.users)))}
	x := s.workload.Float64() * s.shares[classes-1]
	for r.class < classes-1 && x >= s.shares[r.class] {
		r.class++
	}
	r.size = s.sizes[r.class] * s.draw()
	s.next = s.arrival(s.now)
	if s.now >= s.config.Warm && s.now < s.end {
		r.measured = true
		s.open++
		s.tally.arrive(r)
	}
	s.budgets[r.class].deposit()
	return s.try(r)
}

// draw draws a service time, relative to the mean.
func (s *simulation) draw() float64 {
	if s.config.Shape == Exponential {
		return min(s.workload.ExpFloat64(), longest)
	}
	const square = math.Ln2 // of sigma, for a coefficient of variation of 1
	return min(math.Exp(math.Sqrt(square)*s.workload.NormFloat64()-square/2), longest)
}

func (s *simulation) handle() error {
	e := s.queue.pop()
	if e.kind == retries {
		return s.try(e.request)
	}
	a := e.attempt
	if a.number != e.number {
		return nil // it has ended
	}
	if e.kind == timesOut {
		return s.expire(a)
	}
	return s.follow(s.door.engine.Expire(s.now))
}

// admit does what the gate has said of an attempt.
func (s *simulation) admit(a *attempt) error {
	switch a.waiter.State() {
	case gate.Started:
		s.start(a)
	case gate.Queued:
		a.waiter.Value = a
		s.queue.push(event{at: a.waiter.Deadline(), kind: expires, attempt: a, number: a.number})
		s.queue.push(event{at: a.sent + s.config.Timeout, kind: timesOut, attempt: a, number: a.number})
	default:
		return s.refuse(a)
	}
	return nil
}

// follow starts and refuses those in the gate's queue whose time has come.
func (s *simulation) follow(settled chain) error {
	for w := settled.Pop(); w != nil; w = settled.Pop() {
		a := w.Value
		if w.State() == gate.Started {
			s.begin(a)
		} else if err := s.refuse(a); err != nil {
			return err
		}
	}
	return nil
}

// start lets the server begin with an attempt that did not wait.
func (s *simulation) start(a *attempt) {
	s.begin(a)
	s.queue.push(event{at: a.sent + s.config.Timeout, kind: timesOut, attempt: a, number: a.number})
}

// begin gives an attempt to the server.
func (s *simulation) begin(a *attempt) {
	a.started = s.now
	s.started++
	s.server.begin(a, a.request.size)
}

// refuse ends an attempt without any work but that of refusing it.
func (s *simulation) refuse(a *attempt) error {
	r, gone := a.request, a.gone
	a.call.Done(false)
	s.release(a)
	s.server.begin(nil, float64(s.config.Refusal))
	if gone {
		return nil
	}
	return s.fail(r, refused)
}

// finish ends what the server has done.
func (s *simulation) finish() error {
	w := s.server.finish()
	s.tally.work(s.now, w)
	a := w.job
	if a == nil {
		return nil
	}
	if s.door != nil {
		limit, next := s.door.leave(s.now, a)
		if err := errors.Join(s.follow(limit), s.follow(next)); err != nil {
			return err
		}
	}
	if !a.gone {
		a.call.Done(true)
		if err := s.settle(a.request, answered, s.now-a.sent); err != nil {
			return err
		}
	}
	s.release(a)
	return nil
}

// settle ends a request.
func (s *simulation) settle(r *request, f fate, latency time.Duration) error {
	if r.settled {
		return errors.New("sim: a request has ended twice")
	}
	r.settled = true
	if r.measured {
		s.open--
		s.tally.settle(r, f, latency)
	}
	return nil
}

// place returns an attempt that is free.
func (s *simulation) place() *attempt {
	if n := len(s.free); n > 0 {
		a := s.free[n-1]
		s.free = s.free[:n-1]
		return a
	}
	return new(attempt)
}

// release frees an attempt. Its number is none from now on.
func (s *simulation) release(a *attempt) {
	*a = attempt{}
	s.free = append(s.free, a)
}
