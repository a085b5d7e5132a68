package lease_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/sqllease"
)

// pool is a lease, and its pool, which is the data's as well if limit is not 0.
func (d database) pool(t testing.TB, dsn string, limit int) (*sqlProcess, *sql.DB) {
	t.Helper()
	p := d.process(t, dsn, "")
	db, err := d.open(dsn, "")
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	if limit != 0 {
		db.SetMaxOpenConns(limit)
		p.db = db
	}
	p.Lease, err = sqllease.New(db, d.dialect, sqllease.Options{TTL: ttl, Table: p.table})
	require.NoError(t, err)
	return p, db
}

// One that waits used its connection a moment ago. When the server ends it, the
// driver need not find out before it is used again.
func waitGoesOn(t *testing.T, d database, dsn string) {
	a := d.process(t, dsn, "")
	b, db := d.pool(t, dsn, 0)
	g := acquire(t, a, "key")
	waited := make(chan error, 1)
	go func() { waited <- b.Wait(soon(t), "key") }()
	require.Eventually(t, func() bool { return db.Stats().OpenConnections == 1 }, patience, time.Millisecond)
	endSessions(t, a)
	require.NoError(t, <-waited)
	requireLost(t, g) // its session was ended too
}

// Those that wait for a key leave the last connection of a pool to the work that
// they wait for.
func waitersLeaveTheWorkItsConnection(t *testing.T, d database, dsn string) {
	const waiters = 40
	p, db := d.pool(t, dsn, 2) // one is the holder's, one is for everything else
	var worked atomic.Int32
	values := make(chan string, waiters)
	for range waiters {
		go func() {
			v, err := coalesce.Lead(soon(t), p, "key",
				func(ctx context.Context) (string, bool, error) {
					v, found, err := p.Get(ctx, "key")
					return string(v), found, err
				},
				func(ctx context.Context, token coalesce.Token) (string, error) {
					v := fmt.Sprint("value ", worked.Add(1))
					// Until the others wait, too.
					for db.Stats().WaitCount < waiters {
						if err := db.PingContext(ctx); err != nil {
							return "", err
						}
					}
					return v, p.Put(ctx, "key", token, []byte(v))
				})
			values <- fmt.Sprint(v, err)
		}()
	}
	for range waiters {
		require.Equal(t, "value 1<nil>", <-values)
	}
	require.Equal(t, int32(1), worked.Load())
	require.Zero(t, db.Stats().InUse)
}
