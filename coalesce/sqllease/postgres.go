package sqllease

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

type postgres struct {
	table string
	ttl   string // in milliseconds, which both timeouts count in, rounded up
}

func newPostgres(table string, ttl time.Duration) postgres {
	return postgres{table: table, ttl: strconv.FormatInt((ttl + time.Millisecond - 1).Milliseconds(), 10)}
}

func (p postgres) create() string {
	return `CREATE TABLE IF NOT EXISTS ` + p.table + ` (
	id    bytea  PRIMARY KEY,
	token bigint NOT NULL
)`
}

// migrate takes a lock, since of two CREATE TABLE IF NOT EXISTS at once one fails.
func (p postgres) migrate(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, "evenkeel migrate "+p.table); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, p.create()); err != nil {
		return err
	}
	return tx.Commit()
}

// lock is one statement, so that there is no moment at which the lock is held
// and the timeout is not set.
func (p postgres) lock(ctx context.Context, c *sql.Conn, k lockKey) (session int64, held bool, err error) {
	err = c.QueryRowContext(ctx, `SELECT pg_backend_pid(),
	CASE WHEN pg_try_advisory_lock($1) THEN set_config('idle_session_timeout', $2, false) <> '' ELSE false END`,
		k.number, p.ttl).Scan(&session, &held)
	return session, held, err
}

func (p postgres) grant(ctx context.Context, c *sql.Conn, k lockKey) (token coalesce.Token, err error) {
	const now = `floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint`
	err = c.QueryRowContext(ctx, `INSERT INTO `+p.table+` AS lease (id, token) VALUES ($1, `+now+`)
ON CONFLICT (id) DO UPDATE SET token = greatest(lease.token + 1, `+now+`)
RETURNING token`, k.row).Scan(&token)
	return token, err
}

func (p postgres) check(ctx context.Context, c *sql.Conn, _ lockKey, session int64) (bool, error) {
	var now int64
	err := c.QueryRowContext(ctx, `SELECT pg_backend_pid()`).Scan(&now)
	return now == session, err
}

func (p postgres) unlock(ctx context.Context, c *sql.Conn, k lockKey) (held bool, err error) {
	err = c.QueryRowContext(ctx, `SELECT pg_advisory_unlock($1)`, k.number).Scan(&held)
	if err == nil {
		_, err = c.ExecContext(ctx, `RESET idle_session_timeout`)
	}
	return held, err
}

// free reads pg_locks. To try the lock in shared mode is a little cheaper, and
// makes an Acquire at the same moment fail, although nobody holds the lease.
func (p postgres) free(ctx context.Context, db *sql.DB, k lockKey) (free bool, err error) {
	err = db.QueryRowContext(ctx, `SELECT NOT EXISTS (SELECT FROM pg_locks
	WHERE locktype = 'advisory' AND objsubid = 1 AND granted
	AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
	AND classid = $1::bigint::oid AND objid = $2::bigint::oid)`,
		int64(uint64(k.number)>>32), int64(uint32(k.number))).Scan(&free)
	return free, err
}

func (p postgres) fence(ctx context.Context, tx *sql.Tx, k lockKey) (token coalesce.Token, err error) {
	var timeout string
	err = tx.QueryRowContext(ctx, `SELECT token, set_config('idle_in_transaction_session_timeout', $2, true)
FROM `+p.table+` WHERE id = $1 FOR SHARE`, k.row, p.ttl).Scan(&token, &timeout)
	if err == nil && timeout == "" {
		err = fmt.Errorf("idle_in_transaction_session_timeout was not set")
	}
	return token, err
}
