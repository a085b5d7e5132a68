package outbox

import (
	"fmt"
	"os"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// An Outbox adds messages to the tables of a database and drains them. It holds
// no connection and no messages: everything that must survive is in the
// database, and one Outbox may serve several databases with the same schema.
// Make one with New. An Outbox is safe for concurrent use by multiple
// goroutines.
type Outbox struct {
	// Immutable after New.
	sql   *dialect.SQL
	o     Options
	owner string

	alarms alarms
	meter  meter
}

// New returns an Outbox for databases of dialect d. It connects to nothing.
// Returns ErrInvalid when d is nil or an option is out of range.
func New(d Dialect, o Options) (*Outbox, error) {
	if d == nil {
		return nil, fmt.Errorf("%w: Dialect is nil, want one such as postgres.Dialect{}", ErrInvalid)
	}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown" // the name is for people; the epoch is what fences
	}
	return &Outbox{
		sql:   d.SQL(),
		o:     o,
		owner: fmt.Sprintf("%s/%d", host, os.Getpid()),
	}, nil
}

// Wake tells the drainers of this process that there is something to do, so that
// they do not wait for their next poll. Call it after Commit; drainers see
// committed messages only. Calling it too often, or without need, is harmless,
// and a forgotten Wake costs at most Options.PollMax. It never blocks, allocates
// nothing, and costs some nanoseconds. Drainers of other processes find the
// message by polling. Wake is safe for concurrent use by multiple goroutines.
func (o *Outbox) Wake() { o.alarms.ring(false) }
