package coalesce

import (
	"context"
	"errors"
)

// A Lease is the right to do the work of a key for all processes: one holds it
// at a time. It does across machines what a flight does in one process. The
// packages sqllease and redislease implement it; [Lead] uses it.
//
// # What it promises, and what it cannot
//
// A holder that dies is succeeded within the lease's time to live. No lease can
// promise that a former holder has stopped: a process that was paused for
// longer than the time to live goes on when it wakes, with another holder
// beside it. Therefore each grant has a [Token], greater than all tokens of the
// key before it, by which the place where results are kept refuses the late one
// with [ErrFenced].
//
// Implementations are safe for concurrent use by multiple goroutines, and pass
// the suite of package coalescetest.
type Lease interface {
	// Acquire makes the caller the holder of key, or returns an error that is
	// ErrHeld when there is another holder. It does not wait for that one. ctx
	// bounds the call alone: the grant outlives it, and must be released.
	Acquire(ctx context.Context, key string) (Grant, error)

	// Wait returns nil when key has no holder, or when it may have none: it can
	// be early, and must not be late by more than the lease's time to live. It
	// returns ctx.Err() when ctx ends first.
	Wait(ctx context.Context, key string) error
}

// A Grant is a lease that is held. It is renewed in the background until it is
// released or lost.
//
// A Grant is safe for concurrent use by multiple goroutines.
type Grant interface {
	// Token is the fencing token of this grant.
	Token() Token

	// Lost returns a channel that is closed when the grant has ended: it was
	// released, or the lease could not be renewed in time. A process that was
	// paused learns it late; it is the token that protects, not this channel.
	Lost() <-chan struct{}

	// Release gives the lease back and wakes those who wait for it. A second
	// Release does nothing. Releasing a grant that another holder has succeeded
	// changes nothing for that holder, and returns an error that is ErrFenced.
	Release(ctx context.Context) error
}

// A Token is the number of a grant. The tokens of one key only grow. They are
// not without gaps.
type Token uint64

var (
	// ErrHeld is returned by Lease.Acquire when the key has another holder.
	ErrHeld = errors.New("coalesce: the lease of this key is held")

	// ErrFenced is returned by the fenced writes of sqllease and redislease,
	// and by Grant.Release, when the lease has been granted to another holder
	// since, or has ended.
	ErrFenced = errors.New("coalesce: the lease has gone to another holder")
)
