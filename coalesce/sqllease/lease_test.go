package sqllease_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce/sqllease"
)

// The tests on real servers are in internal/integration/lease.

// noServer is a database that cannot be reached.
type noServer struct{}

var errNoServer = errors.New("no server")

func (noServer) Connect(context.Context) (driver.Conn, error) { return nil, errNoServer }
func (noServer) Driver() driver.Driver                        { return nil }

func open(t *testing.T) *sql.DB {
	db := sql.OpenDB(noServer{})
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func TestNewNamesWhatIsWrong(t *testing.T) {
	db := open(t)
	for want, o := range map[string]sqllease.Options{
		"sqllease: Options.TTL is -1s, want 0 (meaning 10s) or 1s to 24h0m0s":                                         {TTL: -time.Second},
		"sqllease: Options.TTL is 999ms, want 0 (meaning 10s) or 1s to 24h0m0s":                                       {TTL: 999 * time.Millisecond},
		"sqllease: Options.TTL is 25h0m0s, want 0 (meaning 10s) or 1s to 24h0m0s":                                     {TTL: 25 * time.Hour},
		"sqllease: Options.Poll is -1ns, want 0 (meaning 500ms) or 10ms to Options.TTL, 10s":                          {Poll: -1},
		"sqllease: Options.Poll is 11s, want 0 (meaning 500ms) or 10ms to Options.TTL, 10s":                           {Poll: 11 * time.Second},
		`sqllease: Options.Table is "x; DROP TABLE y", want letters, digits and _, after a schema and a dot or alone`: {Table: "x; DROP TABLE y"},
		`sqllease: Options.Table is "a.b.c", want letters, digits and _, after a schema and a dot or alone`:           {Table: "a.b.c"},
	} {
		_, err := sqllease.New(db, sqllease.PostgreSQL, o)
		require.EqualError(t, err, want)
	}
	_, err := sqllease.New(nil, sqllease.MySQL, sqllease.Options{})
	require.EqualError(t, err, "sqllease: db is nil, want a *sql.DB")
	_, err = sqllease.New(db, 0, sqllease.Options{})
	require.EqualError(t, err, "sqllease: the dialect is 0, want PostgreSQL or MySQL")
	db.SetMaxOpenConns(1)
	_, err = sqllease.New(db, sqllease.MySQL, sqllease.Options{})
	require.EqualError(t, err, "sqllease: db has a limit of 1 open connection, want 2 or more: each lease that is held takes one")
	db.SetMaxOpenConns(2)
	for _, d := range []sqllease.Dialect{sqllease.PostgreSQL, sqllease.MySQL} {
		l, err := sqllease.New(db, d, sqllease.Options{Table: "shop.lease"})
		require.NoError(t, err)
		require.Contains(t, l.Schema(), "shop.lease")
	}
}

func TestErrorsNameTheOperation(t *testing.T) {
	l, err := sqllease.New(open(t), sqllease.PostgreSQL, sqllease.Options{})
	require.NoError(t, err)
	_, err = l.Acquire(t.Context(), "key")
	require.EqualError(t, err, "sqllease: acquire: no server")
	require.EqualError(t, l.Wait(t.Context(), "key"), "sqllease: wait: no server")
	require.EqualError(t, l.Migrate(t.Context()), "sqllease: migrate: no server")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = l.Acquire(ctx, "key")
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, context.Canceled, l.Wait(ctx, "key"))
}
