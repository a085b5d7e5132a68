package mysql

import (
	"strconv"
	"strings"
)

// No driver is imported, so errors are known by their text: "Error 1213 (40001):
// Deadlock found …" is how go-sql-driver/mysql puts it, and the words after the
// number are the server's.

// busy reports whether err is that a lock was not granted in time (1205), that
// the transaction was chosen to end a deadlock (1213), or that a row has changed
// since the transaction began (1020, MariaDB from 11.6.2). All of them are
// normal on a busy server.
func busy(err error) bool {
	return says(err, 1205, "Lock wait timeout exceeded") || says(err, 1213, "Deadlock found") || says(err, 1020, "Record has changed since last read")
}

// says reports whether err has the number of an error or the server's words for
// it.
func says(err error, number int, words string) bool {
	if err == nil {
		return false
	}
	text := err.Error()
	if _, rest, found := strings.Cut(text, "Error "+strconv.Itoa(number)); found && (rest == "" || rest[0] == ' ' || rest[0] == ':') {
		return true
	}
	return words != "" && strings.Contains(text, words)
}

// explain says what is behind an error of Insert.
func explain(err error) string {
	switch {
	case says(err, 1213, "Deadlock found"):
		return "the server has rolled back the whole transaction to end a deadlock (begin it again)"
	case says(err, 1020, "Record has changed since last read"):
		return "the transaction reads a snapshot that is out of date (begin it again)"
	case says(err, 1153, "max_allowed_packet"), says(err, 1153, "packet for query is too large"):
		return "the messages are larger than the server takes at once (raise max_allowed_packet, or lower Options.MaxPayload)"
	case says(err, 1146, ""):
		return "the tables of the outbox are not there (call Migrate first)"
	case says(err, 1366, ""):
		return "the connection does not speak utf8mb4 (set charset=utf8mb4 in the data source name, or leave it out)"
	}
	return ""
}
