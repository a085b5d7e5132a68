package sim

import (
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// request is what a user wants: one attempt or several, one after the other.
type request struct {
	arrived  time.Duration
	size     float64 // nanoseconds of work
	user     int32
	class    int
	attempts int
	measured bool
	settled  bool
}

// attempt is a request on its way to the server.
type attempt struct {
	request *request
	number  uint64
	class   int
	sent    time.Duration
	started time.Duration
	call    shed.Call // at the throttle
	waiter  waiter
	gone    bool // whether the client waits no longer
}

// fate is how a request ends, or one attempt.
type fate uint8

const (
	answered  fate = iota
	timedOut       // the client did not wait longer
	refused        // by the server
	throttled      // by the client's own throttle
	fates
)

// try makes an attempt.
func (s *simulation) try(r *request) error {
	r.attempts++
	class := shed.Class(r.class) + shed.Background
	var call shed.Call
	if s.throttle != nil {
		var err error
		if call, err = s.throttle.AllowAt(s.clock(), "server", class); err != nil {
			return s.settle(r, throttled, 0)
		}
	}
	if r.measured {
		s.tally.attempts++
	}
	s.attempts++
	a := s.place()
	*a = attempt{request: r, number: s.attempts, class: r.class, sent: s.now, call: call}
	if s.shedder != nil {
		if err := s.shedder.AdmitAt(s.clock(), class, s.users[r.user]); err != nil {
			return s.refuse(a)
		}
	}
	s.offered++
	if s.door == nil {
		s.start(a)
		return nil
	}
	if err := s.follow(s.door.arrive(s.now, a)); err != nil {
		return err
	}
	return s.admit(a)
}

// clock is the time for the parts of shed that want one. It is on a line of its own, so
// that a run does not depend on when it is run.
func (s *simulation) clock() time.Time {
	return time.Unix(1<<31, int64(s.now))
}

// fail deals with an attempt that came to nothing: the client tries again, or gives up.
func (s *simulation) fail(r *request, f fate) error {
	if r.attempts >= s.config.Attempts || !s.budgets[r.class].withdraw() {
		return s.settle(r, f, 0)
	}
	bound := min(float64(s.config.Backoff)*float64(uint64(1)<<min(r.attempts-1, 20)), float64(farAway))
	s.queue.push(event{at: s.now + time.Duration(s.jitter.Float64()*bound), kind: retries, request: r})
	return nil
}

// expire is the end of a client's patience.
func (s *simulation) expire(a *attempt) error {
	a.gone = true
	a.call.Done(false)
	r := a.request
	if s.door != nil && !s.door.blind && s.door.engine.Remove(&a.waiter) {
		s.release(a)
	}
	return s.fail(r, timedOut)
}

// budget bounds the retries of a class, as Finagle's does: a request pays in a share of
// a retry, and a retry costs one.
type budget struct {
	share, tokens float64
}

// savings is how many retries a budget has at the start, and at most.
const savings = 100

func (b *budget) deposit() { b.tokens = min(b.tokens+b.share, savings) }

func (b *budget) withdraw() bool {
	if b.share == 0 {
		return true
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
