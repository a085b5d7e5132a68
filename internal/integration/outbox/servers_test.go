package outbox_test

import (
	"database/sql"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/outbox/mysql"
	"github.com/evenkeel-go/evenkeel/outbox/outboxtest"
	"github.com/evenkeel-go/evenkeel/outbox/postgres"
)

// openServer opens a database of a server.
func openServer(t testing.TB, driver, dsn string) *sql.DB {
	db, err := sql.Open(driver, dsn)
	require.NoError(t, err)
	db.SetMaxIdleConns(16)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func TestPostgreSQL(t *testing.T) {
	t.Setenv("EVENKEEL_POSTGRES_DSN", testserver.PostgresDSN(t)) // a database a part, of one server
	outboxtest.Exercise(t, outboxtest.Database{
		Dialect: postgres.Dialect{},
		Open:    func(t testing.TB) *sql.DB { return openServer(t, "pgx", testserver.PostgresDSN(t)) },
		Writers: 4,
	})
}

func TestMySQL(t *testing.T) {
	t.Setenv("EVENKEEL_MYSQL_DSN", testserver.MySQLDSN(t))
	outboxtest.Exercise(t, outboxtest.Database{
		Dialect: mysql.Dialect{},
		Open:    func(t testing.TB) *sql.DB { return openServer(t, "mysql", testserver.MySQLDSN(t)) },
		Writers: 4,
	})
}
