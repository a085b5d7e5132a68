//go:build unix

package outbox_test

import (
	"bufio"
	"context"
	crand "crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/mysql"
	"github.com/evenkeel-go/evenkeel/outbox/postgres"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// A site is what processes that add and drain have in common: a database with an
// outbox, and a file to which all of them deliver. The database also has what
// the messages tell about:
//
//	versions   k, version   of each key the newest version
//	committed  name         one row for each message that was added
//
// The name of a message is "key version serial". Without a key, the key is "-".
// Names differ also where a version is given again after a rollback.
type site struct {
	Kind, DSN, Folder string
	// Server says that the database is a server, where keys are shared.
	Server bool
	db     *sql.DB
	poison bool // what is added
}

const siteKeys = 10

// siteKinds makes empty sites, by kind. Servers are started once for t.
func siteKinds(t *testing.T, kinds ...string) map[string]func(testing.TB) *site {
	if len(kinds) == 0 {
		kinds = []string{"postgres", "mysql", "ncruces", "modernc"}
	}
	out := map[string]func(testing.TB) *site{}
	for _, kind := range kinds {
		var dsnOf func(testing.TB) string
		switch kind {
		case "postgres":
			base := testserver.PostgresDSN(t)
			dsnOf = func(t testing.TB) string { return ownSchema(t, base) }
		case "mysql":
			base, err := mysqldriver.ParseDSN(testserver.MySQLDSN(t))
			require.NoError(t, err)
			admin := openServer(t, "mysql", base.FormatDSN())
			dsnOf = func(t testing.TB) string {
				own := base.Clone()
				own.DBName = createDatabase(t, admin)
				return own.FormatDSN()
			}
		default:
			dsnOf = func(t testing.TB) string { return dsn(filepath.Join(t.TempDir(), "test.db")) }
		}
		out[kind] = func(t testing.TB) *site {
			s := &site{Kind: kind, DSN: dsnOf(t), Folder: t.TempDir()}
			s.setUp(t)
			return s
		}
	}
	return out
}

// ownSchema makes a schema, which is much cheaper than a database.
func ownSchema(t testing.TB, dsn string) string {
	name := "site_" + strings.ToLower(crand.Text()[:16])
	db, err := sql.Open("pgx", dsn)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	_, err = db.ExecContext(t.Context(), `CREATE SCHEMA `+name)
	require.NoError(t, err)
	return withParam(t, dsn, "search_path", name)
}

func withParam(t testing.TB, dsn, name, value string) string {
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}

// patient lets sessions of MySQL wait for locks, and transactions whose process
// hangs end, as package outbox/mysql says.
func patient(dsn string) string {
	return dsn + "?innodb_lock_wait_timeout=5&idle_transaction_timeout=2"
}

// setUp makes the tables.
func (s *site) setUp(t testing.TB) {
	s.reopen(t)
	s.prepare(t)
}

func (s *site) reopen(t testing.TB) {
	s.Server = s.Kind == "postgres" || s.Kind == "mysql"
	db, err := sql.Open(s.driver(), s.DSN)
	require.NoError(t, err)
	db.SetMaxIdleConns(16)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	s.db = db
}

func (s *site) prepare(t testing.TB) {
	require.NoError(t, s.box(t, outbox.Options{}).Migrate(t.Context(), s.db))
	s.exec(t, `CREATE TABLE versions (k INTEGER PRIMARY KEY, version INTEGER NOT NULL)`)
	s.exec(t, `CREATE TABLE committed (name VARCHAR(100) PRIMARY KEY)`)
	values := make([]string, siteKeys)
	for k := range values {
		values[k] = fmt.Sprintf("(%d, 0)", k)
	}
	s.exec(t, `INSERT INTO versions (k, version) VALUES `+strings.Join(values, ", "))
}

func (s *site) driver() string {
	switch s.Kind {
	case "postgres":
		return "pgx"
	case "mysql":
		return "mysql"
	}
	return drivers[s.Kind]
}

func (s *site) dialect() outbox.Dialect {
	switch s.Kind {
	case "postgres":
		return postgres.Dialect{}
	case "mysql":
		return mysql.Dialect{}
	}
	return sqlite.Dialect{}
}

func (s *site) box(t require.TestingT, o outbox.Options) *outbox.Outbox {
	box, err := outbox.New(s.dialect(), o)
	require.NoError(t, err)
	return box
}

func (s *site) exec(t testing.TB, query string) {
	t.Helper()
	_, err := s.db.ExecContext(context.WithoutCancel(t.Context()), query)
	require.NoError(t, err, query)
}

func (s *site) count(t testing.TB, query string) (n int) {
	t.Helper()
	require.NoError(t, s.db.QueryRowContext(context.WithoutCancel(t.Context()), query).Scan(&n), query)
	return n
}

// stored counts the messages that are in the database, wherever they are.
func (s *site) stored(t testing.TB) int {
	return s.count(t, `SELECT (SELECT count(*) FROM outbox_messages) + (SELECT count(*) FROM outbox_waiting) + (SELECT count(*) FROM outbox_dead)`)
}

// add runs one transaction: it gives a key its next versions, notes them as
// committed, and adds the messages that tell about it, n of each key. A negative
// key is none.
func (s *site) add(ctx context.Context, db *sql.DB, box *outbox.Outbox, commit bool, n int, keys ...int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for _, key := range keys {
		for range n {
			m, err := s.next(ctx, tx, key)
			if err != nil {
				return err
			}
			if err := box.Add(ctx, tx, m); err != nil {
				return err
			}
		}
	}
	if !commit {
		return tx.Rollback()
	}
	return tx.Commit()
}

// next changes what a message of a key tells about.
func (s *site) next(ctx context.Context, tx *sql.Tx, key int) (m outbox.Message, err error) {
	m.Topic = "t"
	version, label := 0, "-"
	if key >= 0 {
		if _, err = tx.ExecContext(ctx, fmt.Sprintf(`UPDATE versions SET version = version + 1 WHERE k = %d`, key)); err != nil {
			return m, err
		}
		if err = tx.QueryRowContext(ctx, fmt.Sprintf(`SELECT version FROM versions WHERE k = %d`, key)).Scan(&version); err != nil {
			return m, err
		}
		label = fmt.Sprint(key)
		m.Key = label
	}
	name := fmt.Sprintf("%s %d %d", label, version, rand.Uint64())
	if s.poison {
		name += poisonous
	}
	m.Payload = []byte(name)
	_, err = tx.ExecContext(ctx, `INSERT INTO committed (name) VALUES ('`+name+`')`)
	return m, err
}

// addSome commits n messages of each key, and one without a key for each.
func (s *site) addSome(t testing.TB, n int) {
	ctx, box := context.WithoutCancel(t.Context()), s.box(t, outbox.Options{})
	for key := range siteKeys {
		require.NoError(t, s.add(ctx, s.db, box, true, n, key))
		require.NoError(t, s.add(ctx, s.db, box, true, 1, -1))
	}
}

// file opens the file of deliveries.
func (s *site) file() (*os.File, error) {
	return os.OpenFile(filepath.Join(s.Folder, "delivered"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
}

// write notes a delivery: one write a message, which a kill cannot cut in two.
func write(f io.Writer, m outbox.Message) error {
	_, err := f.Write(append(m.Payload, '\n'))
	return err
}

// deliverTo notes each delivery, and fails one in so many.
func deliverTo(f io.Writer, fail int) outbox.PublisherFunc {
	return func(_ context.Context, m outbox.Message) error {
		if fail > 0 && rand.IntN(fail) == 0 {
			return errors.New("unlucky")
		}
		return write(f, m)
	}
}

// settled waits until no message is left but dead ones.
func (s *site) settled(t testing.TB) {
	t.Helper()
	until(t, "all messages are out", func() bool {
		return s.count(t, `SELECT (SELECT count(*) FROM outbox_messages) + (SELECT count(*) FROM outbox_waiting)`) == 0
	})
}

// until waits for something that must come. A run that gives up hangs.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !done(); {
		select {
		case <-tick.C:
		case <-end:
			require.FailNow(t, "does not come: "+what)
		}
	}
}

// elapse waits: for a lease to end while a process is frozen, for example.
func elapse(d time.Duration) { <-time.After(d) }

// drainRest delivers what is left, and takes over if need be.
func (s *site) drainRest(t testing.TB, o outbox.Options, p outbox.Publisher) {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.box(t, o).Run(ctx, s.db, p) }()
	s.settled(t)
	stop()
	require.NoError(t, <-ended)
}

// joins counts the leases that were ever taken.
func (s *site) joins(t testing.TB) int { return s.count(t, `SELECT epoch FROM outbox_state`) }

// A tally is what was committed and delivered.
type tally struct {
	committed, deliveries, repeated int
}

// check looks for what was lost, invented or out of order.
func (s *site) check(t testing.TB) (sum tally) {
	t.Helper()
	committed := map[string]bool{}
	for _, name := range s.names(t, `SELECT name FROM committed`) {
		committed[name] = true
	}
	file, err := os.Open(filepath.Join(s.Folder, "delivered"))
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	seen := map[string]bool{}
	next := map[string]int{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		name := lines.Text()
		sum.deliveries++
		require.True(t, committed[name], "%q was delivered and never committed", name)
		if seen[name] {
			sum.repeated++
			continue
		}
		seen[name] = true
		if key, rest, _ := strings.Cut(name, " "); key != "-" {
			version, _, _ := strings.Cut(rest, " ")
			next[key]++
			require.Equal(t, fmt.Sprint(next[key]), version, "first deliveries of key %s are in order", key)
		}
	}
	require.NoError(t, lines.Err())
	for name := range committed {
		require.True(t, seen[name], "%q was committed and is lost", name)
	}
	sum.committed = len(committed)
	s.checkTables(t)
	return sum
}

func (s *site) names(t testing.TB, query string) (out []string) {
	rows, err := s.db.QueryContext(context.WithoutCancel(t.Context()), query)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		out = append(out, name)
	}
	require.NoError(t, rows.Err())
	return out
}

// checkTables requires that nothing is left behind that holds up somebody.
func (s *site) checkTables(t testing.TB) {
	t.Helper()
	require.Zero(t, s.count(t, `SELECT count(*) FROM outbox_waiting w WHERE w.due_at IS NULL
		AND NOT EXISTS (SELECT 1 FROM outbox_parked p WHERE p.topic = w.topic AND p.message_key = w.message_key)`), "waits for nothing")
	require.Zero(t, s.count(t, `SELECT count(*) FROM outbox_parked p
		WHERE NOT EXISTS (SELECT 1 FROM outbox_waiting w WHERE w.topic = p.topic AND w.message_key = p.message_key AND w.due_at IS NULL)`),
		"a key is parked, and nothing waits for it")
}
