package outbox

import "errors"

var (
	// ErrInvalid is returned by Add when a message breaks a limit of Message,
	// and by New when an option is out of range. Nothing was written.
	ErrInvalid = errors.New("outbox: invalid")
	// ErrSchema is returned by Run, Drain and Migrate when the tables are
	// missing, or older or newer than this version of the package knows.
	ErrSchema = errors.New("outbox: wrong schema version")
	// ErrLeased is returned by Drain when another drainer is at work, or took
	// over while Drain was working.
	ErrLeased = errors.New("outbox: another drainer holds a lease")
)

// errFenced says that our lease is gone: it had ended, another drainer took over
// what we had, and nothing that we have to say about messages counts any more.
var errFenced = errors.New("outbox: fenced: the lease is gone")
