// Package outbox_test runs package outbox on real databases.
package outbox_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	_ "github.com/ncruces/go-sqlite3/driver"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/evenkeel-go/evenkeel/outbox/outboxtest"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// drivers are the names by which the drivers register, by their common names.
var drivers = map[string]string{"ncruces": "sqlite3", "modernc": "sqlite"}

// dsn is the data source name of a SQLite file, for either driver: what package
// outbox/sqlite recommends, and no fsync a commit, since no test here cuts the
// power.
func dsn(path string) string {
	return "file:" + path + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_txlock=immediate"
}

func open(t testing.TB, driver, path string) *sql.DB {
	db, err := sql.Open(drivers[driver], dsn(path))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func TestSQLite(t *testing.T) {
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			if driver == "modernc" {
				underRace(t) // a database in Go, of which the detector sees every byte
			}
			outboxtest.Exercise(t, outboxtest.Database{
				Dialect: sqlite.Dialect{},
				Open: func(t testing.TB) *sql.DB {
					return open(t, driver, filepath.Join(t.TempDir(), "test.db"))
				},
				Writers: 1,
			})
		})
	}
}
