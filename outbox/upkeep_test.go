package outbox_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// TestUpkeepDoesNotWaitForALock: somebody may read an archive for hours, and all
// messages would wait for the one who clears it.
func TestUpkeepDoesNotWaitForALock(t *testing.T) {
	for _, r := range []outbox.Retention{outbox.Archive, outbox.Rotate} {
		c := new(lockedArchive)
		db := sql.OpenDB(c)
		require.ErrorIs(t, outbox.Upkeep(t.Context(), c, db, r, time.Hour), errLocked)
		require.Equal(t, 1, c.tries)
		require.NoError(t, db.Close())
	}
}

var errLocked = errors.New("locked")

// A lockedArchive is a database of one archive that somebody else holds.
type lockedArchive struct{ tries int }

func (c *lockedArchive) SQL() *dialect.SQL {
	s := *sqlite.Dialect{}.SQL()
	s.PurgeArchive, s.Rotate = "archive", func(int) string { return "archive" }
	s.Busy = func(err error) bool { return errors.Is(err, errLocked) }
	s.Isolation = sql.LevelDefault
	return &s
}

func (c *lockedArchive) Connect(context.Context) (driver.Conn, error) { return c, nil }
func (c *lockedArchive) Driver() driver.Driver                        { return nil }
func (c *lockedArchive) Prepare(string) (driver.Stmt, error)          { return nil, errors.ErrUnsupported }
func (c *lockedArchive) Close() error                                 { return nil }
func (c *lockedArchive) Begin() (driver.Tx, error)                    { return c, nil }
func (c *lockedArchive) Commit() error                                { return nil }
func (c *lockedArchive) Rollback() error                              { return nil }

func (c *lockedArchive) ExecContext(_ context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	if query == "archive" {
		c.tries++
		return nil, errLocked
	}
	return driver.RowsAffected(1), nil
}

func (c *lockedArchive) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return new(oldState), nil
}

// oldState is the row of outbox_state, when it is time to rotate.
type oldState struct{ read bool }

func (r *oldState) Columns() []string { return []string{"epoch", "archive", "since"} }
func (r *oldState) Close() error      { return nil }

func (r *oldState) Next(dest []driver.Value) error {
	if r.read {
		return io.EOF
	}
	r.read = true
	dest[0], dest[1], dest[2] = int64(1), int64(0), (2 * time.Hour).Microseconds()
	return nil
}
