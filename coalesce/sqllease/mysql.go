package sqllease

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

type mysql struct {
	table   string
	seconds int64 // the time to live, rounded up
}

func newMySQL(table string, ttl time.Duration) mysql {
	return mysql{table: table, seconds: int64((ttl + time.Second - 1) / time.Second)}
}

// lockName is the name of a lock made of its one parameter. Names are at most 64
// characters and belong to the server, not to the database.
const lockName = `CONCAT('evenkeel:', LEFT(SHA2(CONCAT(IFNULL(DATABASE(), ''), ':', ?), 256), 48))`

func (m mysql) create() string {
	return `CREATE TABLE IF NOT EXISTS ` + m.table + ` (
	id    BINARY(32)      NOT NULL PRIMARY KEY,
	token BIGINT UNSIGNED NOT NULL
) ENGINE = InnoDB`
}

func (m mysql) migrate(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, m.create())
	return err
}

// lock sets the timeouts before it takes the lock, so that there is no moment at
// which it is held without them. The old ones are kept in the session.
func (m mysql) lock(ctx context.Context, c *sql.Conn, k lockKey) (session int64, held bool, err error) {
	if _, err := c.ExecContext(ctx, fmt.Sprintf(`SET @evenkeel_wait = @@SESSION.wait_timeout,
	@evenkeel_lock_wait = @@SESSION.innodb_lock_wait_timeout,
	SESSION wait_timeout = %d, SESSION innodb_lock_wait_timeout = %[1]d`, m.seconds)); err != nil {
		return 0, false, err
	}
	var got sql.NullInt64
	if err := c.QueryRowContext(ctx, `SELECT CONNECTION_ID(), GET_LOCK(`+lockName+`, 0)`, k.name).Scan(&session, &got); err != nil {
		return 0, false, err
	}
	switch {
	case !got.Valid:
		return 0, false, errors.New("GET_LOCK failed")
	case got.Int64 == 0:
		return 0, false, m.restore(ctx, c)
	}
	return session, true, nil
}

func (m mysql) restore(ctx context.Context, c *sql.Conn) error {
	_, err := c.ExecContext(ctx, `SET SESSION wait_timeout = @evenkeel_wait, SESSION innodb_lock_wait_timeout = @evenkeel_lock_wait`)
	return err
}

// grant returns the token through LAST_INSERT_ID(expr), which belongs to the
// session: reading the row again could read a successor's.
func (m mysql) grant(ctx context.Context, c *sql.Conn, k lockKey) (coalesce.Token, error) {
	const now = `CAST(FLOOR(UNIX_TIMESTAMP(NOW(6)) * 1000000) AS UNSIGNED)`
	r, err := c.ExecContext(ctx, `INSERT INTO `+m.table+` (id, token) VALUES (?, LAST_INSERT_ID(`+now+`))
ON DUPLICATE KEY UPDATE token = LAST_INSERT_ID(GREATEST(token + 1, `+now+`))`, k.row)
	if err != nil {
		return 0, err
	}
	token, err := r.LastInsertId()
	return coalesce.Token(token), err
}

func (m mysql) check(ctx context.Context, c *sql.Conn, k lockKey, session int64) (bool, error) {
	var now, holder sql.NullInt64
	err := c.QueryRowContext(ctx, `SELECT CONNECTION_ID(), IS_USED_LOCK(`+lockName+`)`, k.name).Scan(&now, &holder)
	return now.Int64 == session && holder.Int64 == session, err
}

func (m mysql) unlock(ctx context.Context, c *sql.Conn, k lockKey) (bool, error) {
	var held sql.NullInt64 // null when nobody has the lock
	if err := c.QueryRowContext(ctx, `SELECT RELEASE_LOCK(`+lockName+`)`, k.name).Scan(&held); err != nil {
		return false, err
	}
	return held.Int64 == 1, m.restore(ctx, c)
}

func (m mysql) free(ctx context.Context, db *sql.DB, k lockKey) (bool, error) {
	var free sql.NullInt64
	err := db.QueryRowContext(ctx, `SELECT IS_FREE_LOCK(`+lockName+`)`, k.name).Scan(&free)
	if err == nil && !free.Valid {
		err = errors.New("IS_FREE_LOCK failed")
	}
	return free.Int64 == 1, err
}

// fence is LOCK IN SHARE MODE, since FOR SHARE is of MySQL 8 alone.
func (m mysql) fence(ctx context.Context, tx *sql.Tx, k lockKey) (token coalesce.Token, err error) {
	err = tx.QueryRowContext(ctx, `SELECT token FROM `+m.table+` WHERE id = ? LOCK IN SHARE MODE`, k.row).Scan(&token)
	return token, err
}
