package topo_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
	"github.com/evenkeel-go/evenkeel/shard/topo/topotest"
)

// "I have Listen, never poll": five quarters of the longest Poll do not overflow.
func TestALongPollDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		table := tableOver(t, func(context.Context) ([]driver.Value, error) {
			if asked++; asked > 100 {
				cancel()
			}
			return nil, nil
		}, topo.TableOptions{Poll: math.MaxInt64})
		for i := 0; i < 20 && ctx.Err() == nil; i++ {
			c, done := context.WithTimeout(ctx, time.Minute)
			for range table.Watch(c) {
			}
			done()
		}
		require.LessOrEqual(t, asked, 20)
	})
}

// A row with what a new watch knows, epoch -1 and no digest, is no map.
func TestARowThatLooksUnknownIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := tableOver(t, func(context.Context) ([]driver.Value, error) {
			return []driver.Value{int64(-1), "", ""}, nil
		}, topo.TableOptions{})
		w := watch(t, table, time.Minute)
		require.Len(t, w.errors, 1)
		require.ErrorIs(t, w.errors[0], shard.ErrBadMap)
	})
}

// Some drivers call back on a goroutine of their own.
func TestChangedMayComeFromAnyGoroutine(t *testing.T) {
	var calls atomic.Int64
	o := topo.TableOptions{Poll: time.Hour, Listen: func(ctx context.Context, _ string, changed func()) error {
		calls.Add(1)
		go changed() // as the event callback of a listener does
		return errDown
	}}
	db := sql.OpenDB(database(func(context.Context) ([]driver.Value, error) { return nil, nil }))
	defer db.Close()
	table, err := topo.NewTable(db, topo.SQLite, o)
	require.NoError(t, err)
	for _, err := range table.Watch(t.Context()) {
		if errors.Is(err, errDown) && calls.Load() > 3 {
			break
		}
	}
}

// A Listen that connects and breaks at once has failed, although it called changed.
func TestAListenThatBreaksAtOnceBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := topo.TableOptions{Poll: time.Hour, Listen: func(_ context.Context, _ string, changed func()) error {
			changed()
			return errDown
		}}
		asked := 0
		table := tableOver(t, func(context.Context) ([]driver.Value, error) { asked++; return nil, nil }, o)
		w := watch(t, table, time.Minute)
		require.Less(t, len(w.errors), 30)
		require.Less(t, asked, 30)
	})
}

// CREATE TABLE IF NOT EXISTS says nothing of a table of another shape.
type shaped struct{ database }

func (s shaped) Connect(context.Context) (driver.Conn, error) { return shapedConn{}, nil }

type shapedConn struct{ conn }

func (shapedConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return nil, errors.New("no such column: digest")
}

func (shapedConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(0), nil // CREATE TABLE IF NOT EXISTS of one that exists
}

func TestMigrateRefusesATableOfAnotherShape(t *testing.T) {
	db := sql.OpenDB(shaped{})
	defer db.Close()
	table, err := topo.NewTable(db, topo.SQLite, topo.TableOptions{})
	require.NoError(t, err)
	require.Error(t, table.Migrate(t.Context()))
}

// The victim of a deadlock may be back before the winner has committed.
type deadlocks struct{ left *int }

func (d deadlocks) Connect(context.Context) (driver.Conn, error) {
	return deadlockConn{left: d.left}, nil
}
func (d deadlocks) Driver() driver.Driver { return nil }

type deadlockConn struct {
	conn
	left *int
}

func (deadlockConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return &rows{}, nil
}

func (c deadlockConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	if *c.left > 0 {
		*c.left--
		return nil, fmt.Errorf("Error 1213 (40001): Deadlock found; try restarting transaction")
	}
	return driver.RowsAffected(1), nil
}

func TestPublishSurvivesADeadlock(t *testing.T) {
	left := 1
	db := sql.OpenDB(deadlocks{&left})
	defer db.Close()
	table, err := topo.NewTable(db, topo.MySQL, topo.TableOptions{})
	require.NoError(t, err)
	require.NoError(t, table.Publish(t.Context(), topotest.NewMap(t, 1, 2, "db")))
}

// What a question answers after the end of the context is not said.
func TestAWatchYieldsNothingAfterItsEnd(t *testing.T) {
	for range 300 {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			o := topo.TableOptions{Poll: time.Hour, Listen: func(ctx context.Context, _ string, changed func()) error {
				time.Sleep(time.Second)
				return errDown
			}}
			table := tableOver(t, func(context.Context) ([]driver.Value, error) { return nil, nil }, o)
			ended := false
			for range table.Watch(ctx) {
				require.False(t, ended, "yielded after the end")
				time.Sleep(3 * time.Second) // while listen ends
				cancel()
				ended = true
			}
		})
	}
}

func TestLeastPollsAreTaken(t *testing.T) {
	t.Parallel()
	_, err := topo.NewTable(new(sql.DB), topo.SQLite, topo.TableOptions{Poll: 10 * time.Millisecond})
	require.NoError(t, err)
	_, err = topo.NewFile("x", topo.FileOptions{Poll: time.Millisecond})
	require.NoError(t, err)
}

// A Listen that has worked for long is called again soon after it breaks.
func TestListenBacksOffAndForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pauses []time.Duration
		last := time.Now()
		o := topo.TableOptions{Poll: 1000 * time.Hour, Listen: func(ctx context.Context, _ string, changed func()) error {
			pauses = append(pauses, time.Since(last))
			defer func() { last = time.Now() }()
			if len(pauses) == 10 {
				changed()
				time.Sleep(time.Hour)
			}
			return errDown
		}}
		table := tableOver(t, func(context.Context) ([]driver.Value, error) { return nil, nil }, o)
		watch(t, table, 2*time.Hour)
		require.Greater(t, pauses[9], 3*time.Second)
		require.Less(t, pauses[10], 130*time.Millisecond)
	})
}

// A context that ends while Publish waits to try again is what it says.
func TestPublishSaysThatItsContextEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{rows: map[string][3]driver.Value{}, ignored: 1000}
		table := m.table(t, "a")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, table.Publish(ctx, topotest.NewMap(t, 1, 2, "db")), context.DeadlineExceeded)
	})
}

// Whoever is told need not ask often; whoever is not, does.
func TestPollsAreRareWithAListen(t *testing.T) {
	for _, listen := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			var o topo.TableOptions
			if listen {
				o.Listen = func(ctx context.Context, _ string, _ func()) error { <-ctx.Done(); return ctx.Err() }
			}
			watch(t, tableOver(t, func(context.Context) ([]driver.Value, error) { asked++; return nil, nil }, o), time.Hour)
			if listen {
				require.InDelta(t, 60, asked, 15)
			} else {
				require.InDelta(t, 3600, asked, 200)
			}
		})
	}
}
