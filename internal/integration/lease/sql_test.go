package lease_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/coalescetest"
	"github.com/evenkeel-go/evenkeel/coalesce/sqllease"
	"github.com/evenkeel-go/evenkeel/internal/testserver"
)

// A database is one of those that sqllease knows.
type database struct {
	dialect sqllease.Dialect
	dsn     func(testing.TB) string
	// open connects to the server of the dsn at another address, if there is one.
	open func(dsn, addr string) (*sql.DB, error)
	addr func(dsn string) string
	// results creates a table of results, store upserts a row of it, load reads one.
	results, store, load string
}

var databases = map[string]database{
	"postgres": {
		dialect: sqllease.PostgreSQL,
		dsn:     testserver.PostgresDSN,
		open: func(dsn, addr string) (*sql.DB, error) {
			c, err := pgx.ParseConfig(dsn)
			if err != nil {
				return nil, err
			}
			if addr != "" {
				host, port, _ := net.SplitHostPort(addr)
				n, _ := strconv.ParseUint(port, 10, 16)
				c.Host, c.Port = host, uint16(n)
			}
			return stdlib.OpenDB(*c), nil
		},
		addr: func(dsn string) string {
			c, _ := pgx.ParseConfig(dsn)
			return net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
		},
		results: `CREATE TABLE IF NOT EXISTS %s_results (k bytea PRIMARY KEY, v bytea NOT NULL)`,
		store:   `INSERT INTO %s_results VALUES ($1, $2) ON CONFLICT (k) DO UPDATE SET v = excluded.v`,
		load:    `SELECT v FROM %s_results WHERE k = $1`,
	},
	"mariadb": {
		dialect: sqllease.MySQL,
		dsn:     testserver.MySQLDSN,
		open: func(dsn, addr string) (*sql.DB, error) {
			c, err := mysqldriver.ParseDSN(dsn)
			if err != nil {
				return nil, err
			}
			if addr != "" {
				c.Addr = addr
			}
			c.Logger = &mysqldriver.NopLogger{} // of connections that break, as they should
			connector, err := mysqldriver.NewConnector(c)
			if err != nil {
				return nil, err
			}
			return sql.OpenDB(connector), nil
		},
		addr: func(dsn string) string {
			c, _ := mysqldriver.ParseDSN(dsn)
			return c.Addr
		},
		results: `CREATE TABLE IF NOT EXISTS %s_results (k VARBINARY(64) PRIMARY KEY, v LONGBLOB NOT NULL)`,
		store:   `INSERT INTO %s_results VALUES (?, ?) ON DUPLICATE KEY UPDATE v = VALUES(v)`,
		load:    `SELECT v FROM %s_results WHERE k = ?`,
	},
}

// A sqlProcess is a lease in a database as one process uses it.
type sqlProcess struct {
	*sqllease.Lease
	database
	db    *sql.DB // of the results
	table string
}

func openSQL(d database, dsn, addr, table string, ttl time.Duration) (*sqlProcess, func(), error) {
	leases, err := d.open(dsn, addr)
	if err != nil {
		return nil, nil, err
	}
	data, err := d.open(dsn, addr)
	if err != nil {
		return nil, nil, err
	}
	l, err := sqllease.New(leases, d.dialect, sqllease.Options{TTL: ttl, Table: table})
	if err != nil {
		return nil, nil, err
	}
	closeBoth := func() { _ = leases.Close(); _ = data.Close() }
	for _, query := range []*string{&d.results, &d.store, &d.load} {
		*query = fmt.Sprintf(*query, table)
	}
	p := &sqlProcess{l, d, data, table}
	ctx := context.Background()
	if err := l.Migrate(ctx); err != nil {
		return nil, closeBoth, err
	}
	_, err = data.ExecContext(ctx, d.results)
	return p, closeBoth, err
}

func row(key string) []byte {
	sum := sha256.Sum256([]byte(key))
	return sum[:]
}

func (p *sqlProcess) Put(ctx context.Context, key string, token coalesce.Token, value []byte) error {
	tx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if value == nil {
		value = []byte{}
	}
	if _, err := tx.ExecContext(ctx, p.store, row(key), value); err != nil {
		return err
	}
	if err := p.Fence(ctx, tx, key, token); err != nil {
		return err
	}
	return tx.Commit()
}

func (p *sqlProcess) Get(ctx context.Context, key string) (value []byte, found bool, err error) {
	err = p.db.QueryRowContext(ctx, p.load, row(key)).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	return value, err == nil, err
}

// tableOf is a table of tokens of the test's own.
func tableOf(t testing.TB) string {
	sum := sha256.Sum256([]byte(t.Name()))
	return "lease_" + hex.EncodeToString(sum[:8])
}

// process opens a lease for a test, through a proxy if there is one.
func (d database) process(t testing.TB, dsn, addr string) *sqlProcess {
	t.Helper()
	p, closeBoth, err := openSQL(d, dsn, addr, tableOf(t), ttl)
	if closeBoth != nil {
		t.Cleanup(closeBoth)
	}
	require.NoError(t, err)
	return p
}

func (d database) participant(t testing.TB, dsn string) coalescetest.Participant {
	proxy := testserver.StartProxy(t, d.addr(dsn))
	p := d.process(t, dsn, proxy.Addr())
	return coalescetest.Participant{Lease: p.Lease, Put: p.Put, Get: p.Get, Cut: proxy.BlackHole, Heal: proxy.Heal}
}

// TestSQL runs everything on one server of each kind.
func TestSQL(t *testing.T) {
	t.Parallel()
	for name, d := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := d.dsn(t)
			t.Run("suite", func(t *testing.T) {
				t.Parallel()
				coalescetest.TestLease(t, coalescetest.Subject{
					Open: func(t testing.TB) (a, b coalescetest.Participant) {
						return d.participant(t, dsn), d.participant(t, dsn)
					},
					TTL: ttl,
				})
			})
			for _, part := range []struct {
				name string
				f    func(t *testing.T, d database, dsn string)
			}{
				{"the session is as before afterwards", sessionIsAsBefore},
				{"a successor waits for the fenced transaction", successorWaitsForTheFencedTransaction},
				{"a late transaction is refused at every level", lateTransactionIsRefused},
				{"a frozen transaction is ended", frozenTransactionIsEnded},
				{"deleted rows hurt nobody", deletedRowsHurtNobody},
				{"migrate concurrently", migrateConcurrently},
				{"waiters leave the work its connection", waitersLeaveTheWorkItsConnection},
			} {
				t.Run(part.name, func(t *testing.T) {
					t.Parallel()
					part.f(t, d, dsn)
				})
			}
			sqlProcesses(t, name, d, dsn)
		})
	}
}
