// Package topo_test runs the sources of the shard map on real servers.
package topo_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"path/filepath"
	"testing"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	_ "github.com/ncruces/go-sqlite3/driver"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/shard/topo"
)

const (
	// patience bounds what must happen and may be slow.
	patience = 60 * time.Second

	poll = 20 * time.Millisecond
)

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func contextWithin(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

// A database is one of those that Table knows.
type database struct {
	dialect topo.Dialect
	dsn     func(testing.TB) string
	open    func(dsn string) (*sql.DB, error)
	block   []string // lets nobody else at {table}, or write there
	unblock string
}

var databases = map[string]database{
	"postgres": {
		dialect: topo.PostgreSQL, dsn: testserver.PostgresDSN, open: openPostgres,
		block: []string{`BEGIN`, `LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE`}, unblock: `ROLLBACK`,
	},
	"mariadb": {
		dialect: topo.MySQL, dsn: testserver.MySQLDSN, open: openMySQL,
		block: []string{`LOCK TABLES {table} WRITE`}, unblock: `UNLOCK TABLES`,
	},
	"ncruces": {
		dialect: topo.SQLite, dsn: sqliteDSN, open: func(dsn string) (*sql.DB, error) { return sql.Open("sqlite3", dsn) },
		block: []string{`BEGIN IMMEDIATE`}, unblock: `ROLLBACK`,
	},
	"modernc": {
		dialect: topo.SQLite, dsn: sqliteDSN, open: func(dsn string) (*sql.DB, error) { return sql.Open("sqlite", dsn) },
		block: []string{`BEGIN IMMEDIATE`}, unblock: `ROLLBACK`,
	},
}

func openPostgres(dsn string) (*sql.DB, error) {
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	return stdlib.OpenDB(*c), nil
}

func openMySQL(dsn string) (*sql.DB, error) {
	c, err := mysqldriver.ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	c.Logger = &mysqldriver.NopLogger{} // of connections that break, as they should
	connector, err := mysqldriver.NewConnector(c)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// sqliteDSN names a file as the documentation of topo.SQLite says; without fsync, since no
// test here cuts the power.
func sqliteDSN(t testing.TB) string {
	return "file:" + filepath.Join(t.TempDir(), "test.db") + "?_pragma=busy_timeout(30000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)"
}

// db opens a database for a test.
func (d database) db(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := d.open(dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// table opens a table that exists.
func (d database) table(t testing.TB, db *sql.DB, o topo.TableOptions) *topo.Table {
	t.Helper()
	table, err := topo.NewTable(db, d.dialect, o)
	require.NoError(t, err)
	require.NoError(t, table.Migrate(soon(t)))
	return table
}

// tableOf is the name of a table of the test's own.
func tableOf(t testing.TB) string {
	sum := sha256.Sum256([]byte(t.Name()))
	return "maps_" + hex.EncodeToString(sum[:8])
}

func execute(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(soon(t), query, args...)
	require.NoError(t, err)
}
