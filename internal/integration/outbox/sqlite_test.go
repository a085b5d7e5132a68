package outbox_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// TestReadsWalkAnIndex: reading a batch costs the same behind a million waiting
// messages as behind none.
func TestReadsWalkAnIndex(t *testing.T) {
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			db, _ := newBox(t, driver, outbox.Options{})
			statements := sqlite.Dialect{}.SQL()
			for name, query := range map[string]string{"Ready": statements.Ready, "Waiting": statements.Waiting, "Dead": statements.Dead} {
				args := []any{100}
				if name == "Dead" {
					args = []any{0, 100}
				}
				plan := explain(t, db, query, args...)
				t.Logf("%s\n%s", name, plan)
				require.NotContains(t, plan, "SCAN w", name)
				require.NotContains(t, plan, "SCAN p", name)
				require.NotContains(t, plan, "AUTOMATIC", name)
			}
			// The two halves are merged by a sort of at most twice the limit;
			// inside them there must be none.
			plan := explain(t, db, statements.Waiting, 100)
			require.Equal(t, 1, strings.Count(plan, "TEMP B-TREE"), plan)
			require.Contains(t, plan, "USING INDEX outbox_waiting_due (due_at<?)")
			require.Contains(t, plan, "USING INDEX outbox_waiting_key (message_key=?)")
			require.Contains(t, plan, "outbox_parked_due (due_at<?)")
			require.NotContains(t, explain(t, db, statements.Ready, 100), "TEMP B-TREE")
		})
	}
}

func explain(t *testing.T, db *sql.DB, query string, args ...any) string {
	rows, err := db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	require.NoError(t, err)
	defer func() { _ = rows.Close() }()
	var out strings.Builder
	for rows.Next() {
		var id, parent, unused int
		var detail string
		require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
		out.WriteString(detail + "\n")
	}
	require.NoError(t, rows.Err())
	return out.String()
}

func newBox(t testing.TB, driver string, o outbox.Options) (*sql.DB, *outbox.Outbox) {
	db := open(t, driver, filepath.Join(t.TempDir(), "test.db"))
	box, err := outbox.New(sqlite.Dialect{}, o)
	require.NoError(t, err)
	require.NoError(t, box.Migrate(t.Context(), db))
	return db, box
}

// TestDeferredTransactionsWork: with SQLite's default kind of transaction and no
// busy timeout at all, the outbox's own statements retry, and nothing surfaces.
func TestDeferredTransactionsWork(t *testing.T) {
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "test.db")
			db := open(t, driver, path)
			o := outbox.Options{Batch: 3, PollMin: time.Millisecond, PollMax: 5 * time.Millisecond, Lease: 100 * time.Millisecond}
			box, err := outbox.New(sqlite.Dialect{}, o)
			require.NoError(t, err)
			require.NoError(t, db.PingContext(t.Context())) // now the file is in WAL mode
			deferred, err := sql.Open(drivers[driver], "file:"+path+"?_pragma=busy_timeout(0)&_txlock=deferred")
			require.NoError(t, err)
			defer func() { require.NoError(t, deferred.Close()) }()
			var migrations sync.WaitGroup
			for range 4 {
				migrations.Go(func() { require.NoError(t, box.Migrate(t.Context(), deferred)) })
			}
			migrations.Wait()

			const writers, each = 3, 40
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			var mu sync.Mutex
			delivered := map[int64]bool{}
			var drains, adds sync.WaitGroup
			for range 2 {
				drains.Go(func() {
					err := box.Run(ctx, deferred, outbox.PublisherFunc(func(_ context.Context, m outbox.Message) error {
						mu.Lock()
						defer mu.Unlock()
						if delivered[m.ID] = true; len(delivered) == writers*each {
							stop()
						}
						return nil
					}))
					require.NoError(t, err)
				})
			}
			for range writers {
				adds.Go(func() {
					for range each {
						tx, err := db.BeginTx(t.Context(), nil)
						require.NoError(t, err)
						require.NoError(t, box.Add(t.Context(), tx, outbox.Message{Topic: "t"}))
						require.NoError(t, tx.Commit())
						_, err = box.Stats(t.Context(), deferred)
						require.NoError(t, err)
						_, err = box.Purge(t.Context(), deferred, time.Now())
						require.NoError(t, err)
					}
				})
			}
			adds.Wait()
			drains.Wait()
			require.Len(t, delivered, writers*each, "all, before the time was up")
		})
	}
}

// TestLeaseIsTakenOnlyWhenItHasEnded: one that was renewed after somebody saw it
// end is not taken, and neither is one that somebody else took meanwhile.
func TestLeaseIsTakenOnlyWhenItHasEnded(t *testing.T) {
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			db, _ := newBox(t, driver, outbox.Options{})
			statements := sqlite.Dialect{}.SQL()
			exec := func(query string, args ...any) int64 {
				res, err := db.ExecContext(t.Context(), query, args...)
				require.NoError(t, err)
				n, err := res.RowsAffected()
				require.NoError(t, err)
				return n
			}
			hour := time.Hour.Microseconds()
			require.EqualValues(t, 1, exec(statements.Acquire, "a", hour, 0))
			require.EqualValues(t, 0, exec(statements.Acquire, "b", hour, 1), "it has not ended")
			require.EqualValues(t, 1, exec(statements.Release, 1))
			require.EqualValues(t, 0, exec(statements.Acquire, "b", hour, 0), "somebody else had it since")
			require.EqualValues(t, 1, exec(statements.Acquire, "b", hour, 1))
			require.EqualValues(t, 0, exec(statements.Renew, hour, 1), "of an older epoch")
			require.EqualValues(t, 0, exec(statements.Release, 1), "of an older epoch")
			require.EqualValues(t, 1, exec(statements.Renew, hour, 2))
		})
	}
}

// TestWrongDatabaseIsSaid: pointing the outbox at something else is a clear error.
func TestWrongDatabaseIsSaid(t *testing.T) {
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			db := open(t, driver, filepath.Join(t.TempDir(), "no", "such", "folder", "test.db"))
			box, err := outbox.New(sqlite.Dialect{}, outbox.Options{})
			require.NoError(t, err)
			for _, err := range []error{box.Migrate(t.Context(), db), box.Run(t.Context(), db, none{})} {
				require.ErrorContains(t, err, "read the schema version (is this a sqlite database?)")
			}
			_, err = box.Stats(t.Context(), db)
			require.ErrorContains(t, err, "outbox: stats: ")
		})
	}
}
