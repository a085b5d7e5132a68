package outbox_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

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
