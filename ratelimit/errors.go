package ratelimit

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrLimited is wrapped by the *LimitError of Wait and Reserve when the
	// units asked for will be there, but not as soon as the caller wants them.
	ErrLimited = errors.New("ratelimit: limit reached")

	// ErrExceedsBurst is wrapped by the *LimitError of Wait and Reserve when
	// more units are asked for than the limit's burst: no wait would help.
	ErrExceedsBurst = errors.New("ratelimit: more units than the burst")

	// ErrNegative is wrapped by the *LimitError of Wait and Reserve when a
	// negative number of units is asked for.
	ErrNegative = errors.New("ratelimit: negative number of units")

	// ErrInvalidLimit is wrapped by the error of ParseLimit, NewLimiter,
	// NewKeyed and SetLimit when a limit cannot be kept.
	ErrInvalidLimit = errors.New("ratelimit: invalid limit")

	// ErrInvalidCapacity is wrapped by the error of NewKeyed when the capacity
	// is negative or beyond the address space.
	ErrInvalidCapacity = errors.New("ratelimit: invalid capacity")
)

// LimitError says why Wait or Reserve did not charge anything. Errors.Is finds
// ErrLimited, ErrExceedsBurst or ErrNegative in it.
type LimitError struct {
	// N is the number of units that were asked for.
	N int64

	// Limit is the limit that refused.
	Limit Limit

	// RetryAfter is the time after which N units can be had at once if nobody
	// else asks. It is negative when no wait helps.
	RetryAfter time.Duration

	// Err is ErrLimited, ErrExceedsBurst or ErrNegative.
	Err error
}

// Error names the cause, the number of units and the limit.
func (e *LimitError) Error() string {
	if e.RetryAfter < 0 {
		return fmt.Sprintf("%v: %d of %v", e.Err, e.N, e.Limit)
	}
	return fmt.Sprintf("%v: %d of %v, retry after %v", e.Err, e.N, e.Limit, e.RetryAfter)
}

// Unwrap returns Err.
func (e *LimitError) Unwrap() error { return e.Err }
