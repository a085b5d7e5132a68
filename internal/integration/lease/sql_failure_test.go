package lease_test

import (
	"context"
	"database/sql"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/sqllease"
)

// patience bounds what must happen and may be slow.
const patience = 30 * time.Second

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func acquire(t testing.TB, l coalesce.Lease, key string) coalesce.Grant {
	t.Helper()
	g, err := l.Acquire(soon(t), key)
	require.NoError(t, err)
	return g
}

func succeed(t testing.TB, l coalesce.Lease, key string) coalesce.Grant {
	t.Helper()
	require.NoError(t, l.Wait(soon(t), key))
	return acquire(t, l, key)
}

func requireLost(t testing.TB, g coalesce.Grant) {
	t.Helper()
	select {
	case <-g.Lost():
	case <-time.After(patience):
		t.Fatal("the grant is not lost")
	}
}

func execute(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(soon(t), query, args...)
	require.NoError(t, err)
}

// An operator, or a failover, ends the sessions: one test at a time on a server.
func TestSQLSessionsEnd(t *testing.T) {
	t.Parallel()
	for name, d := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := d.dsn(t)
			t.Run("a grant is lost", func(t *testing.T) { grantIsLostWithItsSession(t, d, dsn) })
			t.Run("a wait goes on", func(t *testing.T) { waitGoesOn(t, d, dsn) })
		})
	}
}

func grantIsLostWithItsSession(t *testing.T, d database, dsn string) {
	a, b := d.process(t, dsn, ""), d.process(t, dsn, "")
	idle := acquire(t, a, "another key")
	g := acquire(t, a, "key")
	require.NoError(t, idle.Release(soon(t))) // the pool keeps its session, which will have ended
	endSessions(t, b)
	next := succeed(t, b, "key")
	requireLost(t, g)
	require.ErrorIs(t, g.Release(soon(t)), coalesce.ErrFenced)
	require.Greater(t, next.Token(), g.Token())
	require.ErrorIs(t, a.Put(soon(t), "key", g.Token(), nil), coalesce.ErrFenced)
	require.NoError(t, next.Release(soon(t)))
	again := acquire(t, a, "key") // connections of the pool that died do no harm
	require.NoError(t, again.Release(soon(t)))
}

// endSessions ends all sessions on the database but the one that asks.
func endSessions(t testing.TB, p *sqlProcess) {
	t.Helper()
	if p.dialect == sqllease.MySQL {
		kill(t, p.db)
		return
	}
	execute(t, p.db, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid()`)
}

// kill ends all sessions of MariaDB but the one that asks.
func kill(t testing.TB, db *sql.DB) {
	t.Helper()
	rows, err := db.QueryContext(soon(t), `SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND db = DATABASE()`)
	require.NoError(t, err)
	var ids []int64
	for rows.Next() {
		var id int64
		require.NoError(t, rows.Scan(&id))
		ids = append(ids, id)
	}
	require.NoError(t, rows.Err())
	require.NotEmpty(t, ids)
	for _, id := range ids {
		_, _ = db.ExecContext(soon(t), `KILL ?`, id) // it may have gone by itself
	}
}

// with adds parameters to a data source name.
func with(dsn, params string) string {
	if strings.Contains(dsn, "?") {
		return dsn + "&" + params
	}
	return dsn + "?" + params
}

// What a session was told for the lease is not left to whoever uses the
// connection next.
func sessionIsAsBefore(t *testing.T, d database, dsn string) {
	params, query, want := "idle_session_timeout=420000", `SELECT current_setting('idle_session_timeout'), count(*)
		FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()`, [2]string{"7min", "0"}
	if d.dialect == sqllease.MySQL {
		params, query, want = "wait_timeout=4711&innodb_lock_wait_timeout=47",
			`SELECT @@SESSION.wait_timeout, @@SESSION.innodb_lock_wait_timeout`, [2]string{"4711", "47"}
	}
	db, err := d.open(with(dsn, params), "")
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	l, err := sqllease.New(db, d.dialect, sqllease.Options{Table: tableOf(t), TTL: 3 * time.Second})
	require.NoError(t, err)
	require.NoError(t, l.Migrate(soon(t)))
	for range 3 {
		g := acquire(t, l, "key")
		_, err = l.Acquire(soon(t), "key") // on another connection
		require.ErrorIs(t, err, coalesce.ErrHeld)
		require.NoError(t, g.Release(soon(t)))
	}
	require.Equal(t, 2, db.Stats().OpenConnections, "they are used again")
	for range 2 {
		c, err := db.Conn(soon(t))
		require.NoError(t, err)
		defer func() { _ = c.Close() }()
		var got [2]string
		require.NoError(t, c.QueryRowContext(soon(t), query).Scan(&got[0], &got[1]))
		require.Equal(t, want, got)
	}
}

// Fence keeps the next holder from beginning until the transaction has ended,
// and then it sees what was committed.
func successorWaitsForTheFencedTransaction(t *testing.T, d database, dsn string) {
	for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
		t.Run(level.String(), func(t *testing.T) {
			t.Parallel()
			a, b := d.process(t, dsn, ""), d.process(t, dsn, "")
			g := acquire(t, a, "key")
			tx, err := a.db.BeginTx(soon(t), &sql.TxOptions{Isolation: level})
			require.NoError(t, err)
			_, err = tx.ExecContext(soon(t), a.store, row("key"), []byte("value"))
			require.NoError(t, err)
			require.NoError(t, a.Fence(soon(t), tx, "key", g.Token()))
			require.NoError(t, g.Release(soon(t)))

			type result struct {
				value string
				found bool
				err   error
			}
			next := make(chan result, 1)
			go func() {
				var r result
				var g coalesce.Grant
				if g, r.err = b.Acquire(soon(t), "key"); r.err == nil {
					var v []byte
					v, r.found, r.err = b.Get(soon(t), "key")
					r.value = string(v)
					_ = g.Release(soon(t))
				}
				next <- r
			}()
			// The successor has the lock and waits for the row: nobody else gets it.
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for range 20 {
				<-tick.C
				require.Empty(t, next)
			}
			require.NoError(t, tx.Commit())
			require.Equal(t, result{"value", true, nil}, <-next)
		})
	}
}

// A transaction whose snapshot is older than the next grant cannot commit, at
// any level.
func lateTransactionIsRefused(t *testing.T, d database, dsn string) {
	for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
		t.Run(level.String(), func(t *testing.T) {
			t.Parallel()
			a, b := d.process(t, dsn, ""), d.process(t, dsn, "")
			g := acquire(t, a, "key")
			require.NoError(t, a.Put(soon(t), "key", g.Token(), []byte("first")))
			tx, err := a.db.BeginTx(soon(t), &sql.TxOptions{Isolation: level})
			require.NoError(t, err)
			defer func() { _ = tx.Rollback() }()
			var n int // the snapshot
			require.NoError(t, tx.QueryRowContext(soon(t), `SELECT count(*) FROM `+a.table+`_results`).Scan(&n))
			require.NoError(t, g.Release(soon(t)))

			next := acquire(t, b, "key")
			if level != sql.LevelSerializable { // there its reads may block others
				require.NoError(t, b.Put(soon(t), "key", next.Token(), []byte("second")))
			}
			err = a.Fence(soon(t), tx, "key", g.Token())
			if d.dialect == sqllease.PostgreSQL && level != sql.LevelReadCommitted {
				require.ErrorContains(t, err, "40001", "serialization failure")
				require.Error(t, tx.Commit())
			} else {
				require.ErrorIs(t, err, coalesce.ErrFenced)
				require.NoError(t, tx.Rollback())
			}
			require.NoError(t, next.Release(soon(t)))
		})
	}
}

// A holder that is frozen in its transaction does not keep its successor waiting
// for longer than the server allows: neither for the lease, nor, if it wrote
// before Fence, for the rows.
func frozenTransactionIsEnded(t *testing.T, d database, dsn string) {
	limited := with(dsn, "idle_transaction_timeout=1") // as the documentation says
	if d.dialect == sqllease.PostgreSQL {
		limited = with(dsn, "idle_in_transaction_session_timeout=1000")
	}
	for name, steps := range map[string]string{"fence last": "store fence", "fence first": "fence store", "before fence": "store"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			frozenDSN := limited
			if d.dialect == sqllease.PostgreSQL && steps != "store" {
				frozenDSN = dsn // Fence sees to it
			}
			a, b := d.process(t, frozenDSN, ""), d.process(t, dsn, "")
			g := acquire(t, a, "key")
			tx, err := a.db.BeginTx(t.Context(), nil) // whose context is not what ends it
			require.NoError(t, err)
			defer func() { _ = tx.Rollback() }()
			for step := range strings.FieldsSeq(steps) {
				if step == "store" {
					_, err = tx.ExecContext(soon(t), a.store, row("key"), []byte("late"))
				} else {
					err = a.Fence(soon(t), tx, "key", g.Token())
				}
				require.NoError(t, err)
			}
			require.NoError(t, g.Release(soon(t)))

			next := acquire(t, b, "key")
			require.NoError(t, b.Put(soon(t), "key", next.Token(), []byte("of the successor")))
			require.Error(t, tx.Commit())
			v, _, err := b.Get(soon(t), "key")
			require.NoError(t, err)
			require.Equal(t, "of the successor", string(v))
			require.NoError(t, next.Release(soon(t)))
		})
	}
}

// Tokens go on growing when old rows are deleted, as the documentation says how.
func deletedRowsHurtNobody(t *testing.T, d database, dsn string) {
	p := d.process(t, dsn, "")
	g := acquire(t, p, "key")
	query := ` WHERE token < 1e6 * EXTRACT(EPOCH FROM now() - INTERVAL '1 day')`
	if d.dialect == sqllease.MySQL {
		query = ` WHERE token < 1e6 * UNIX_TIMESTAMP(NOW() - INTERVAL 1 DAY)`
	}
	r, err := p.db.ExecContext(soon(t), `DELETE FROM `+p.table+query)
	require.NoError(t, err)
	n, err := r.RowsAffected()
	require.NoError(t, err)
	require.Zero(t, n, "the row is new")
	require.NoError(t, p.Put(soon(t), "key", g.Token(), nil))

	execute(t, p.db, `DELETE FROM `+p.table)
	require.ErrorIs(t, p.Put(soon(t), "key", g.Token(), nil), coalesce.ErrFenced)
	require.NoError(t, g.Release(soon(t)))
	next := acquire(t, p, "key")
	require.Greater(t, next.Token(), g.Token())
	// A clock that was set back.
	execute(t, p.db, `UPDATE `+p.table+` SET token = token + 1000000000000`)
	require.NoError(t, next.Release(soon(t)))
	last := acquire(t, p, "key")
	require.Equal(t, next.Token()+1_000_000_000_001, last.Token())
	require.NoError(t, last.Release(soon(t)))
}

func migrateConcurrently(t *testing.T, d database, dsn string) {
	db, err := d.open(dsn, "")
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	l, err := sqllease.New(db, d.dialect, sqllease.Options{Table: tableOf(t)})
	require.NoError(t, err)
	_, err = l.Acquire(soon(t), "key")
	require.Error(t, err, "there is no table")
	var all sync.WaitGroup
	failed := make(chan error, 8)
	for range cap(failed) {
		all.Go(func() { failed <- l.Migrate(soon(t)) })
	}
	all.Wait()
	for range cap(failed) {
		require.NoError(t, <-failed)
	}
	execute(t, db, `DROP TABLE `+tableOf(t))
	execute(t, db, l.Schema())
	require.NoError(t, acquire(t, l, "key").Release(soon(t)))
	require.Zero(t, db.Stats().InUse)
}
