package topo_test

import (
	"database/sql"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
	"github.com/evenkeel-go/evenkeel/shard/topo/topotest"
)

// place is a keyspace of a table of the test's own.
func (d database) place(t testing.TB, dsn string) topotest.Place {
	db := d.db(t, dsn)
	o := topo.TableOptions{Name: tableOf(t), Keyspace: `it's "main"`, Poll: poll}
	where := ` WHERE keyspace = 'it''s "main"'`
	change := func(t testing.TB, query string, args ...any) {
		if d.dialect == topo.PostgreSQL {
			for i := range args {
				query = strings.Replace(query, "?", fmt.Sprint("$", i+1), 1)
			}
		}
		execute(t, db, query+where, args...)
	}
	p := topotest.Place{
		Open: func(t testing.TB) topo.Store { return d.table(t, db, o) },
		Neighbor: func(t testing.TB) topo.Store {
			near := o
			near.Keyspace = `it's "Main"` // which another collation takes for the same
			return d.table(t, db, near)
		},
		Corrupt: func(t testing.TB, text string) {
			change(t, `UPDATE `+o.Name+` SET epoch = epoch + 1, document = ?`, text)
		},
		Restore: func(t testing.TB, text string) {
			var old shard.Map
			require.NoError(t, old.UnmarshalJSON([]byte(text)))
			change(t, `UPDATE `+o.Name+` SET epoch = ?, digest = ?, document = ?`, int64(old.Epoch()), fmt.Sprintf("%016x", old.Digest()), text)
		},
		Delete: func(t testing.TB) { change(t, `DELETE FROM `+o.Name) },
		Where:  fmt.Sprintf("table %s, keyspace %q", o.Name, o.Keyspace),
	}
	p.Block = func(t testing.TB) func() { return d.blocked(t, dsn, o.Name) }
	if d.dialect == topo.SQLite {
		p.Publishers = 4
	}
	return p
}

// blocked lets nobody at the table, from a connection of its own.
func (d database) blocked(t testing.TB, dsn, table string) (unblock func()) {
	c, err := d.db(t, dsn).Conn(soon(t))
	require.NoError(t, err)
	for _, statement := range d.block {
		_, err = c.ExecContext(soon(t), strings.ReplaceAll(statement, "{table}", table))
		require.NoError(t, err)
	}
	return func() {
		_, err := c.ExecContext(soon(t), d.unblock)
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	for name, d := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := ""
			if d.dialect != topo.SQLite {
				server = d.dsn(t)
			}
			dsn := func(t testing.TB) string { // of a server for all, of a file for each
				if d.dialect == topo.SQLite {
					return d.dsn(t)
				}
				return server
			}
			t.Run("suite", func(t *testing.T) {
				t.Parallel()
				topotest.Run(t, func(t testing.TB) topotest.Place { return d.place(t, dsn(t)) })
			})
			for _, part := range []struct {
				name string
				f    func(t *testing.T, d database, db *sql.DB)
			}{
				{"migrate concurrently", migrateConcurrently},
				{"no table", noTable},
				{"epochs that a table cannot hold", epochsTooHigh},
				{"columns that disagree", columnsDisagree},
				{"a damaged document is repaired", damagedDocumentIsRepaired},
				{"a restored backup is not followed", restoredBackupIsNotFollowed},
				{"a deleted map stays in use", deletedMap},
				{"names that SQL knows", namesThatSQLKnows},
				{"strict isolation", strictIsolation},
			} {
				t.Run(part.name, func(t *testing.T) {
					t.Parallel()
					part.f(t, d, d.db(t, dsn(t)))
				})
			}
		})
	}
}

func migrateConcurrently(t *testing.T, d database, db *sql.DB) {
	table, err := topo.NewTable(db, d.dialect, topo.TableOptions{Name: tableOf(t)})
	require.NoError(t, err)
	var all sync.WaitGroup
	failed := make(chan error, 8)
	for range cap(failed) {
		all.Go(func() { failed <- table.Migrate(soon(t)) })
	}
	all.Wait()
	for range cap(failed) {
		require.NoError(t, <-failed)
	}
	execute(t, db, `DROP TABLE `+tableOf(t))
	execute(t, db, table.Schema())
	require.NoError(t, table.Migrate(soon(t)))
	require.NoError(t, table.Publish(soon(t), topotest.NewMap(t, 1, 2, "db")))
	require.NoError(t, table.Migrate(soon(t)), "it leaves the rows alone")
	_, err = table.Load(soon(t))
	require.NoError(t, err)
	require.Zero(t, db.Stats().InUse)
}

// The error of the database is not mistaken for "no map", and the watch goes on.
func noTable(t *testing.T, d database, db *sql.DB) {
	table, err := topo.NewTable(db, d.dialect, topo.TableOptions{Name: tableOf(t), Poll: poll})
	require.NoError(t, err)
	_, err = table.Load(soon(t))
	require.Error(t, err)
	require.NotErrorIs(t, err, topo.ErrNoMap)
	require.Error(t, table.Publish(soon(t), topotest.NewMap(t, 1, 2, "db")))
	w := topotest.Watch(t, table)
	for range 3 {
		require.NotErrorIs(t, w.AnyError(), topo.ErrNoMap)
	}
	require.NoError(t, table.Migrate(soon(t)))
	require.NoError(t, table.Publish(soon(t), topotest.NewMap(t, 1, 2, "db")))
	w.Until(1)
}

func epochsTooHigh(t *testing.T, d database, db *sql.DB) {
	table := d.table(t, db, topo.TableOptions{Name: tableOf(t)})
	for _, epoch := range []uint64{math.MaxInt64 + 1, math.MaxUint64} {
		err := table.Publish(soon(t), topotest.NewMap(t, epoch, 2, "db"))
		require.ErrorIs(t, err, shard.ErrBadMap)
		require.ErrorContains(t, err, fmt.Sprint(epoch))
		require.ErrorContains(t, err, "9223372036854775807")
	}
	_, err := table.Load(soon(t))
	require.ErrorIs(t, err, topo.ErrNoMap)
}

// A row whose columns were changed by hand is refused, and a higher epoch goes over it.
func columnsDisagree(t *testing.T, d database, db *sql.DB) {
	table := d.table(t, db, topo.TableOptions{Name: tableOf(t), Poll: poll})
	w := topotest.Watch(t, table)
	require.NoError(t, table.Publish(soon(t), topotest.NewMap(t, 1, 2, "db")))
	w.Until(1)
	epoch := uint64(1)
	for _, set := range []string{"epoch = epoch + 1", "digest = 'x'", "epoch = -1", "epoch = -1, digest = ''"} {
		w.Errors()
		execute(t, db, `UPDATE `+tableOf(t)+` SET `+set)
		_, err := table.Load(soon(t))
		require.ErrorIs(t, err, shard.ErrBadMap, set)
		w.UntilError(shard.ErrBadMap)
		epoch += 2
		require.NoError(t, table.Publish(soon(t), topotest.NewMap(t, epoch, 2, "db")))
		w.Until(epoch)
	}
}

// The same map again puts a document right whose columns still say what it was.
func damagedDocumentIsRepaired(t *testing.T, d database, db *sql.DB) {
	table := d.table(t, db, topo.TableOptions{Name: tableOf(t), Poll: poll})
	m := topotest.NewMap(t, 1, 2, "db")
	require.NoError(t, table.Publish(soon(t), m))
	execute(t, db, `UPDATE `+tableOf(t)+` SET document = 'garbage'`)
	w := topotest.Watch(t, table)
	w.UntilError(shard.ErrBadMap)
	require.ErrorIs(t, table.Publish(soon(t), topotest.NewMap(t, 1, 2, "other")), shard.ErrSplitBrain)
	require.ErrorIs(t, table.Publish(soon(t), topotest.NewMap(t, 0, 2, "db")), shard.ErrStaleMap)
	require.NoError(t, table.Publish(soon(t), m))
	w.Until(1)
	got, err := table.Load(soon(t))
	require.NoError(t, err)
	require.Equal(t, m.Digest(), got.Digest())
}

// A watcher keeps the newest map when the table goes back, and is told once.
func restoredBackupIsNotFollowed(t *testing.T, d database, db *sql.DB) {
	table := d.table(t, db, topo.TableOptions{Name: tableOf(t), Poll: poll})
	w := topotest.Watch(t, table)
	for epoch := uint64(1); epoch <= 2; epoch++ {
		if epoch == 2 {
			execute(t, db, `CREATE TABLE `+tableOf(t)+`_backup AS SELECT * FROM `+tableOf(t))
		}
		require.NoError(t, table.Publish(soon(t), topotest.NewMap(t, epoch, 2, "db")))
		w.Until(epoch)
	}
	w.Errors()
	execute(t, db, `DELETE FROM `+tableOf(t))
	execute(t, db, `INSERT INTO `+tableOf(t)+` SELECT * FROM `+tableOf(t)+`_backup`)
	require.ErrorContains(t, w.UntilError(shard.ErrStaleMap), tableOf(t))
	got, err := table.Load(soon(t))
	require.NoError(t, err)
	require.Equal(t, uint64(1), got.Epoch(), "it says what the table says")
	require.NoError(t, table.Publish(soon(t), topotest.NewMap(t, 2, 4, "of another history")))
	w.UntilError(shard.ErrSplitBrain)
	require.NoError(t, table.Publish(soon(t), topotest.NewMap(t, 3, 4, "db")))
	w.Until(3)
	require.Empty(t, w.Maps())
}

func deletedMap(t *testing.T, d database, db *sql.DB) {
	table := d.table(t, db, topo.TableOptions{Name: tableOf(t), Poll: poll})
	require.NoError(t, table.Publish(soon(t), topotest.NewMap(t, 7, 2, "db")))
	w := topotest.Watch(t, table)
	w.Until(7)
	execute(t, db, `DELETE FROM `+tableOf(t))
	w.UntilError(topo.ErrNoMap)
	require.NoError(t, table.Publish(soon(t), topotest.NewMap(t, 8, 2, "db")))
	w.Until(8)
}

func namesThatSQLKnows(t *testing.T, d database, db *sql.DB) {
	table := d.table(t, db, topo.TableOptions{Name: "select"})
	require.NoError(t, table.Publish(soon(t), topotest.NewMap(t, 1, 2, "db")))
	_, err := table.Load(soon(t))
	require.NoError(t, err)
	schema := map[topo.Dialect]string{topo.PostgreSQL: "public", topo.MySQL: "", topo.SQLite: "main"}[d.dialect]
	if d.dialect == topo.MySQL {
		require.NoError(t, db.QueryRowContext(soon(t), `SELECT DATABASE()`).Scan(&schema))
	}
	qualified := d.table(t, db, topo.TableOptions{Name: schema + ".select"})
	got, err := qualified.Load(soon(t))
	require.NoError(t, err)
	require.Equal(t, uint64(1), got.Epoch())
}

// The sessions' level of isolation does not matter.
func strictIsolation(t *testing.T, d database, db *sql.DB) {
	if set := map[topo.Dialect]string{
		topo.PostgreSQL: `SET default_transaction_isolation = 'serializable'`,
		topo.MySQL:      `SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE`,
	}[d.dialect]; set != "" {
		db.SetMaxOpenConns(4)
		db.SetMaxIdleConns(4)
		var all [4]*sql.Conn
		for i := range all {
			var err error
			all[i], err = db.Conn(soon(t))
			require.NoError(t, err)
			_, err = all[i].ExecContext(soon(t), set)
			require.NoError(t, err)
		}
		for _, c := range all {
			require.NoError(t, c.Close())
		}
	}
	table := d.table(t, db, topo.TableOptions{Name: tableOf(t)})
	for epoch := range uint64(20) {
		var results [4]error
		var done sync.WaitGroup
		for i := range results {
			m := topotest.NewMap(t, epoch, 2, fmt.Sprint("of publisher ", i))
			done.Go(func() { results[i] = table.Publish(soon(t), m) })
		}
		done.Wait()
		got, err := table.Load(soon(t))
		require.NoError(t, err)
		require.Equal(t, epoch, got.Epoch())
		for i, err := range results {
			if got.Lookup(0).Node == fmt.Sprint("of publisher ", i) {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, shard.ErrSplitBrain)
			}
		}
	}
}
