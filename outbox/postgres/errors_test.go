package postgres_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox/postgres"
)

// state is an error as those of pgx and lib/pq: a text, and a method for the code.
type state string

func (s state) Error() string    { return "some text" }
func (s state) SQLState() string { return string(s) }

func TestBusyKnowsTheErrorsOfTheDrivers(t *testing.T) {
	busy := postgres.Dialect{}.SQL().Busy
	for _, err := range []error{
		state("40001"), state("40P01"), state("55P03"), fmt.Errorf("wrapped: %w", state("40001")),
		errors.New("ERROR: deadlock detected (SQLSTATE 40P01)"), // flattened by somebody
	} {
		require.True(t, busy(err), "%v", err)
	}
	for _, err := range []error{
		nil, state("23505"), state("57014"), errors.New("ERROR: relation does not exist (SQLSTATE 42P01)"), errors.New("EOF"),
	} {
		require.False(t, busy(err), "%v", err)
	}
}

func TestExplainSaysWhatToDo(t *testing.T) {
	explain := postgres.Dialect{}.SQL().Explain
	for err, want := range map[error]string{
		state("42P01"): "Migrate",
		state("42501"): "INSERT",
		state("25006"): "primary",
		state("25P02"): "rolled back",
		state("22P05"): "UTF8",
		errors.New("Error 1064 (42000): You have an error in your SQL syntax"):        "dialect",
		errors.New("SQL logic error: no such table: outbox_messages (1)"):             "dialect",
		fmt.Errorf("wrapped: %w", errors.New(`near "ROWS": syntax error`)):            "dialect",
		fmt.Errorf("outbox: add 1 messages: %w", fmt.Errorf("x: %w", state("42P01"))): "search_path",
	} {
		require.Contains(t, explain(err), want, "%v", err)
	}
	for _, err := range []error{nil, state("23505"), errors.New("EOF"), errors.New("context canceled")} {
		require.Empty(t, explain(err), "%v", err)
	}
}
