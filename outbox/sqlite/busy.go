package sqlite

import (
	"errors"
	"strings"
)

// Primary result codes, from https://sqlite.org/rescode.html.
const (
	codeBusy   = 5
	codeLocked = 6
)

// busy reports whether err is SQLITE_BUSY or SQLITE_LOCKED, in any extended
// form. No driver is imported, so it asks for a method that
// modernc.org/sqlite's error has, and otherwise reads the text, which is
// SQLite's own in every driver.
func busy(err error) bool {
	if err == nil {
		return false
	}
	if coded, ok := errors.AsType[interface {
		error
		Code() int
	}](err); ok {
		primary := coded.Code() & 0xff
		return primary == codeBusy || primary == codeLocked
	}
	text := err.Error()
	return strings.Contains(text, "database is locked") ||
		strings.Contains(text, "database table is locked") ||
		strings.Contains(text, "SQLITE_BUSY")
}

// explain says what is behind an error of Insert.
func explain(err error) string {
	switch {
	case busy(err):
		return "another transaction holds the write lock of the database, and this one has not taken it at its beginning: " +
			"it has read before, so that it cannot write any more, or it has waited for as long as busy_timeout says " +
			"(open the database with _txlock=immediate, or begin with sqlite.Begin)"
	case err != nil && strings.Contains(err.Error(), "no such table: outbox_"):
		return "the tables of the outbox are not there (call Migrate first)"
	}
	return ""
}
