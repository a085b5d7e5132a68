//go:build unix

package topo_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
	"github.com/evenkeel-go/evenkeel/shard/topo/topotest"
)

// What a Table does with databases is tested in internal/integration/topo. Here it is when
// it asks, in virtual time, of a database that is a function.

// database answers each query with a row, or nil for none, or an error.
type database func(ctx context.Context) ([]driver.Value, error)

func (d database) Connect(context.Context) (driver.Conn, error) { return conn{d}, nil }
func (d database) Driver() driver.Driver                        { return nil }

type conn struct{ answer database }

func (c conn) Prepare(string) (driver.Stmt, error) { return nil, errors.ErrUnsupported }
func (c conn) Begin() (driver.Tx, error)           { return nil, errors.ErrUnsupported }
func (c conn) Close() error                        { return nil }

func (c conn) QueryContext(ctx context.Context, _ string, _ []driver.NamedValue) (driver.Rows, error) {
	row, err := c.answer(ctx)
	return &rows{row}, err
}

type rows struct{ row []driver.Value }

func (r *rows) Columns() []string { return []string{"epoch", "digest", "document"} }
func (r *rows) Close() error      { return nil }
func (r *rows) Next(dest []driver.Value) error {
	if r.row == nil {
		return io.EOF
	}
	copy(dest, r.row)
	r.row = nil
	return nil
}

// tableOver opens a table over a database that answers by d, in a bubble.
func tableOver(t *testing.T, d database, o topo.TableOptions) *topo.Table {
	t.Helper()
	db := sql.OpenDB(d)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	table, err := topo.NewTable(db, topo.SQLite, o)
	require.NoError(t, err)
	return table
}

func TestNewTableRefusesOptions(t *testing.T) {
	t.Parallel()
	db := new(sql.DB)
	_, err := topo.NewTable(nil, topo.PostgreSQL, topo.TableOptions{})
	require.ErrorContains(t, err, "db is nil")
	for _, d := range []topo.Dialect{0, -1, topo.SQLite + 1} {
		_, err = topo.NewTable(db, d, topo.TableOptions{})
		require.ErrorContains(t, err, "dialect")
	}
	for _, name := range []string{
		"a-b", "1a", "a b", `a"`, "a`", "a;", "a.b.c", ".a", "a.", " a", "a\n", "a\x00", "ä", "a'", "(a)", strings.Repeat("a", 64),
	} {
		_, err = topo.NewTable(db, topo.PostgreSQL, topo.TableOptions{Name: name})
		require.ErrorContains(t, err, "TableOptions.Name", name)
	}
	for _, keyspace := range []string{"\xff", "a\x00b", strings.Repeat("a", 256)} {
		_, err = topo.NewTable(db, topo.PostgreSQL, topo.TableOptions{Keyspace: keyspace})
		require.ErrorContains(t, err, "TableOptions.Keyspace")
	}
	for _, poll := range []time.Duration{-1, time.Millisecond} {
		_, err = topo.NewTable(db, topo.PostgreSQL, topo.TableOptions{Poll: poll})
		require.ErrorContains(t, err, "TableOptions.Poll is "+poll.String()+", expected")
	}
	for _, d := range []topo.Dialect{topo.PostgreSQL, topo.MySQL, topo.SQLite} {
		table, err := topo.NewTable(db, d, topo.TableOptions{Name: "app.maps", Keyspace: "it's"})
		require.NoError(t, err)
		require.Regexp(t, "^CREATE TABLE IF NOT EXISTS [`\"]app[`\"].[`\"]maps[`\"] ", table.Schema())
	}
}

// A watch asks once a poll, give or take a quarter, and a fleet that starts together does
// not stay in step.
func TestTableWatchPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []time.Duration
		start := time.Now()
		table := tableOver(t, func(context.Context) ([]driver.Value, error) {
			asked = append(asked, time.Since(start))
			return nil, nil
		}, topo.TableOptions{Poll: time.Minute})
		w := watch(t, table, 10*time.Hour)
		require.Len(t, w.errors, 1, "that there is none is said once")
		require.ErrorIs(t, w.errors[0], topo.ErrNoMap)
		pauses := map[time.Duration]bool{}
		for i := range asked[1:] {
			pause := asked[i+1] - asked[i]
			require.GreaterOrEqual(t, pause, 45*time.Second)
			require.LessOrEqual(t, pause, 75*time.Second)
			pauses[pause] = true
		}
		require.Zero(t, asked[0])
		require.InDelta(t, 600, len(asked), 60)
		require.Greater(t, len(pauses), 500)
	})
}

// A database that is down is asked after pauses that double from 0.1 s to 5 s, whatever the
// poll; one that answers, by the poll again.
func TestTableWatchBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []time.Duration
		last := time.Now()
		table := tableOver(t, func(context.Context) ([]driver.Value, error) {
			asked = append(asked, time.Since(last))
			last = time.Now()
			if len(asked) == 12 {
				return nil, nil
			}
			return nil, errDown
		}, topo.TableOptions{Poll: time.Hour})
		w := watch(t, table, 90*time.Minute)
		require.ErrorIs(t, w.errors[0], errDown)
		want := 100 * time.Millisecond
		for i, pause := range asked[1:14] {
			if i == 11 {
				want = time.Hour
			} else if i == 12 {
				want = 100 * time.Millisecond
			}
			require.InDelta(t, want, pause, float64(want)/4+1, "pause %d", i)
			if want < time.Hour {
				want = min(2*want, 5*time.Second)
			}
		}
	})
}

// A database that never answers is given up after 10 s, and asked again.
func TestTableWatchGivesUpASilentDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		table := tableOver(t, func(ctx context.Context) ([]driver.Value, error) {
			asked++
			<-ctx.Done()
			return nil, errDown // as a driver that does not say why
		}, topo.TableOptions{})
		w := watch(t, table, time.Minute)
		require.InDelta(t, 5, asked, 1)
		require.ErrorIs(t, w.errors[0], context.DeadlineExceeded)
		require.ErrorIs(t, w.errors[0], errDown)
	})
}

// Listen wakes the watch, as often as it says so; when it ends the watch says why and calls
// it again after a pause; and it ends with the watch.
func TestTableWatchListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, listening atomic.Int64
		calls := 0
		o := topo.TableOptions{Poll: 1000 * time.Hour, Listen: func(ctx context.Context, channel string, changed func()) error {
			listening.Add(1)
			defer listening.Add(-1)
			require.Equal(t, "shard_maps", channel)
			calls++
			for range 3 {
				select {
				case <-time.After(time.Minute):
				case <-ctx.Done():
					return ctx.Err()
				}
				changed()
			}
			if calls%2 == 0 {
				return nil
			}
			return errDown
		}}
		table := tableOver(t, func(context.Context) ([]driver.Value, error) { asked.Add(1); return nil, nil }, o)
		w := watch(t, table, 30*time.Minute+time.Second*30)
		require.Equal(t, int64(1+30), asked.Load(), "at first, and each minute")
		require.Zero(t, listening.Load(), "it has ended with the watch")
		require.Len(t, w.errors, 1+10)
		require.ErrorIs(t, w.errors[1], errDown)
		require.ErrorContains(t, w.errors[1], "listen")
		require.ErrorContains(t, w.errors[2], "ended of itself")
	})
}

// A newer map is asked for once, and not again while it stays.
func TestTableWatchReadsAMapOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := topotest.NewMap(t, 3, 2, "db")
		text, err := m.MarshalJSON()
		require.NoError(t, err)
		table := tableOver(t, func(context.Context) ([]driver.Value, error) {
			return []driver.Value{int64(3), digestOf(m), string(text)}, nil
		}, topo.TableOptions{})
		w := watch(t, table, time.Hour)
		require.Equal(t, []uint64{3}, w.epochs)
		require.Empty(t, w.errors)
	})
}

func digestOf(m *shard.Map) string { return fmt.Sprintf("%016x", m.Digest()) }
