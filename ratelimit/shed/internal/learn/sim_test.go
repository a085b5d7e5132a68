package learn_test

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed/internal/learn"
)

// server is a queue with many servers on virtual time: up to capacity requests are
// worked on at a time, each for a random service time, and the others wait in order.
// Clients call it as often as the limit lets them in, or offered of them at a time.
type server struct {
	random   *rand.Rand
	capacity int
	mean     time.Duration
	spread   spread        // of the service times
	timeout  time.Duration // 0 for none
	now      time.Duration
	working  events
	waiting  []time.Duration // when they arrived
	inflight int
}

type spread int

const (
	constant spread = iota
	exponential
	bimodal
)

type event struct{ end, arrived time.Duration }

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].end < e[j].end }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func (s *server) arrive() {
	s.inflight++
	s.waiting = append(s.waiting, s.now)
	s.work()
}

func (s *server) work() {
	for len(s.waiting) > 0 && len(s.working) < s.capacity {
		service := s.mean
		switch s.spread {
		case exponential:
			service = time.Duration(s.random.ExpFloat64() * float64(s.mean))
		case bimodal: // one in twenty takes ten times as long as the others
			service = s.mean * 20 / 29
			if s.random.IntN(20) == 0 {
				service *= 10
			}
		}
		heap.Push(&s.working, event{s.now + service, s.waiting[0]})
		s.waiting = s.waiting[1:]
	}
}

// leave ends the next request and returns its latency.
func (s *server) leave() time.Duration {
	e := heap.Pop(&s.working).(event)
	s.now = e.end
	s.inflight--
	s.work()
	return s.now - e.arrived
}

// limiter is what decides: a Learner, or a recipe to compare it with.
type limiter interface {
	Limit() int
	Sample(now, rtt time.Duration, inflight int, o learn.Outcome) bool
}

// run ends n requests. offered clients come at once whenever they may.
func (s *server) run(l limiter, n, offered int) (meanLimit float64) {
	for range n {
		for s.inflight < min(l.Limit(), offered) {
			s.arrive()
		}
		inflight := s.inflight
		rtt := s.leave()
		outcome := learn.Success
		if s.timeout > 0 && rtt > s.timeout {
			outcome = learn.Drop
		}
		l.Sample(s.now, rtt, inflight, outcome)
		meanLimit += float64(l.Limit()) / float64(n)
	}
	return meanLimit
}
