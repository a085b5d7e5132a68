package outbox_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	mysqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/mysql"
	"github.com/evenkeel-go/evenkeel/outbox/outboxtest"
	"github.com/evenkeel-go/evenkeel/outbox/postgres"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// strategyDatabases are the databases that strategies run on: one server of each
// kind, on which each test has databases of its own.
func strategyDatabases(t testing.TB) map[string]func() outboxtest.Database {
	return map[string]func() outboxtest.Database{
		"postgres": func() outboxtest.Database {
			dsn, err := url.Parse(testserver.PostgresDSN(t))
			require.NoError(t, err)
			admin := openServer(t, "pgx", dsn.String())
			return outboxtest.Database{Dialect: postgres.Dialect{}, Writers: 4, Open: func(t testing.TB) *sql.DB {
				own := *dsn
				own.Path = createDatabase(t, admin)
				return openServer(t, "pgx", own.String())
			}}
		},
		"mysql": func() outboxtest.Database {
			dsn, err := mysqldriver.ParseDSN(testserver.MySQLDSN(t))
			require.NoError(t, err)
			admin := openServer(t, "mysql", dsn.FormatDSN())
			return outboxtest.Database{Dialect: mysql.Dialect{}, Writers: 4, Open: func(t testing.TB) *sql.DB {
				own := dsn.Clone()
				own.DBName = createDatabase(t, admin)
				return openServer(t, "mysql", own.FormatDSN())
			}}
		},
		"sqlite": func() outboxtest.Database {
			return outboxtest.Database{Dialect: sqlite.Dialect{}, Writers: 1, Open: func(t testing.TB) *sql.DB {
				return open(t, "modernc", filepath.Join(t.TempDir(), "test.db"))
			}}
		},
	}
}

// createDatabase returns the name of a new database, which is dropped after t.
func createDatabase(t testing.TB, admin *sql.DB) string {
	name := "strategy_" + strings.ToLower(rand.Text()[:16])
	_, err := admin.ExecContext(t.Context(), `CREATE DATABASE `+name)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := admin.ExecContext(context.WithoutCancel(t.Context()), `DROP DATABASE `+name)
		require.NoError(t, err)
	})
	return name
}

// eachStrategy runs f with each strategy of each database, or the named ones.
func eachStrategy(t *testing.T, names []string, f func(*testing.T, outboxtest.Database, outboxtest.Strategy)) {
	for kind, start := range strategyDatabases(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d := start()
			for _, s := range outboxtest.Strategies(d) {
				if names == nil || slices.Contains(names, s.Name) {
					t.Run(s.Name, func(t *testing.T) { f(t, d, s) })
				}
			}
		})
	}
}

// BenchmarkStrategies drains 2,000 committed messages with one drainer, and then
// reports what four drainers lose and reorder beside writers, and the rate of
// the fifth round beside a held snapshot as a part of the first.
func BenchmarkStrategies(b *testing.B) {
	const rows = 2000
	for kind, start := range strategyDatabases(b) {
		d := start()
		for _, s := range outboxtest.Strategies(d) {
			b.Run(fmt.Sprintf("database=%s/strategy=%s", kind, s.Name), func(b *testing.B) {
				db := d.Open(b)
				box, err := s.New(outbox.Options{})
				require.NoError(b, err)
				require.NoError(b, box.Migrate(b.Context(), db))
				msgs := benchMessages(rows)
				b.ReportAllocs()
				var allocs uint64
				var before, after runtime.MemStats
				for b.Loop() {
					b.StopTimer()
					addAll(b, db, box, msgs)
					runtime.ReadMemStats(&before)
					b.StartTimer()
					n, err := box.Drain(b.Context(), db, none{})
					b.StopTimer()
					require.NoError(b, err)
					require.Equal(b, rows, n)
					runtime.ReadMemStats(&after)
					allocs += after.Mallocs - before.Mallocs
					b.StartTimer()
				}
				all := float64(b.N * rows)
				b.ReportMetric(all/b.Elapsed().Seconds(), "rows/s")
				b.ReportMetric(float64(allocs)/all, "allocs/row")
				r := outboxtest.Measure(b, d, s, outboxtest.Load{Writers: 8, Drainers: 4, Transactions: 30})
				b.ReportMetric(float64(r.Lost), "lost")
				b.ReportMetric(float64(r.Inversions), "inversions")
				rounds := outboxtest.HeldSnapshot(b, d, s, 5, rows)
				b.ReportMetric(rounds[4]/rounds[0], "slope")
			})
		}
	}
}

func addAll(t testing.TB, db *sql.DB, box outboxtest.Drainer, msgs []outbox.Message) {
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, box.Add(t.Context(), tx, msgs...))
	require.NoError(t, tx.Commit())
}

// newStrategy returns an empty database and a drainer.
func newStrategy(t *testing.T, d outboxtest.Database, s outboxtest.Strategy) (*sql.DB, outboxtest.Drainer) {
	db := d.Open(t)
	box, err := s.New(outbox.Options{Batch: 1})
	require.NoError(t, err)
	require.NoError(t, box.Migrate(t.Context(), db))
	return db, box
}

// beginAdd adds a message of a key in a transaction and leaves it open.
func beginAdd(t *testing.T, db *sql.DB, box outboxtest.Drainer, payload string) *sql.Tx {
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	addTo(t, tx, box, payload)
	return tx
}

func addTo(t *testing.T, tx *sql.Tx, box outboxtest.Drainer, payload string) {
	require.NoError(t, box.Add(t.Context(), tx, outbox.Message{Topic: "t", Key: "k", Payload: []byte(payload)}))
}

// drained returns the payloads that a Drain delivers.
func drained(t *testing.T, db *sql.DB, box outboxtest.Drainer) (out []string) {
	_, err := box.Drain(t.Context(), db, payloads{&out})
	require.NoError(t, err)
	return out
}

// payloads is a Publisher that notes what it gets.
type payloads struct{ out *[]string }

func (p payloads) Publish(_ context.Context, batch []outbox.Message) []error {
	for _, m := range batch {
		*p.out = append(*p.out, string(m.Payload))
	}
	return nil
}

// TestOnlyACursorLosesWhatCommitsLate: the gap. One transaction gets the lower
// id and commits after one with a higher id was delivered.
func TestOnlyACursorLosesWhatCommitsLate(t *testing.T) {
	t.Parallel()
	underRace(t)
	eachStrategy(t, nil, func(t *testing.T, d outboxtest.Database, s outboxtest.Strategy) {
		if d.Writers == 1 {
			t.Skip("there is one writer at a time, so there is no gap")
		}
		db, box := newStrategy(t, d, s)
		late := beginAdd(t, db, box, "late")
		require.NoError(t, beginAdd(t, db, box, "soon").Commit())
		got := drained(t, db, box)
		require.NoError(t, late.Commit())
		got = append(got, drained(t, db, box)...)
		if s.Name == "cursor" {
			require.Equal(t, []string{"soon"}, got, "this one loses it")
		} else {
			require.ElementsMatch(t, []string{"soon", "late"}, got)
		}
	})
}

// TestTwoDrainersReorderAKeyUnlessItIsOwned: the first drainer has taken version
// 1 and is about to send it, when the second one comes along.
func TestTwoDrainersReorderAKeyUnlessItIsOwned(t *testing.T) {
	t.Parallel()
	underRace(t)
	eachStrategy(t, []string{"owner", "claim", "lease"}, func(t *testing.T, d outboxtest.Database, s outboxtest.Strategy) {
		if d.Writers == 1 && s.Name == "claim" {
			t.Skip("the second drainer would wait for the first")
		}
		db, first := newStrategy(t, d, s)
		second, err := s.New(outbox.Options{Batch: 1})
		require.NoError(t, err)
		require.NoError(t, beginAdd(t, db, first, "1").Commit())
		require.NoError(t, beginAdd(t, db, first, "2").Commit())
		var got []string
		_, err = first.Drain(t.Context(), db, outbox.PublisherFunc(func(ctx context.Context, m outbox.Message) error {
			if string(m.Payload) == "1" {
				_, err := second.Drain(ctx, db, payloads{&got})
				if err != nil && !errors.Is(err, outbox.ErrLeased) {
					return err
				}
			}
			got = append(got, string(m.Payload))
			return nil
		}))
		require.NoError(t, err)
		if s.Name == "owner" {
			require.Equal(t, []string{"1", "2"}, got)
		} else {
			require.Equal(t, []string{"2", "1"}, got, "this one reorders")
		}
	})
}

// TestOrderOfTransactionsReordersAKey: a transaction that begins early may come
// to the key late. Its id is from then, its number and its time are not.
func TestOrderOfTransactionsReordersAKey(t *testing.T) {
	t.Parallel()
	underRace(t)
	eachStrategy(t, nil, func(t *testing.T, d outboxtest.Database, s outboxtest.Strategy) {
		if d.Writers == 1 {
			t.Skip("there is one writer at a time")
		}
		db, box := newStrategy(t, d, s)
		for _, query := range []string{`CREATE TABLE business (id int PRIMARY KEY, n int NOT NULL)`, `INSERT INTO business VALUES (1, 0), (2, 0)`} {
			_, err := db.ExecContext(t.Context(), query)
			require.NoError(t, err)
		}
		update := func(tx *sql.Tx, id int) {
			_, err := tx.ExecContext(t.Context(), fmt.Sprintf(`UPDATE business SET n = n + 1 WHERE id = %d`, id))
			require.NoError(t, err)
		}
		early, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		update(early, 2) // something else
		other, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		update(other, 1) // the row that the key names
		addTo(t, other, box, "1")
		require.NoError(t, other.Commit())
		update(early, 1)
		addTo(t, early, box, "2")
		require.NoError(t, early.Commit())
		got := drained(t, db, box)
		if s.Name == "xmin-cursor" || s.Name == "created-at" {
			require.Equal(t, []string{"2", "1"}, got, "this one reorders")
		} else {
			require.Equal(t, []string{"1", "2"}, got)
		}
	})
}

// TestOnlyTheXminCursorStallsOnAnotherDatabase: somebody has written something
// in another database of the server, and went for lunch before the commit.
func TestOnlyTheXminCursorStallsOnAnotherDatabase(t *testing.T) {
	t.Parallel()
	underRace(t)
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	admin := openServer(t, "pgx", server.DSN())
	d := outboxtest.Database{Dialect: postgres.Dialect{}, Writers: 4}
	for _, s := range outboxtest.Strategies(d) {
		t.Run(s.Name, func(t *testing.T) {
			dsn, err := url.Parse(server.DSN())
			require.NoError(t, err)
			dsn.Path = createDatabase(t, admin)
			d.Open = func(t testing.TB) *sql.DB { return openServer(t, "pgx", dsn.String()) }
			db, box := newStrategy(t, d, s)
			lunch, err := admin.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			_, err = lunch.ExecContext(t.Context(), `SELECT pg_current_xact_id()`)
			require.NoError(t, err)
			require.NoError(t, beginAdd(t, db, box, "1").Commit())
			got := drained(t, db, box)
			if s.Name == "xmin-cursor" {
				require.Empty(t, got, "this one waits")
				require.NoError(t, lunch.Rollback())
				got = drained(t, db, box)
			} else {
				require.NoError(t, lunch.Rollback())
			}
			require.Equal(t, []string{"1"}, got)
		})
	}
}

// TestOwnerLosesAndReordersNothing, whatever the number of drainers. The others
// at least invent nothing, and none but the cursor loses anything.
func TestOwnerLosesAndReordersNothing(t *testing.T) {
	t.Parallel()
	underRace(t)
	l := outboxtest.Load{Writers: 8, Drainers: 4, Transactions: 60}
	if !thorough {
		l.Transactions = 20
	}
	names := []string{"owner", "rotation"}
	if thorough {
		names = nil
	}
	eachStrategy(t, names, func(t *testing.T, d outboxtest.Database, s outboxtest.Strategy) {
		r := outboxtest.Measure(t, d, s, l)
		t.Logf("%+v", r)
		require.Positive(t, r.Committed)
		require.Zero(t, r.Phantoms, "was rolled back")
		if s.Name != "cursor" || d.Writers == 1 {
			require.Zero(t, r.Lost)
		}
		if s.Name == "owner" || s.Name == "rotation" {
			require.Zero(t, r.Inversions)
			require.Zero(t, r.Duplicates)
		}
	})
}

// TestRotationKeepsWhatIsWrittenWhileItTurns: messages of transactions that were
// open for long are delivered. Until they end their table cannot be emptied, so
// the others grow; then they shrink again.
func TestRotationKeepsWhatIsWrittenWhileItTurns(t *testing.T) {
	t.Parallel()
	underRace(t)
	d := strategyDatabases(t)["postgres"]()
	for _, s := range outboxtest.Strategies(d) {
		if s.Name != "rotation" {
			continue
		}
		db := d.Open(t)
		box, err := s.New(outbox.Options{})
		require.NoError(t, err)
		require.NoError(t, box.Migrate(t.Context(), db))
		open := beginAdd(t, db, box, "open all the while")
		const rounds, each = 8, 5000
		for range rounds {
			addAll(t, db, box, benchMessages(each))
			require.Len(t, drained(t, db, box), each)
		}
		left := func() (n int) {
			require.NoError(t, db.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM strategy_rotation_0)
+ (SELECT count(*) FROM strategy_rotation_1) + (SELECT count(*) FROM strategy_rotation_2)`).Scan(&n))
			return n
		}
		require.NoError(t, open.Commit())
		require.Equal(t, []string{"open all the while"}, drained(t, db, box))
		for range rounds {
			addAll(t, db, box, benchMessages(each))
			require.Len(t, drained(t, db, box), each)
		}
		require.LessOrEqual(t, left(), 3*each)
	}
}
