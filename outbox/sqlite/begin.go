package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"time"
)

// patience is how long Begin waits for the write lock.
const patience = 5 * time.Second

// Begin begins a transaction that holds the write lock of the database from its
// first moment, as BEGIN IMMEDIATE does, whatever the _txlock of the data source
// name. Whatever it then reads is the newest there is, and no statement of it
// fails because somebody else writes.
//
// SQLite's own BEGIN reads until the first write, and only then asks for the
// lock. If anybody wrote in between, what it has read is out of date, and it
// fails at once with SQLITE_BUSY, whatever the busy timeout. Of transactions
// that read and then write, most fail under load.
//
// Begin waits for the lock for at most five seconds, or until ctx ends, and then
// returns the driver's error. It asks again after about a millisecond, random
// and always the same, however long it has waited. SQLite's own busy timeout
// waits longer and longer, up to 100 ms, so that those that came last win, and
// some writers starve; Rails 8 made the same change. The busy timeout of the
// connection is as before when Begin returns.
//
// As with [sql.DB.BeginTx], the transaction is rolled back when ctx ends, and
// opts may be nil; it must not be ReadOnly. Begin works on any SQLite database,
// with or without an outbox, and changes nothing in it. It costs a few small
// statements more than BeginTx, and a goroutine that waits for the end of the
// transaction, to give the connection back. Begin is safe for concurrent use by
// multiple goroutines.
func Begin(ctx context.Context, db *sql.DB, opts *sql.TxOptions) (*sql.Tx, error) {
	// Lets the goroutine of a transaction that has just ended give its
	// connection back, or another one would be opened.
	runtime.Gosched()
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("outbox/sqlite: begin: %w", err)
	}
	tx, err := begin(ctx, conn, opts)
	if err != nil {
		_ = conn.Close()
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", cause, err) // drivers say that they were interrupted
		}
		return nil, fmt.Errorf("outbox/sqlite: begin: %w", err)
	}
	go func() { _ = conn.Close() }() // waits for the end of tx
	return tx, nil
}

func begin(ctx context.Context, conn *sql.Conn, opts *sql.TxOptions) (*sql.Tx, error) {
	// With a busy timeout SQLite would do the waiting. 0 may also mean that
	// there is a busy handler, which cannot be put back, so it stays.
	var timeout int
	if err := conn.QueryRowContext(ctx, `PRAGMA busy_timeout`).Scan(&timeout); err != nil {
		return nil, err
	}
	if timeout > 0 {
		if err := setTimeout(ctx, conn, 0); err != nil {
			return nil, err
		}
	}
	tx, err := acquire(ctx, conn, opts)
	if timeout == 0 {
		return tx, err
	}
	if tx != nil {
		if err = setTimeout(ctx, tx, timeout); err == nil {
			return tx, nil
		}
		_ = tx.Rollback()
	}
	if setTimeout(context.WithoutCancel(ctx), conn, timeout) != nil {
		// Nobody else should get a connection without its timeout.
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	}
	return nil, err
}

// acquire begins transactions until one has the write lock.
func acquire(ctx context.Context, conn *sql.Conn, opts *sql.TxOptions) (*sql.Tx, error) {
	for start := time.Now(); ; {
		tx, err := conn.BeginTx(ctx, opts)
		if err == nil {
			if _, err = tx.ExecContext(ctx, takeLock); err == nil {
				return tx, nil
			}
			_ = tx.Rollback()
		}
		if !busy(err) || time.Since(start) >= patience {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(time.Millisecond/2 + rand.N(time.Millisecond)):
		}
	}
}

// takeLock takes the write lock and changes nothing. The number user_version is
// the application's, and the one thing that can be written in every database;
// the savepoint puts it back, and keeps the lock.
const takeLock = `SAVEPOINT outbox_begin;
PRAGMA user_version = 0;
ROLLBACK TO outbox_begin;
RELEASE outbox_begin`

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func setTimeout(ctx context.Context, e execer, ms int) error {
	_, err := e.ExecContext(ctx, `PRAGMA busy_timeout = `+strconv.Itoa(ms))
	return err
}
