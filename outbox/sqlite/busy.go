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
