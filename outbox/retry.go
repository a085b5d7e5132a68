package outbox

import (
	"errors"
	"fmt"
	"time"
)

// Permanent marks err as one that no retry can mend, such as a payload that the
// destination refuses: the message is dead at once, and its key goes on.
// errors.Is and errors.As see through the mark. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// RetryAfter marks err with the time after which to try again, instead of
// Options.RetryBase and RetryMax: what a destination asked for with 429 or 503.
// The attempt counts. d below 0 is 0. errors.Is and errors.As see through the
// mark. RetryAfter(nil, d) is nil.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryAfterError{err, max(d, 0)}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return "permanent: " + e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

type retryAfterError struct {
	err error
	d   time.Duration
}

func (e *retryAfterError) Error() string { return fmt.Sprintf("retry after %v: %v", e.d, e.err) }
func (e *retryAfterError) Unwrap() error { return e.err }

// A diagnosis is what an error of a Publisher says.
type diagnosis struct {
	permanent bool
	after     time.Duration // if delayed
	delayed   bool
	text      string
	panicked  *panicError
}

// diagnose looks into an error. Errors of others may panic when they are asked,
// which must not end the drainer.
func diagnose(err error) (d diagnosis) {
	defer func() {
		if v := recover(); v != nil {
			d = diagnosis{text: fmt.Sprintf("an error of type %T that panics when it is asked", err)}
		}
	}()
	_, d.permanent = errors.AsType[*permanentError](err)
	if after, ok := errors.AsType[*retryAfterError](err); ok {
		d.after, d.delayed = after.d, true
	}
	d.panicked, _ = errors.AsType[*panicError](err)
	d.text = clip(err.Error())
	return d
}

// backoff is full jitter: random in [0, min(limit, base*2^(attempt-1))]. It
// neither overflows nor leaves the range, whatever the attempt.
func backoff(random func(n int64) int64, base, limit time.Duration, attempt int) time.Duration {
	ceiling := limit
	if shift := max(attempt, 1) - 1; shift < 63 && base <= limit>>shift {
		ceiling = base << shift
	}
	if ceiling <= 0 {
		return 0
	}
	if ceiling == 1<<63-1 {
		ceiling--
	}
	return time.Duration(random(int64(ceiling) + 1))
}
