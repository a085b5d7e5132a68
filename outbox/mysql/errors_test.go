package mysql_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox/mysql"
)

func TestBusyKnowsTheErrorsOfTheServer(t *testing.T) {
	busy := mysql.Dialect{}.SQL().Busy
	for _, err := range []error{
		errors.New("Error 1213 (40001): Deadlock found when trying to get lock; try restarting transaction"), // github.com/go-sql-driver/mysql
		errors.New("ERROR 1213 (40001): Deadlock found when trying to get lock; try restarting transaction"), // github.com/go-mysql-org/go-mysql
		errors.New("Error 1205 (HY000): Lock wait timeout exceeded; try restarting transaction"),
		errors.New("Error 1020 (HY000): Record has changed since last read in table 'outbox_messages'"),
		fmt.Errorf("wrapped: %w", errors.New("Error 1213 (40001): Deadlock found")),
		errors.New("Error 1213: Sperre"), // whatever the language of the server
	} {
		require.True(t, busy(err), "%v", err)
	}
	for _, err := range []error{
		nil, errors.New("Error 1146 (42S02): Table 'app.outbox_messages' doesn't exist"), errors.New("invalid connection"),
		errors.New("Error 12050 (HY000): something else"), errors.New("Error 1062 (23000): Duplicate entry 'Error' for key 'PRIMARY'"),
	} {
		require.False(t, busy(err), "%v", err)
	}
}

func TestExplainSaysWhatToDo(t *testing.T) {
	explain := mysql.Dialect{}.SQL().Explain
	for text, want := range map[string]string{
		"Error 1213 (40001): Deadlock found when trying to get lock; try restarting transaction":             "begin it again",
		"Error 1153 (08S01): Got a packet bigger than 'max_allowed_packet' bytes":                            "raise max_allowed_packet",
		"packet for query is too large. Try adjusting the `Config.MaxAllowedPacket`":                         "raise max_allowed_packet",
		"Error 1146 (42S02): Table 'app.outbox_messages' doesn't exist":                                      "call Migrate",
		"Error 1366 (22007): Incorrect string value: '\\xF0\\x9F' for column `app`.`outbox_messages`.`type`": "utf8mb4",
	} {
		require.Contains(t, explain(errors.New(text)), want)
	}
	require.Empty(t, explain(errors.New("invalid connection")))
	require.Empty(t, explain(nil))
}
