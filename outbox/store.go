package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// A store is the database as a drainer sees it. sqlStore is the real one; the
// tests of timing put a model in memory in its place, in a synctest bubble.
type store interface {
	// check returns ErrSchema if the tables are not those that we know.
	check(ctx context.Context) error

	// join takes a lease for d and a fair share of the buckets that are free.
	// Alone, it takes all buckets or returns errOthers. With any other error, the
	// epoch of the claim is that of a lease that may be there, or 0.
	join(ctx context.Context, owner string, d time.Duration, alone bool) (claim, error)
	// rebalance gives up buckets beyond the fair share of epoch, takes free
	// ones up to it, and renews the lease for d. Returns errFenced if the lease
	// is gone.
	rebalance(ctx context.Context, epoch int64, d time.Duration) (claim, error)
	// renew makes the lease last for d from now. Returns errFenced if it is
	// gone.
	renew(ctx context.Context, epoch int64, d time.Duration) error
	// leave ends the lease, if it is there.
	leave(ctx context.Context, epoch int64) error
	// look returns what others may have changed. Returns errFenced if the
	// lease is gone.
	look(ctx context.Context, epoch int64) (view, error)

	// advance acknowledges messages that were delivered and reads more, until
	// their payloads reach size. cut says that there may be more. Returns
	// errFenced, and has neither acknowledged nor read anything that counts,
	// if the lease is gone. Doing it again after an error is harmless.
	advance(ctx context.Context, ack dialect.Ack, f dialect.Fetch, size int) (entries []entry, cut bool, err error)
	// waiting reads messages that waited and are due now.
	waiting(ctx context.Context, f dialect.Fetch, size int) (entries []entry, cut bool, err error)
	// settle writes down decisions, in one transaction, and renews the lease
	// for d. Returns errFenced, and has written nothing, if the lease is gone.
	// Doing it again after an error is harmless.
	settle(ctx context.Context, epoch int64, d time.Duration, decisions []decision, archive int) error

	// resume makes due what waits for topics that are not paused any more.
	resume(ctx context.Context, paused []string) error
	// upkeep deletes from the archives what was kept long enough, in steps. more
	// says that another one is due.
	upkeep(ctx context.Context, r Retention, keep time.Duration) (more bool, err error)
	// mark reads where the watermark could be.
	mark(ctx context.Context) (reading, error)
	// order says how a drainer knows that it has seen all of the past.
	order(ctx context.Context) (order, error)
}

// sqlStore is a store in a database.
type sqlStore struct {
	sql *dialect.SQL
	db  *sql.DB
}

func (s *sqlStore) check(ctx context.Context) error {
	var version int
	err := s.retryBusy(ctx, func() (err error) {
		version, err = schemaVersion(ctx, s.sql, s.db)
		return err
	})
	if err != nil {
		return err
	}
	if want := len(s.sql.Versions); version != want {
		return fmt.Errorf("%w: the database has version %d, want %d: call Migrate of this version of the package", ErrSchema, version, want)
	}
	return nil
}

// querier is what *sql.DB and *sql.Tx have in common.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (s *sqlStore) exec(ctx context.Context, q querier, query string, args ...any) (int64, error) {
	res, err := q.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// each scans every row of a query into dest and calls f.
func (s *sqlStore) each(ctx context.Context, q querier, query string, args, dest []any, f func()) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		f()
	}
	return errors.Join(rows.Err(), rows.Close())
}

// inTx commits what f does, or rolls it back if f fails.
func (s *sqlStore) inTx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: s.sql.Isolation})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// busyBound is how long a call goes on trying while others hold a lock.
const busyBound = 10 * time.Second

// retryBusy calls f again while it fails because somebody else holds a lock. The
// wait is short and random: databases that make their callers poll for a lock
// are not fair, and a caller that waits longer each time would starve.
func (s *sqlStore) retryBusy(ctx context.Context, f func() error) error {
	start := time.Now()
	for {
		err := f()
		if err == nil || !s.sql.Busy(err) || time.Since(start) >= busyBound || ctx.Err() != nil {
			return err
		}
		sleep(ctx, time.Millisecond+rand.N(4*time.Millisecond))
	}
}

// sleep waits for d or for the end of ctx, whatever comes first.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
