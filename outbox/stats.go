package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// statsBound is where counting stops.
const statsBound = 10_000

// Stats says how an outbox is doing. Counts stop at 10,000, so that asking stays
// cheap when the answer is bad.
type Stats struct {
	// Ready counts the messages that nobody has tried to deliver yet. It
	// grows when nobody drains, or when the Publisher is too slow.
	Ready int64
	// Waiting counts the messages that wait: for their DeliverAt, for their
	// next try, or behind another one of their key.
	Waiting int64
	// ParkedKeys counts the keys that wait for the next try of a message.
	ParkedKeys int64
	// Dead counts the dead messages. Somebody should look at each.
	Dead int64
	// Oldest is how long the oldest message has been due, of the first 10,000
	// ready and 10,000 waiting ones; 0 if none is. It is the one to alert on.
	Oldest time.Duration
	// Owner is the host and process number of the drainer that holds the
	// lease, or "" if nobody does. Epoch counts how often it was taken.
	Owner string
	Epoch int64
}

// Stats reads a snapshot of the counts, in one statement. It is safe for
// concurrent use by multiple goroutines.
func (o *Outbox) Stats(ctx context.Context, db *sql.DB) (Stats, error) {
	s := &sqlStore{o.sql, db}
	var st Stats
	var us int64
	err := s.retryBusy(ctx, func() error {
		return db.QueryRowContext(ctx, o.sql.Stats, statsBound).Scan(
			&st.Ready, &st.Waiting, &st.ParkedKeys, &st.Dead, &us, &st.Owner, &st.Epoch)
	})
	if err != nil {
		return Stats{}, fmt.Errorf("outbox: stats: %w", err)
	}
	st.Oldest = max(0, time.Duration(us)*time.Microsecond)
	return st, nil
}
