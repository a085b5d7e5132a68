package topo_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/pgxtopo"
	"github.com/evenkeel-go/evenkeel/shard/topo"
	"github.com/evenkeel-go/evenkeel/shard/topo/topotest"
)

// listening are options with notifications, and polls that no test lives to see.
func listening(t testing.TB, dsn string) topo.TableOptions {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	listen, err := pgxtopo.Listen(config)
	require.NoError(t, err)
	return topo.TableOptions{Name: tableOf(t), Listen: listen, Poll: 1000 * time.Hour}
}

// A watch of a database goes on after a crash and after a pause of the server.
func TestPostgresOutage(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]func(testing.TB, string) topo.TableOptions{
		"polled":   func(t testing.TB, _ string) topo.TableOptions { return topo.TableOptions{Name: tableOf(t), Poll: poll} },
		"notified": listening,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := databases["postgres"]
			server := testserver.StartPostgres(t, testserver.PostgresOptions{})
			table := d.table(t, d.db(t, server.DSN()), options(t, server.DSN()))
			require.NoError(t, table.Publish(soon(t), topotest.NewMap(t, 1, 2, "db")))
			w := topotest.Watch(t, table)
			w.Until(1)

			server.Kill()
			w.AnyError()
			_, err := table.Load(soon(t))
			require.Error(t, err)
			require.NotErrorIs(t, err, topo.ErrNoMap)
			require.Error(t, table.Publish(soon(t), topotest.NewMap(t, 2, 2, "db")))
			server.Restart(t)
			publishAtLast(t, table, topotest.NewMap(t, 3, 2, "db"))
			w.Until(3)

			server.Pause()
			requireBlockedCallsEnd(t, table)
			server.Resume()
			publishAtLast(t, table, topotest.NewMap(t, 10, 2, "db"))
			w.Until(10)
		})
	}
}

// publishAtLast publishes once the pool has found the server again.
func publishAtLast(t testing.TB, s topo.Store, m *shard.Map) {
	t.Helper()
	ctx := soon(t)
	for {
		err := s.Publish(ctx, m)
		if err == nil {
			return
		}
		require.NoError(t, ctx.Err(), err)
	}
}

// requireBlockedCallsEnd cancels calls to a server that accepts connections and is silent.
func requireBlockedCallsEnd(t testing.TB, s topo.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 3)
	go func() { _, err := s.Load(ctx); ended <- err }()
	go func() { ended <- s.Publish(ctx, topotest.NewMap(t, 4, 2, "db")) }()
	go func() {
		for range s.Watch(ctx) { //nolint:revive // until it ends
		}
		ended <- ctx.Err()
	}()
	within, done := contextWithin(t, 100*time.Millisecond)
	_, err := s.Load(within)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	done()
	require.Empty(t, ended, "the server is silent")
	cancel()
	for range cap(ended) {
		select {
		case err := <-ended:
			require.ErrorIs(t, err, context.Canceled)
		case <-time.After(patience):
			t.Fatal("it does not end")
		}
	}
}

// Notifications come without a poll: to watchers that began before the first map, for
// each keyspace, and after the connection that listened was ended.
func TestPostgresNotifies(t *testing.T) {
	t.Parallel()
	d := databases["postgres"]
	dsn := d.dsn(t)
	db := d.db(t, dsn)
	o := listening(t, dsn)
	a := d.table(t, db, o)
	o.Keyspace = "another"
	b := d.table(t, db, o)
	wa, wb := topotest.Watch(t, a), topotest.Watch(t, b)
	wa.UntilError(topo.ErrNoMap)
	for epoch := range uint64(10) {
		require.NoError(t, a.Publish(soon(t), topotest.NewMap(t, epoch, 2, "a")))
		require.NoError(t, b.Publish(soon(t), topotest.NewMap(t, epoch, 4, "b")))
		require.Equal(t, 2, wa.Until(epoch).Len())
		require.Equal(t, 4, wb.Until(epoch).Len())
	}
	execute(t, db, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND pid <> pg_backend_pid()`)
	require.NoError(t, a.Publish(soon(t), topotest.NewMap(t, 20, 2, "a"))) // while nobody listens, most likely
	require.ErrorContains(t, wa.AnyError(), "listen")
	wa.Until(20)
	require.NoError(t, a.Publish(soon(t), topotest.NewMap(t, 21, 2, "a")))
	wa.Until(21)
	wa.Stop()
	wb.Stop()
	var left int
	ctx := soon(t)
	for left = 1; left > 0 && ctx.Err() == nil; { // the server takes a moment to notice
		require.NoError(t, db.QueryRowContext(ctx, `SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND pid <> pg_backend_pid()`).Scan(&left))
	}
	require.Zero(t, left, "connections that listen")
}

// What Publish did not change is not notified.
func TestPostgresNotifiesOfChangesOnly(t *testing.T) {
	t.Parallel()
	d := databases["postgres"]
	dsn := d.dsn(t)
	db := d.db(t, dsn)
	table := d.table(t, db, topo.TableOptions{Name: tableOf(t), Keyspace: "it's"})
	c, err := pgx.Connect(soon(t), dsn)
	require.NoError(t, err)
	defer func() { _ = c.Close(t.Context()) }()
	_, err = c.Exec(soon(t), `LISTEN `+tableOf(t))
	require.NoError(t, err)
	one := topotest.NewMap(t, 1, 2, "db")
	require.NoError(t, table.Publish(soon(t), one))
	require.NoError(t, table.Publish(soon(t), one))
	require.Error(t, table.Publish(soon(t), topotest.NewMap(t, 0, 2, "db")))
	require.Error(t, table.Publish(soon(t), topotest.NewMap(t, 1, 2, "other")))
	require.NoError(t, table.Publish(soon(t), topotest.NewMap(t, 2, 2, "db")))
	execute(t, db, `SELECT pg_notify($1, 'the last')`, tableOf(t))
	for _, payload := range []string{"it's", "it's", "the last"} {
		n, err := c.WaitForNotification(soon(t))
		require.NoError(t, err)
		require.Equal(t, payload, n.Payload)
	}
}

// A process that starts while the source is down runs from the file, and takes what was
// published when the source is back.
func TestStartWithoutTheSource(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "shards.json")
	cached := func(s topo.Store) *topo.Cached {
		file, err := topo.NewFile(path, topo.FileOptions{})
		require.NoError(t, err)
		c, err := topo.NewCached(s, file, topo.CachedOptions{})
		require.NoError(t, err)
		return c
	}
	d := databases["postgres"]
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	table := d.table(t, d.db(t, server.DSN()), listening(t, server.DSN()))
	require.NoError(t, table.Publish(soon(t), topotest.NewMap(t, 7, 4, "db")))
	_, err := cached(table).Load(soon(t)) // of the process that ran before
	require.NoError(t, err)

	for name, outage := range map[string]struct{ begin, end func() }{
		"crash": {server.Kill, func() { server.Restart(t) }},
		"pause": {func() { server.Pause() }, func() { server.Resume() }},
	} {
		outage.begin()
		file, err := topo.NewFile(path, topo.FileOptions{})
		require.NoError(t, err)
		before, err := file.Load(soon(t))
		require.NoError(t, err)
		restarted := d.newTable(t, server.DSN())
		m, err := cached(restarted).Load(soon(t))
		require.NoError(t, err, name)
		require.Equal(t, before.Digest(), m.Digest())
		w := topotest.Watch(t, cached(restarted))
		require.Equal(t, before.Epoch(), w.Until(before.Epoch()).Epoch())
		outage.end()
		publishAtLast(t, table, topotest.NewMap(t, m.Epoch()+1, 4, name))
		w.Until(m.Epoch() + 1)
		waitForFile(t, file, m.Epoch()+1)
		w.Stop()
	}
}

// newTable is a table of a new pool, which may have no server.
func (d database) newTable(t testing.TB, dsn string) *topo.Table {
	t.Helper()
	table, err := topo.NewTable(d.db(t, dsn), d.dialect, listening(t, dsn))
	require.NoError(t, err)
	return table
}

// waitForFile waits until the file has the epoch: a watch writes it after it yields.
func waitForFile(t testing.TB, file *topo.File, epoch uint64) {
	t.Helper()
	for m, err := range file.Watch(soon(t)) {
		require.NoError(t, err)
		if m.Epoch() == epoch {
			return
		}
	}
	t.Fatal(errors.New("the file is behind"))
}
