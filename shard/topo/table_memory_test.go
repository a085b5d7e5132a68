package topo_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
	"github.com/evenkeel-go/evenkeel/shard/topo/topotest"
)

// memory is a database that knows the statements of a Table: it lets the suite of stores
// and the oracle of damaged rows run without a server.
type memory struct {
	mu   sync.Mutex
	rows map[string][3]driver.Value // epoch, digest, document
	// ignored is how many writes change nothing and do not say why.
	ignored int
}

func (m *memory) Connect(context.Context) (driver.Conn, error) { return memoryConn{m}, nil }
func (m *memory) Driver() driver.Driver                        { return nil }

type memoryConn struct{ *memory }

func (memoryConn) Prepare(string) (driver.Stmt, error) { return nil, errors.ErrUnsupported }
func (memoryConn) Begin() (driver.Tx, error)           { return nil, errors.ErrUnsupported }
func (memoryConn) Close() error                        { return nil }

func (c memoryConn) QueryContext(ctx context.Context, _ string, args []driver.NamedValue) (driver.Rows, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.rows[fmt.Sprint(args[2].Value)]
	if !ok {
		return &rows{}, ctx.Err()
	}
	if r[0] == args[0].Value && r[1] == args[1].Value {
		r[2] = ""
	}
	return &rows{r[:]}, ctx.Err()
}

func (c memoryConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ignored > 0 {
		c.ignored--
		return driver.RowsAffected(0), nil
	}
	key := fmt.Sprint(args[3].Value)
	old, ok := c.rows[key]
	next := [3]driver.Value{args[0].Value, args[1].Value, args[2].Value}
	switch {
	case strings.HasPrefix(query, "INSERT") && ok:
		return nil, errors.New("duplicate key")
	case strings.HasPrefix(query, "UPDATE") && (!ok || old[0] != args[4].Value || old[1] != args[5].Value):
		return driver.RowsAffected(0), nil
	}
	c.rows[key] = next
	return driver.RowsAffected(1), nil
}

func (m *memory) table(t testing.TB, keyspace string) *topo.Table {
	db := sql.OpenDB(m)
	t.Cleanup(func() { _ = db.Close() })
	table, err := topo.NewTable(db, topo.SQLite, topo.TableOptions{Keyspace: keyspace, Poll: 10 * time.Millisecond})
	require.NoError(t, err)
	return table
}

func (m *memory) set(key string, f func(r *[3]driver.Value)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.rows[key]
	f(&r)
	m.rows[key] = r
}

func TestTableIsAStore(t *testing.T) {
	t.Parallel()
	topotest.Run(t, func(t testing.TB) topotest.Place {
		m := &memory{rows: map[string][3]driver.Value{}}
		return topotest.Place{
			Open:     func(t testing.TB) topo.Store { return m.table(t, "a") },
			Neighbor: func(t testing.TB) topo.Store { return m.table(t, "A") },
			Corrupt: func(_ testing.TB, text string) {
				m.set("a", func(r *[3]driver.Value) { r[0], r[2] = r[0].(int64)+1, text })
			},
			Restore: func(t testing.TB, text string) {
				var old shard.Map
				require.NoError(t, old.UnmarshalJSON([]byte(text)))
				m.set("a", func(r *[3]driver.Value) { *r = [3]driver.Value{int64(old.Epoch()), digestOf(&old), text} })
			},
			Delete: func(testing.TB) {
				m.mu.Lock()
				defer m.mu.Unlock()
				delete(m.rows, "a")
			},
			Where: `table shard_maps, keyspace "a"`,
		}
	})
}

func TestTableRowsThatDisagree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{rows: map[string][3]driver.Value{}}
		table, ctx := m.table(t, "a"), t.Context()
		one := topotest.NewMap(t, 1, 2, "db")
		require.NoError(t, table.Publish(ctx, one))
		w := topotest.Watch(t, table)
		w.Until(1)
		m.set("a", func(r *[3]driver.Value) { r[1] = "x" })
		require.ErrorIs(t, w.UntilError(shard.ErrBadMap), shard.ErrBadMap)
		_, err := table.Load(ctx)
		require.ErrorIs(t, err, shard.ErrBadMap)
		// Back to what it was, and then damaged again: the watch reads what it knew before.
		m.set("a", func(r *[3]driver.Value) { r[1] = digestOf(one); r[2] = "garbage" })
		w.UntilError(shard.ErrBadMap)
		require.NoError(t, table.Publish(ctx, one), "which repairs it")
		got, err := table.Load(ctx)
		require.NoError(t, err)
		require.Equal(t, one.Digest(), got.Digest())
	})
}

// Writes that are ignored end in an error, and never in a success or a loop.
func TestTablePublishInAPlaceThatIgnoresIt(t *testing.T) {
	t.Parallel()
	m := &memory{rows: map[string][3]driver.Value{}, ignored: 1000}
	require.ErrorContains(t, m.table(t, "a").Publish(t.Context(), topotest.NewMap(t, 1, 2, "db")), "does not change")
	require.Greater(t, m.ignored, 900)
}
