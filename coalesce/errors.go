package coalesce

import "errors"

var (
	// ErrGoexit is returned by Do, DoResult and DoChan when the work called
	// runtime.Goexit instead of returning, as t.FailNow does in a test.
	ErrGoexit = errors.New("coalesce: the work called runtime.Goexit")

	// ErrAbandoned is the context.Cause of the work's context when every caller
	// has left before the work was done. No caller ever receives it: there is
	// none.
	ErrAbandoned = errors.New("coalesce: every caller has left")

	// ErrTooManyWaiters is returned by Do, DoResult and DoChan when the flight
	// that they would join already has Group.MaxWaiters callers.
	ErrTooManyWaiters = errors.New("coalesce: too many callers wait for this key")

	// ErrReentrant is returned by Do, DoResult and DoChan when the work asks for
	// its own key through its own context, and so would wait for itself.
	ErrReentrant = errors.New("coalesce: the work asks for its own key")

	// ErrNotFound is what a caller of a Batcher receives for a key that the
	// fetch did not return. A load of a Cache that returns it, or an error that
	// wraps it, says that the key has no value.
	ErrNotFound = errors.New("coalesce: no value for this key")

	// ErrClosed is returned by a Batcher and by a Cache after Close.
	ErrClosed = errors.New("coalesce: closed")
)
