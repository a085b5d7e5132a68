package main

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/shard"
)

// Replica is one read replica: read-only connections to every shard file, a bound
// on how many queries run at once, and a network between us and it. It stands in
// for another machine, which makes a slow one easy to have.
type Replica struct {
	Name string

	dbs   map[string]*sql.DB // by shard.Node
	slots chan struct{}
	delay atomic.Int64 // nanoseconds that every query takes on top

	queries atomic.Int64
}

const (
	replicaSlots = 8
	networkDelay = 2 * time.Millisecond
)

// OpenReplica opens the store's files for reading.
func OpenReplica(s *Store, name string) (*Replica, error) {
	r := &Replica{Name: name, dbs: make(map[string]*sql.DB), slots: make(chan struct{}, replicaSlots)}
	r.SetDelay(0)
	for file := range s.nodes {
		db, err := openFile(s.dir, file, "mode=ro&_pragma=query_only(true)")
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		db.SetMaxIdleConns(replicaSlots)
		r.dbs[file] = db
	}
	return r, nil
}

// Close closes the connections.
func (r *Replica) Close() error {
	var errs []error
	for _, db := range r.dbs {
		errs = append(errs, db.Close())
	}
	return errors.Join(errs...)
}

// SetDelay makes every query take d longer.
func (r *Replica) SetDelay(d time.Duration) { r.delay.Store(int64(networkDelay + d)) }

// Query returns the newest messages of one shard that match a filter. The answer is
// as old as its way to us is long.
func (r *Replica) Query(ctx context.Context, s *shard.Shard, f Filter) ([]Message, error) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r.queries.Add(1)
	page, err := read(ctx, r.dbs[s.Node], f)
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(time.Duration(r.delay.Load())):
		return page, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func read(ctx context.Context, db *sql.DB, f Filter) (page []Message, err error) {
	where, args := f.sql()
	rows, err := db.QueryContext(ctx, `SELECT id, channel, user, text FROM messages `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var m Message
		if err := rows.Scan(&m.ID, &m.Channel, &m.User, &m.Text); err != nil {
			return nil, err
		}
		page = append(page, m)
	}
	return page, rows.Err()
}
