package outbox

import "errors"

var (
	// ErrInvalid is returned by Add when a message breaks a limit of Message,
	// and by New when an option is out of range. Nothing was written.
	ErrInvalid = errors.New("outbox: invalid")
	// ErrSchema is returned by Run, Drain and Migrate when the tables are
	// missing, or older or newer than this version of the package knows.
	ErrSchema = errors.New("outbox: wrong schema version")
	// ErrLeased is returned by Drain when another drainer holds the lease, or
	// took it over while Drain was working.
	ErrLeased = errors.New("outbox: another drainer holds the lease")
)

// errFenced says that the lease has a newer epoch than ours: another drainer
// took over, and nothing that we have to say about messages counts any more.
var errFenced = errors.New("outbox: fenced: another drainer took over the lease")
