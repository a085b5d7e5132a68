// Package dialect is what package outbox needs to know about one database: the
// text of its statements and the few ways in which it differs from the others.
// It is internal, so that a later version may ask for more of a dialect without
// breaking anybody.
package dialect

// SQL holds the statements of one database. All times in the database are
// microseconds since 1970 by the clock of the database. A list parameter is one
// JSON text, so that a statement has the same number of parameters whatever the
// length of the list.
type SQL struct {
	// Name is how errors call the database.
	Name string

	// Versions are the schema versions, oldest first: Versions[0] makes
	// version 1 out of an empty database. Each records its own number in the
	// table outbox_schema.
	Versions [][]string
	// Bootstrap creates outbox_schema where it does not exist, and may be run
	// by several processes at once.
	Bootstrap string
	// LockSchema is the first statement of the migrating transaction. It makes
	// every other one wait, and writes nothing.
	LockSchema string
	// Installed selects 1 if outbox_schema exists, and 0 otherwise.
	Installed string
	// Version selects the number of the newest version, 0 if there is none.
	Version string

	// MaxParams is how many parameters a statement may have.
	MaxParams int
	// Insert makes the statement that adds rows messages. Each row has the
	// InsertColumns parameters topic, key, type, payload, header, deliver_at.
	Insert func(rows int) string

	// Lease selects the epoch and the microseconds until the lease ends.
	Lease string
	// Acquire takes an ended lease (owner, microseconds, epoch as selected).
	Acquire string
	// Renew extends the lease if the epoch is still ours (microseconds, epoch).
	// It locks the row, so that in a transaction it is also the fence.
	Renew string
	// Release ends the lease if the epoch is still ours (epoch).
	Release string

	// Ready selects the oldest messages of outbox_messages (limit): the columns
	// id, topic, key, type, payload, header, created_at, deliver_at that every
	// list of messages begins with, and then the state. For numbers of states
	// and places see package outbox.
	Ready string
	// Waiting selects the messages of outbox_waiting whose time has come,
	// longest due first, and for one key in order of id (limit); then the
	// attempts made, the last error, the place and the state.
	Waiting string

	// Park parks keys ([{key, in}]).
	Park string
	// HoldReady copies messages to outbox_waiting ([{id, attempt, in, at,
	// error}]); in is relative to now, at is absolute, both null means that
	// the message waits for its key.
	HoldReady string
	// HoldWaiting sets the same columns of messages that are there already.
	HoldWaiting string
	// BuryReady and BuryWaiting copy messages to outbox_dead ([{id, attempt,
	// error}]).
	BuryReady, BuryWaiting string
	// DeleteReady and DeleteWaiting delete messages ([id]).
	DeleteReady, DeleteWaiting string
	// Due makes parked keys due at once ([key]).
	Due string
	// Unpark frees those of the keys for which no message waits ([key]).
	Unpark string

	// Dead selects dead messages in order of id (id after which to start,
	// limit); then the attempts made and the last error.
	Dead string
	// Replay copies dead messages to outbox_waiting ([id]).
	Replay string
	// Forget deletes dead messages ([id]).
	Forget string
	// Purge deletes the messages that died before a time (microseconds).
	Purge string

	// Stats selects, in one row and counting up to a bound (bound): ready,
	// waiting, parked keys, dead, microseconds since the oldest became due,
	// owner of the lease or "", epoch.
	Stats string

	// Busy reports whether an error says that somebody else holds a lock, so
	// that the same call is likely to succeed a moment later.
	Busy func(error) bool
}

// InsertColumns is the number of parameters of a row in SQL.Insert.
const InsertColumns = 6
