package shed

import (
	"errors"
	"fmt"
	"time"
)

// ErrShed is wrapped by every error with which this package refuses a request. It
// means: nothing was done, the service is busy (503, and never 429, which says that it
// is the client who asks too much).
var ErrShed = errors.New("shed: refused")

// Reason says which rule refused a request.
type Reason uint8

const (
	Full        Reason = iota + 1 // everything is in progress, and there is no queue, or it is full
	Reserved                      // what is free is kept for critical requests
	Expired                       // it waited in the queue for longer than the queue's bound
	Outranked                     // a request of a higher class took its place in the queue
	Overloaded                    // the Shedder sheds its class, or its part of the class
	Unavailable                   // the Throttle takes the backend for overloaded
)

func (r Reason) String() string {
	names := [...]string{"unknown", "full", "reserved", "expired", "outranked", "overloaded", "unavailable"}
	if int(r) >= len(names) {
		r = 0
	}
	return names[r]
}

// Error is a refusal. It wraps [ErrShed].
type Error struct {
	Class  Class
	Reason Reason

	// RetryAfter is a guess at how long to stay away, 0 if there is none. It has no
	// jitter: who passes it on to many clients should add some.
	RetryAfter time.Duration
}

// Error names the class and the reason.
func (e *Error) Error() string {
	return fmt.Sprintf("%v: %v request: %v", ErrShed, e.Class, e.Reason)
}

// Unwrap returns ErrShed.
func (e *Error) Unwrap() error { return ErrShed }
