package sim

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/evenkeel-go/evenkeel/balance"
)

// errOver is what probes end with that are under way at the end of the simulation.
var errOver = errors.New("sim: simulation is over")

// prober sends the probes of one client. A probe is a call that waits for its
// answer, so it runs as a coroutine: it is suspended while it travels, and the event
// loop resumes it when its time has come, in an order that does not depend on any
// scheduler.
type prober struct {
	simulation *simulation
	client     int32
	timeout    time.Duration
}

// Probe is called by a coroutine. The time of its context is not that of the
// simulation, in which it keeps to the timeout itself.
func (p *prober) Probe(_ context.Context, id string) (balance.Load, error) {
	s := p.simulation
	s.tally.probes++
	server, ok := s.byID[id]
	if !ok {
		return balance.Load{}, errFailed
	}
	deadline := s.now + p.timeout
	trip := s.trip(p.client, server)
	if err := p.wait(trip/2, deadline); err != nil {
		return balance.Load{}, err
	}
	sv := &s.servers[server]
	if sv.down {
		if err := p.wait(sv.after+trip-trip/2, deadline); err != nil {
			return balance.Load{}, err
		}
		return balance.Load{}, errFailed
	}
	load := s.load(server) // as the answer leaves
	if err := p.wait(trip-trip/2, deadline); err != nil {
		return balance.Load{}, err
	}
	return load, nil
}

// wait suspends the coroutine that runs, but not beyond its deadline.
func (p *prober) wait(d, deadline time.Duration) error {
	s := p.simulation
	left := deadline - s.now
	if !s.coroutines.wait(s, min(d, left)) {
		return errOver
	}
	if d > left {
		return context.DeadlineExceeded
	}
	return nil
}

// coroutines are the probes under way.
type coroutines struct {
	all     []*coroutine
	idle    []int32
	todo    []func() // launched, but not begun
	current int32
	over    bool
}

type coroutine struct {
	task  func()
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
}

// launch notes a task. It is called in the middle of a pick, so that the task begins
// only after that.
func (c *coroutines) launch(task func()) { c.todo = append(c.todo, task) }

// start begins the tasks that were launched. They may launch others.
func (c *coroutines) start() {
	for i := 0; i < len(c.todo); i++ {
		n := len(c.idle)
		if n == 0 {
			c.add()
			n = 1
		}
		k := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.all[k].task = c.todo[i]
		c.resume(k)
	}
	clear(c.todo)
	c.todo = c.todo[:0]
}

// add makes another coroutine, which runs one task after the other.
func (c *coroutines) add() {
	x := &coroutine{}
	k := int32(len(c.all))
	x.next, x.stop = iter.Pull(func(yield func(struct{}) bool) {
		x.yield = yield
		for {
			x.task()
			c.idle = append(c.idle, k)
			if c.over || !yield(struct{}{}) {
				return
			}
		}
	})
	c.all = append(c.all, x)
	c.idle = append(c.idle, k)
}

func (c *coroutines) resume(k int32) {
	c.current = k
	c.all[k].next()
}

// wait suspends the coroutine that runs. It reports false if the simulation is over.
func (c *coroutines) wait(s *simulation, d time.Duration) bool {
	if c.over {
		return false
	}
	if d == 0 {
		return true
	}
	k := c.current
	s.queue.push(s.now+d, resumes, k, 0)
	return c.all[k].yield(struct{}{})
}

// stop ends all coroutines.
func (c *coroutines) stop() {
	c.over = true
	for _, x := range c.all {
		x.stop()
	}
}
