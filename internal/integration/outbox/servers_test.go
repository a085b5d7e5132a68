package outbox_test

import (
	"database/sql"
	"testing"

	mysqldriver "github.com/go-sql-driver/mysql"
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
	base := testserver.PostgresDSN(t) // one server, and a schema a part
	outboxtest.Exercise(t, outboxtest.Database{
		Dialect: postgres.Dialect{},
		Open:    func(t testing.TB) *sql.DB { return openServer(t, "pgx", ownSchema(t, base)) },
		Writers: 4,
	})
}

func TestMySQL(t *testing.T) {
	base, err := mysqldriver.ParseDSN(testserver.MySQLDSN(t)) // one server, and a database a part
	require.NoError(t, err)
	admin := openServer(t, "mysql", base.FormatDSN())
	outboxtest.Exercise(t, outboxtest.Database{
		Dialect: mysql.Dialect{},
		Open: func(t testing.TB) *sql.DB {
			own := base.Clone()
			own.DBName = createDatabase(t, admin)
			return openServer(t, "mysql", own.FormatDSN())
		},
		Writers: 4,
	})
}
