package outbox_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// deferred is the data source name with SQLite's default kind of transaction.
// Without a word ncruces/go-sqlite3 takes immediate ones.
func deferred(path string) string {
	return strings.Replace(dsn(path), "_txlock=immediate", "_txlock=deferred", 1)
}

// TestFourWritersAndADrainerAreNeverBusy: with either way to take the lock at
// once, no error surfaces.
func TestFourWritersAndADrainerAreNeverBusy(t *testing.T) {
	for name, way := range map[string]struct {
		dsn   func(string) string
		begin func(context.Context, *sql.DB) (*sql.Tx, error)
	}{
		"_txlock": {dsn, func(ctx context.Context, db *sql.DB) (*sql.Tx, error) { return db.BeginTx(ctx, nil) }},
		"Begin":   {deferred, func(ctx context.Context, db *sql.DB) (*sql.Tx, error) { return sqlite.Begin(ctx, db, nil) }},
	} {
		for driver := range drivers {
			t.Run(name+"/"+driver, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "test.db")
				_, box := newBoxAt(t, driver, path)
				db, err := sql.Open(drivers[driver], way.dsn(path))
				require.NoError(t, err)
				defer func() { require.NoError(t, db.Close()) }()
				_, err = db.ExecContext(t.Context(), `CREATE TABLE counter (n INTEGER NOT NULL)`)
				require.NoError(t, err)
				_, err = db.ExecContext(t.Context(), `INSERT INTO counter (n) VALUES (0)`)
				require.NoError(t, err)

				const writers, each = 4, 50
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				var mu sync.Mutex
				delivered := 0
				ended := make(chan error, 1)
				go func() {
					ended <- box.Run(ctx, db, outbox.PublisherFunc(func(context.Context, outbox.Message) error {
						mu.Lock()
						defer mu.Unlock()
						if delivered++; delivered == writers*each {
							stop()
						}
						return nil
					}))
				}()
				var adds sync.WaitGroup
				for range writers {
					adds.Go(func() {
						for range each {
							if err := readAndWrite(t.Context(), db, box, way.begin); err != nil {
								t.Error(err)
								stop()
								return
							}
							box.Wake()
						}
					})
				}
				adds.Wait()
				require.NoError(t, <-ended)
				require.Equal(t, writers*each, delivered)
				var n int
				require.NoError(t, db.QueryRowContext(t.Context(), `SELECT n FROM counter`).Scan(&n))
				require.Equal(t, writers*each, n)
			})
		}
	}
}

// readAndWrite is what a deferred transaction cannot do: it reads, and then
// writes what it has read and one more.
func readAndWrite(ctx context.Context, db *sql.DB, box *outbox.Outbox, begin func(context.Context, *sql.DB) (*sql.Tx, error)) error {
	tx, err := begin(ctx, db)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT n FROM counter`).Scan(&n); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE counter SET n = ?`, n+1); err != nil {
		return err
	}
	if err := box.Add(ctx, tx, outbox.Message{Topic: "t"}); err != nil {
		return err
	}
	return tx.Commit()
}

func newBoxAt(t testing.TB, driver, path string) (*sql.DB, *outbox.Outbox) {
	db := open(t, driver, path)
	box, err := outbox.New(sqlite.Dialect{}, outbox.Options{})
	require.NoError(t, err)
	require.NoError(t, box.Migrate(t.Context(), db))
	return db, box
}

// TestDeferredTransactionThatIsLateIsExplained: a transaction that has read, and
// of which somebody has since changed what it read, cannot add, and is told why.
func TestDeferredTransactionThatIsLateIsExplained(t *testing.T) {
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "test.db")
			db, box := newBoxAt(t, driver, path)
			late, err := sql.Open(drivers[driver], deferred(path))
			require.NoError(t, err)
			defer func() { require.NoError(t, late.Close()) }()
			tx, err := late.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			var n int
			require.NoError(t, tx.QueryRowContext(t.Context(), `SELECT count(*) FROM outbox_messages`).Scan(&n))
			other, err := db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			require.NoError(t, box.Add(t.Context(), other, outbox.Message{Topic: "t"}))
			require.NoError(t, other.Commit())

			err = box.Add(t.Context(), tx, outbox.Message{Topic: "t"})
			require.ErrorContains(t, err, "_txlock=immediate")
			require.ErrorContains(t, err, "sqlite.Begin")
			require.NoError(t, tx.Rollback())
		})
	}
}
