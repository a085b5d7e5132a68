package sqllease

import (
	"context"
	"database/sql"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// A Dialect is the kind of server behind a *sql.DB.
type Dialect int

const (
	// PostgreSQL is PostgreSQL 14 or later.
	PostgreSQL Dialect = iota + 1

	// MySQL is MySQL 5.7 or later, and MariaDB 10.0.2 or later.
	MySQL
)

// A server is what a Lease needs of a dialect. Methods on a connection may leave
// it in any state when they return an error; it is then discarded.
type server interface {
	// create is the statement that creates the table of tokens.
	create() string

	// migrate runs it, and may be called by several processes at once.
	migrate(context.Context, *sql.DB) error

	// lock takes the lock if it is free. While it is held, the session ends when
	// it is idle for the time to live. If it is not free, the session is as
	// before. It returns the identity of the session.
	lock(context.Context, *sql.Conn, lockKey) (session int64, held bool, err error)

	// grant writes and returns the next token.
	grant(context.Context, *sql.Conn, lockKey) (coalesce.Token, error)

	// check reports whether this is the session, and has the lock.
	check(ctx context.Context, c *sql.Conn, k lockKey, session int64) (held bool, err error)

	// unlock gives back the lock, and then makes the session as it was before.
	// It reports whether the lock was held.
	unlock(context.Context, *sql.Conn, lockKey) (held bool, err error)

	// free reports whether nobody holds the lock. It changes nothing: an Acquire
	// at the same time must not fail because of it.
	free(context.Context, *sql.DB, lockKey) (bool, error)

	// fence locks the row of the key until the transaction ends and returns its
	// token, or sql.ErrNoRows.
	fence(context.Context, *sql.Tx, lockKey) (coalesce.Token, error)
}
