package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// TestBeginTakesTheWriteLock, whatever the kind of transaction that the name of
// the database asks for, and leaves everything as it was.
func TestBeginTakesTheWriteLock(t *testing.T) {
	for driver := range drivers {
		for _, journal := range []string{"wal", "delete"} {
			for _, lock := range []string{"deferred", "immediate"} {
				for _, busy := range []int{0, 5000} {
					t.Run(fmt.Sprintf("%s/%s/%s/%d", driver, journal, lock, busy), func(t *testing.T) {
						testBegin(t, driver, journal, lock, busy)
					})
				}
			}
		}
	}
}

func testBegin(t *testing.T, driver, journal, lock string, busy int) {
	db, err := sql.Open(drivers[driver], fmt.Sprintf("file:%s?_pragma=busy_timeout(%d)&_pragma=journal_mode(%s)&_txlock=%s",
		filepath.Join(t.TempDir(), "test.db"), busy, journal, lock))
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	_, err = db.ExecContext(t.Context(), `PRAGMA user_version = 7`)
	require.NoError(t, err)
	pragma := func(q interface {
		QueryRowContext(context.Context, string, ...any) *sql.Row
	}, name string,
	) (n int) {
		require.NoError(t, q.QueryRowContext(t.Context(), "PRAGMA "+name).Scan(&n))
		return n
	}

	tx, err := sqlite.Begin(t.Context(), db, nil)
	require.NoError(t, err)
	require.Equal(t, 7, pragma(tx, "user_version"))
	require.Equal(t, busy, pragma(tx, "busy_timeout"))

	// Nobody else gets it, and whoever waits is told when the time is up.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = sqlite.Begin(ctx, db, nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, tx.Commit())

	tx, err = sqlite.Begin(t.Context(), db, nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), `CREATE TABLE x (a)`)
	require.NoError(t, err)
	require.NoError(t, tx.Rollback())
	require.Equal(t, busy, pragma(db, "busy_timeout"))

	db.SetMaxOpenConns(1) // connections are given back
	for range 50 {
		tx, err = sqlite.Begin(t.Context(), db, nil)
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
	}
	require.Equal(t, 7, pragma(db, "user_version"))
	var tables int
	require.NoError(t, db.QueryRowContext(t.Context(), `SELECT count(*) FROM sqlite_schema`).Scan(&tables))
	require.Zero(t, tables)
}

// TestWritersThatBeginWaitForEachOther: read and then written in the same
// transaction, by several at once, nothing is lost and nobody is told that the
// database is busy.
func TestWritersThatBeginWaitForEachOther(t *testing.T) {
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			const writers, each = 4, 60
			path := filepath.Join(t.TempDir(), "test.db")
			db, err := sql.Open(drivers[driver], "file:"+path+"?_pragma=busy_timeout(0)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_txlock=deferred")
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()
			_, err = db.ExecContext(t.Context(), `CREATE TABLE c (n INTEGER); INSERT INTO c VALUES (0)`)
			require.NoError(t, err)
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					for range each {
						tx, err := sqlite.Begin(t.Context(), db, nil)
						require.NoError(t, err)
						var n int
						require.NoError(t, tx.QueryRowContext(t.Context(), `SELECT n FROM c`).Scan(&n))
						_, err = tx.ExecContext(t.Context(), `UPDATE c SET n = ?`, n+1)
						require.NoError(t, err)
						require.NoError(t, tx.Commit())
					}
				})
			}
			wg.Wait()
			var n int
			require.NoError(t, db.QueryRowContext(t.Context(), `SELECT n FROM c`).Scan(&n))
			require.Equal(t, writers*each, n)
		})
	}
}
