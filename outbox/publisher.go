package outbox

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
)

// A Publisher hands messages to their destination. It is called with no
// transaction open, and one call at a time unless Options.Concurrency is more.
//
// A batch holds any number of messages without a key and at most one of each
// key, oldest first, so an implementation may send them in any order or all at
// once. Publish returns nil if all were accepted, and otherwise one error for
// each message, in the same order, nil for those that were. A message that was
// accepted is acknowledged and not seen again, unless the process or the
// database fails before that is written down: delivery is at least once, and
// Message.ID is the same each time. A message with an error is tried again
// later; see Permanent and RetryAfter. A slice of another length is a mistake of
// the implementation: nothing is acknowledged and the batch is tried again.
//
// ctx ends when Run's does, when another drainer has taken over, and when one that
// came or went has waited for this call for Options.Lease. Publish should then
// return soon. Errors that it returns after that do not count as
// attempts (those marked Permanent do, they say something about the message);
// what was accepted is still acknowledged.
//
// If Publish panics, every message of the batch has failed, the stack is logged,
// and draining goes on. The batch and what it points to belong to the Publisher,
// which may keep them.
type Publisher interface {
	Publish(ctx context.Context, batch []Message) []error
}

// PublisherFunc makes a Publisher of a function that sends one message. The
// messages of a batch are sent one after the other. If the function panics, that
// message has failed and the others have not.
//
// Use it where the destination takes one message at a time anyway. Where it
// takes many at once, or confirms later, a Publisher of your own is many times
// faster: brokers confirm a hundred messages almost as fast as one.
type PublisherFunc func(ctx context.Context, m Message) error

// Publish calls f for each message.
func (f PublisherFunc) Publish(ctx context.Context, batch []Message) []error {
	errs := make([]error, len(batch))
	for i, m := range batch {
		if ctx.Err() != nil {
			errs[i] = context.Cause(ctx)
			continue
		}
		errs[i] = f.call(ctx, m)
	}
	return errs
}

func (f PublisherFunc) call(ctx context.Context, m Message) (err error) {
	defer recoverTo(&err)
	return f(ctx, m)
}

// A panicError is what a publisher's panic becomes.
type panicError struct {
	text  string
	stack []byte
}

func (e *panicError) Error() string { return "publisher panicked: " + e.text }

// recoverTo is to be deferred: it turns a panic into an error.
func recoverTo(err *error) {
	if v := recover(); v != nil {
		*err = &panicError{fmt.Sprint(v), debug.Stack()}
	}
}

// publish calls p and makes of whatever it does one result a message, nil for those
// that were accepted. Should p or one of its errors end the goroutine, as t.FailNow
// does, nothing is returned at all.
func publish(ctx context.Context, p Publisher, batch []Message) []*diagnosis {
	n := len(batch)
	var errs []error
	var all error
	func() {
		defer recoverTo(&all)
		errs = p.Publish(ctx, batch)
	}()
	if all == nil && errs != nil && len(errs) != n {
		all = fmt.Errorf("%w: Publish returned %d errors for %d messages, want nil or one for each", errPublisher, len(errs), n)
	}
	results := make([]*diagnosis, n)
	if all != nil {
		d := diagnose(all)
		for i := range results {
			results[i] = &d
		}
		return results
	}
	for i, err := range errs {
		if err != nil {
			d := diagnose(err)
			results[i] = &d
		}
	}
	return results
}

var errPublisher = errors.New("outbox: mistaken publisher")
