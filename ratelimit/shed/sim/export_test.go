package sim

import (
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed/internal/gate"
)

// Door is the simulator's gate, for comparison with those of shed.
type Door struct{ door *door }

// Entry is an attempt at a Door.
type Entry struct{ attempt attempt }

func NewDoor(s Strategy) (Door, error) {
	d, err := newDoor(&s, 1)
	return Door{d}, err
}

// Enter reports whether an attempt is let in at once, and until when it may wait if not.
func (d Door) Enter(now time.Duration, class int) (e *Entry, ok bool, deadline time.Duration) {
	e = &Entry{attempt{class: class, started: now}}
	d.door.arrive(now, &e.attempt)
	w := &e.attempt.waiter
	if w.State() == gate.Queued {
		deadline = w.Deadline()
	}
	return e, w.State() == gate.Started, deadline
}

func (d Door) Leave(now time.Duration, e *Entry) { d.door.leave(now, &e.attempt) }
func (d Door) Limit() int                        { return d.door.engine.Limit() }
func (d Door) InFlight() int                     { return d.door.engine.InFlight() }
func (d Door) Probes() uint64                    { return d.door.learner.Probes() }

// Queue is the simulator's queue of events.
type Queue struct{ queue queue }

func (q *Queue) Push(at time.Duration, timeout bool) {
	e := event{at: at}
	if timeout {
		e.kind = timesOut
	}
	q.queue.push(e)
}

// Pop returns the time and the number of the next event, in the order of pushing from 1.
func (q *Queue) Pop() (at time.Duration, number uint64) {
	next := q.queue.next()
	e := q.queue.pop()
	if e.at != next {
		panic("the next is another")
	}
	return e.at, e.order
}
