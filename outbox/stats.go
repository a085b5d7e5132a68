package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// statsBound is where counting stops.
const statsBound = 10_000

// Stats says how an outbox is doing. Counts of the database stop at 10,000, so
// that asking stays cheap when the answer is bad.
type Stats struct {
	// Ready counts the messages that nobody has tried to deliver yet. It
	// grows when nobody drains, or when the Publisher is too slow.
	Ready int64
	// Waiting counts the messages that wait: for their DeliverAt, for their
	// next try, behind another one of their key, or for a paused topic.
	Waiting int64
	// ParkedKeys counts the keys that wait for the next try of a message, or
	// for a paused topic.
	ParkedKeys int64
	// Dead counts the dead messages. Somebody should look at each.
	Dead int64
	// Oldest is how long the oldest message has been due, of the first 10,000
	// ready and 10,000 waiting ones; 0 if none is. It is the one to alert on.
	Oldest time.Duration

	// Leases are the drainers that are at work, in order of Epoch.
	Leases []Lease
	// Topics are those of the messages that were counted, and those that are
	// paused, in order of name.
	Topics []TopicStats

	// Delivered and Failed count the attempts of this Outbox in this process
	// since New, and Rate is its deliveries per second, averaged over some ten
	// seconds.
	Delivered, Failed int64
	Rate              float64
}

// A Lease is what a drainer at work has.
type Lease struct {
	// Owner is the host and process number of the drainer.
	Owner string
	// Epoch is the number of the lease. A later lease has a greater one.
	Epoch int64
	// Buckets is how many of the buckets of keys it serves.
	Buckets int
	// Left is the time until the lease ends, if it is not renewed.
	Left time.Duration
}

// TopicStats counts the messages of one topic, as Stats does.
type TopicStats struct {
	Topic                string
	Ready, Waiting, Dead int64
	Paused               bool
}

// Stats reads a snapshot of the counts, in four statements. It is safe for
// concurrent use by multiple goroutines.
func (o *Outbox) Stats(ctx context.Context, db *sql.DB) (Stats, error) {
	if db == nil {
		return Stats{}, fmt.Errorf("outbox: stats: %w: db is nil", ErrInvalid)
	}
	s := &sqlStore{sql: o.sql, db: db}
	var st Stats
	err := s.retryBusy(ctx, func() (err error) {
		st, err = s.stats(ctx)
		return err
	})
	if err != nil {
		return Stats{}, fmt.Errorf("outbox: stats: %w", err)
	}
	st.Delivered, st.Failed, st.Rate = o.meter.read(time.Now())
	return st, nil
}

func (s *sqlStore) stats(ctx context.Context) (Stats, error) {
	var st Stats
	var us int64
	err := s.db.QueryRowContext(ctx, s.sql.Stats(statsBound)).Scan(
		&st.Ready, &st.Waiting, &st.ParkedKeys, &st.Dead, &us)
	if err != nil {
		return st, err
	}
	st.Oldest = max(0, time.Duration(us)*time.Microsecond)
	leases, owners, err := s.ownership(ctx, s.db)
	if err != nil {
		return st, err
	}
	for _, l := range leases {
		if l.Left <= 0 {
			continue
		}
		for _, epoch := range owners {
			if epoch == l.Epoch {
				l.Buckets++
			}
		}
		st.Leases = append(st.Leases, l)
	}
	var t TopicStats
	err = s.each(ctx, s.db, s.sql.TopicStats(statsBound), nil, []any{&t.Topic, &t.Ready, &t.Waiting, &t.Dead, &t.Paused},
		func() { st.Topics = append(st.Topics, t) })
	return st, err
}
