package sqllease

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"time"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// Options are the knobs of a Lease. The zero value of each field is its default.
type Options struct {
	// TTL is how long a holder that is frozen or cut off keeps others from
	// taking over; one that is killed does not. A living one sends a query three
	// times as often. From 1 s to 24 h; MySQL and MariaDB count whole seconds,
	// rounded up. 0 means 10 s.
	TTL time.Duration

	// Poll is the longest pause between two looks of one that waits. They begin
	// at 10 ms and double, with jitter. At most TTL. 0 means 500 ms.
	Poll time.Duration

	// Table is the name of the table of tokens, which may have a schema before
	// it. Leases with different tables have nothing to do with each other. Empty
	// means "evenkeel_lease".
	Table string
}

const (
	minTTL  = time.Second
	maxTTL  = 24 * time.Hour
	minPoll = 10 * time.Millisecond

	// maxTries is how often the pool may hand out a session that has ended, which
	// not every driver finds out at once. It is database/sql's own number.
	maxTries = 3
)

// A Lease keeps leases in a database. It must be created by New.
//
// A Lease is safe for concurrent use by multiple goroutines.
type Lease struct {
	db     *sql.DB
	ttl    time.Duration
	poll   time.Duration
	table  string
	server server
}

var _ coalesce.Lease = (*Lease)(nil)

var tableName = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*$`)

// New returns a Lease that keeps its leases in db, which stays the caller's to
// close. It does not ask the server. Returns an error if db is nil or allows one
// open connection only, which the first lease would take, if the dialect is
// unknown, or if an option is out of its range.
func New(db *sql.DB, d Dialect, o Options) (*Lease, error) {
	if db == nil {
		return nil, errors.New("sqllease: db is nil, want a *sql.DB")
	}
	if db.Stats().MaxOpenConnections == 1 {
		return nil, errors.New("sqllease: db has a limit of 1 open connection, want 2 or more: each lease that is held takes one")
	}
	if o.TTL == 0 {
		o.TTL = 10 * time.Second
	}
	if o.TTL < minTTL || o.TTL > maxTTL {
		return nil, fmt.Errorf("sqllease: Options.TTL is %v, want 0 (meaning 10s) or %v to %v", o.TTL, minTTL, maxTTL)
	}
	if o.Poll == 0 {
		o.Poll = 500 * time.Millisecond
	}
	if o.Poll < minPoll || o.Poll > o.TTL {
		return nil, fmt.Errorf("sqllease: Options.Poll is %v, want 0 (meaning 500ms) or %v to Options.TTL, %v", o.Poll, minPoll, o.TTL)
	}
	if o.Table == "" {
		o.Table = "evenkeel_lease"
	}
	if !tableName.MatchString(o.Table) {
		return nil, fmt.Errorf("sqllease: Options.Table is %q, want letters, digits and _, after a schema and a dot or alone", o.Table)
	}
	l := &Lease{db: db, ttl: o.TTL, poll: o.Poll, table: o.Table}
	switch d {
	case PostgreSQL:
		l.server = newPostgres(o.Table, o.TTL)
	case MySQL:
		l.server = newMySQL(o.Table, o.TTL)
	default:
		return nil, fmt.Errorf("sqllease: the dialect is %d, want PostgreSQL or MySQL", d)
	}
	return l, nil
}

// A lockKey is what the server sees of a key.
type lockKey struct {
	row    []byte // in the table of tokens
	number int64  // of the lock in PostgreSQL
	name   string // of the lock in MySQL
}

func (l *Lease) lockKey(key string) lockKey {
	row := sha256.Sum256([]byte(key))
	lock := sha256.Sum256([]byte(l.table + "\x00" + key)) // one space of locks serves all tables
	return lockKey{row: row[:], number: int64(binary.BigEndian.Uint64(lock[:])), name: hex.EncodeToString(lock[:])}
}

// Wait returns nil when key has no holder. It asks in pauses that grow up to
// Options.Poll, and holds no connection between. Returns the error of ctx when
// that ends first, and the error of the database if it does not answer as it
// should three times in a row.
func (l *Lease) Wait(ctx context.Context, key string) error {
	k := l.lockKey(key)
	failed := 0
	for pause := minPoll; ; pause = min(2*pause, l.poll) {
		free, err := l.server.free(ctx, l.db, k)
		if err != nil {
			failed++
		} else {
			failed = 0
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case failed == maxTries:
			return fmt.Errorf("sqllease: wait: %w", err)
		case free && err == nil:
			return nil
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}
