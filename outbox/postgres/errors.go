package postgres

import (
	"errors"
	"slices"
	"strings"
)

// SQLSTATE codes, from https://www.postgresql.org/docs/current/errcodes-appendix.html.
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	lockNotAvailable     = "55P03"

	undefinedTable        = "42P01"
	insufficientPrivilege = "42501"
	readOnlyTransaction   = "25006"
	abortedTransaction    = "25P02"
	notInEncoding         = "22P05"
)

// busy reports whether err says that a transaction lost against another one. No
// driver is imported, so it asks for a method that the errors of pgx and lib/pq
// have, and otherwise looks for the code in the text.
func busy(err error) bool {
	if err == nil {
		return false
	}
	codes := []string{serializationFailure, deadlockDetected, lockNotAvailable}
	if state, ok := sqlState(err); ok {
		return slices.Contains(codes, state)
	}
	return slices.ContainsFunc(codes, func(code string) bool {
		return strings.Contains(err.Error(), "SQLSTATE "+code)
	})
}

func sqlState(err error) (string, bool) {
	coded, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err)
	if !ok {
		return "", false
	}
	return coded.SQLState(), true
}

// explain returns what a user should know about an error of an insert, or "".
func explain(err error) string {
	if err == nil {
		return ""
	}
	state, ok := sqlState(err)
	if !ok {
		return explainOther(err.Error())
	}
	switch state {
	case undefinedTable:
		return "outbox_messages is not in a schema of the search_path: call Migrate with the search_path of this transaction"
	case insufficientPrivilege:
		return "the role needs INSERT on outbox_messages"
	case readOnlyTransaction:
		return "Add needs a transaction that may write, on the primary"
	case abortedTransaction:
		return "a statement before Add has failed in this transaction, which can only be rolled back"
	case notInEncoding:
		return "the encoding of the database cannot hold a text of the message: it should be UTF8"
	}
	return ""
}

// explainOther recognises the errors of databases that are not PostgreSQL.
func explainOther(text string) string {
	for _, foreign := range []string{
		"Error 1064",                 // MySQL and MariaDB, by go-sql-driver/mysql
		"no such table",              // SQLite
		"SQL logic error", "near \"", // SQLite
	} {
		if strings.Contains(text, foreign) {
			return "this does not look like PostgreSQL: New wants the dialect of the database"
		}
	}
	return ""
}
