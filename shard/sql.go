package shard

import "strconv"

// Int64 returns id as a signed number of the same order: the first point of the ring
// is the least int64 and the last the greatest. It is what a BIGINT column holds, in
// databases that have no unsigned numbers or that compute the hash themselves as
// [PGText] describes, and what [Range.SQL] compares with.
func (id ID) Int64() int64 { return int64(id ^ 1<<63) }

// FromInt64 returns the point that [ID.Int64] turned into v.
func FromInt64(v int64) ID { return ID(v) ^ 1<<63 }

// SQL returns a condition that is true of exactly the rows whose point lies in r.
// Expr is a SQL expression of the row's point as [ID.Int64] gives it: a BIGINT column
// that the writer fills, or on PostgreSQL the hash of the key itself, as
//
//	r.SQL("hashtextextended(channel_id, 0)") // the points of PGText
//
// It is one interval, so an index on the expression serves it. A row whose expression
// is NULL has no point and is in no range, the whole ring included. The text is in
// parentheses and plain SQL for PostgreSQL, MySQL and SQLite. Expr is copied as it
// is: it comes from the program and never from a user. What it gives for an empty or
// inverted range is a condition that is true of no row.
func (r Range) SQL(expr string) string {
	from := expr + " >= " + strconv.FormatInt(r.Start.Int64(), 10)
	to := expr + " < " + strconv.FormatInt(r.End.Int64(), 10)
	switch {
	case r == Range{}:
		return "(" + expr + " IS NOT NULL)"
	case r.Start == 0: // the least int64 would be no literal: databases read it as -(2^63)
		return "(" + to + ")"
	case r.End == 0:
		return "(" + from + ")"
	}
	return "(" + from + " AND " + to + ")"
}
