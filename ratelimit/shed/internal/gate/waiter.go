package gate

import "time"

// State is where a waiter is in its life.
type State uint8

const (
	Idle    State = iota // it was never queued, or it was removed
	Queued               // it waits
	Started              // it is in progress, and owes a Leave
	Refused              // it was dropped from the queue: see Reason
)

// Waiter is a request that may have to wait. The caller owns it, and fills in Value
// with what it needs to tell the request how it went. It is used for one request.
type Waiter[T any] struct {
	Value T

	next, prev *Waiter[T]
	deadline   time.Duration
	started    time.Duration
	class      int8
	state      State
	reason     Reason
}

// State says where the waiter is.
func (w *Waiter[T]) State() State { return w.state }

// Reason says why the waiter was Refused.
func (w *Waiter[T]) Reason() Reason { return w.reason }

// Class returns the class with which the waiter was queued.
func (w *Waiter[T]) Class() int { return int(w.class) }

// Deadline returns the time at which a Queued waiter is dropped.
func (w *Waiter[T]) Deadline() time.Duration { return w.deadline }

// Start returns the time at which the waiter Started.
func (w *Waiter[T]) Start() time.Duration { return w.started }

// Chain is the waiters that an operation has settled: each is Started or Refused.
type Chain[T any] struct{ head, tail *Waiter[T] }

// Pop removes the first waiter of the chain and returns it, or nil at the end.
func (c *Chain[T]) Pop() *Waiter[T] {
	w := c.head
	if w == nil {
		return nil
	}
	if c.head = w.next; c.head == nil {
		c.tail = nil
	}
	w.next = nil
	return w
}

func (c *Chain[T]) push(w *Waiter[T]) {
	w.next = nil
	if c.tail == nil {
		c.head = w
	} else {
		c.tail.next = w
	}
	c.tail = w
}

// list is the waiters of a class in the order of their arrival.
type list[T any] struct{ oldest, newest *Waiter[T] }

func (l *list[T]) push(w *Waiter[T]) {
	w.prev, w.next = l.newest, nil
	if l.newest == nil {
		l.oldest = w
	} else {
		l.newest.next = w
	}
	l.newest = w
}

func (l *list[T]) remove(w *Waiter[T]) {
	if w.prev == nil {
		l.oldest = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.newest = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.next, w.prev = nil, nil
}
