package sqlite_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// coded is an error as modernc.org/sqlite's: a text, and a method for the code.
type coded int

func (c coded) Error() string { return "some text" }
func (c coded) Code() int     { return int(c) }

func TestBusyKnowsTheErrorsOfTheDrivers(t *testing.T) {
	busy := sqlite.Dialect{}.SQL().Busy
	for _, err := range []error{
		errors.New("sqlite3: database is locked"),                        // github.com/ncruces/go-sqlite3
		errors.New("database is locked (5) (SQLITE_BUSY)"),               // modernc.org/sqlite
		errors.New("database is locked (517) (SQLITE_BUSY_SNAPSHOT)"),    // extended code
		errors.New("sqlite3: database table is locked: outbox_messages"), // shared cache
		fmt.Errorf("outbox: wrapped: %w", errors.New("database is locked")),
		coded(5), coded(6), coded(517), coded(261), fmt.Errorf("wrapped: %w", coded(5)),
	} {
		require.True(t, busy(err), "%v", err)
	}
	for _, err := range []error{
		nil, errors.New("sqlite3: no such table: outbox_messages"), errors.New("disk I/O error"),
		coded(1), coded(13), coded(2067),
	} {
		require.False(t, busy(err), "%v", err)
	}
}

func TestExplainSaysWhatToDo(t *testing.T) {
	explain := sqlite.Dialect{}.SQL().Explain
	require.Contains(t, explain(errors.New("sqlite3: database is locked")), "_txlock=immediate, or begin with sqlite.Begin")
	require.Contains(t, explain(coded(517)), "it has read before")
	require.Contains(t, explain(errors.New("sqlite3: no such table: outbox_messages")), "call Migrate")
	require.Empty(t, explain(errors.New("disk I/O error")))
	require.Empty(t, explain(nil))
}
