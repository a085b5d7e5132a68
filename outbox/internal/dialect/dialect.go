// Package dialect is what package outbox needs to know about one database: the
// text of its statements and the few ways in which it differs from the others.
// It is internal, so that a later version may ask for more of a dialect without
// breaking anybody.
//
// The tables, their columns and their meaning are the same in every dialect:
//
//	outbox_schema    version
//	outbox_messages  id, bucket, topic, message_key, type, payload, header, deliver_at, created_at
//	outbox_waiting   the same, attempt, due_at, error
//	outbox_parked    topic, message_key, bucket, due_at
//	outbox_dead      those of outbox_messages, attempt, error, died_at
//	outbox_archive_0 to outbox_archive_2
//	                 those of outbox_messages, delivered_at
//	outbox_leases    epoch, owner, until_at
//	outbox_buckets   bucket, epoch (0: nobody's)
//	outbox_topics    topic, paused
//	outbox_state     one row: epoch (the newest), archive (in use), rotated_at
//
// All times are microseconds since 1970 by the clock of the database; 0 is no
// time. No column is ever NULL but outbox_waiting.due_at, which is NULL while a
// message waits for its key.
package dialect

import "database/sql"

// Never is the time of what waits until its topic is resumed.
const Never = 1 << 62

// SQL holds the statements of one database. A list parameter is one JSON text,
// so that a statement has the same number of parameters whatever the length of
// the list.
type SQL struct {
	// Name is how errors call the database.
	Name string
	// Buckets is how many rows outbox_buckets has, numbered from 0: between
	// how many drainers the keys can be shared.
	Buckets int

	// Isolation is the level of the transactions of the outbox.
	Isolation sql.IsolationLevel

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

	// MaxRows is how many messages Insert takes at once.
	MaxRows int
	// Insert adds messages, 1 to MaxRows.
	Insert func(rows []Row) Statement

	// Fetch selects messages of outbox_messages in order of id, of one
	// snapshot, none if the lease is gone: the columns id, topic, key, type,
	// payload, header, created_at, deliver_at that every list of messages
	// begins with, then the bucket and the state (see package outbox).
	Fetch func(Fetch) Statement
	// Ack deletes messages of outbox_messages that were delivered, and copies
	// them to an archive before. It does nothing if the lease is gone. If
	// there are several statements, they belong into one transaction; the last
	// one's number of affected rows is the number of messages deleted.
	Ack func(Ack) []Statement
	// AckFetch is both in one statement, or nil where it takes two. What it
	// deletes is among the Except of the Fetch.
	AckFetch func(Ack, Fetch) Statement
	// Held selects 1 if the lease of an epoch is there (epoch), and otherwise
	// no row.
	Held string

	// Waiting selects messages of outbox_waiting whose time has come, longest
	// due first, and for one key in order of id (the columns as Fetch); then
	// the attempts made, the last error and the place. After and Parked of the
	// Fetch do not matter.
	Waiting func(Fetch) Statement

	// Park parks keys ([{topic, key, bucket, in}]); in is relative to now, or
	// Never.
	Park string
	// HoldReady copies messages to outbox_waiting ([{id, attempt, in, at,
	// error}]); in is as in Park, at is absolute, both null means that the
	// message waits for its key.
	HoldReady string
	// HoldWaiting sets the same columns of messages that are there already.
	HoldWaiting string
	// BuryReady and BuryWaiting copy messages to outbox_dead ([{id, attempt,
	// error}]).
	BuryReady, BuryWaiting string
	// ArchiveWaiting copies messages to an archive ([id]), by its number.
	ArchiveWaiting func(archive int) string
	// DeleteReady and DeleteWaiting delete messages ([id]).
	DeleteReady, DeleteWaiting string
	// Due makes parked keys due at once ([{topic, key}]).
	Due string
	// Unpark frees those of the keys for which no message waits ([{topic, key}]).
	Unpark string
	// ResumeKeys makes due what waits until its topic is resumed, of all
	// topics but some ([topic]) in outbox_parked, and ResumeMessages the same
	// in outbox_waiting.
	ResumeKeys, ResumeMessages string
	// AnyParked selects 1 if outbox_parked has a row, and 0 otherwise.
	AnyParked string

	// LockState adds to the newest epoch (number), and so makes every other
	// transaction that begins with it wait. State selects the newest epoch,
	// the archive in use, and the microseconds since it was taken into use.
	LockState, State string
	// Join adds a lease (epoch, owner, microseconds), Leave ends it (epoch).
	Join, Leave string
	// Renew extends a lease (microseconds, epoch). It locks the row, so that
	// in a transaction it is also the fence.
	Renew string
	// Expire deletes the leases that have ended, Free takes the buckets of
	// those that are not there from them.
	Expire, Free string
	// Leases selects epoch, owner and microseconds left in order of epoch,
	// also of those that have ended. Owners selects bucket and epoch.
	Leases, Owners string
	// Assign gives a bucket to an epoch (epoch, bucket).
	Assign string

	// Pause writes that a topic is paused or not (topic, 1 or 0). Paused
	// selects the topics that are.
	Pause, Paused string

	// Watermark selects the newest id given to anybody, and then, strictly
	// later, who may have an id that is not decided yet: names without commas,
	// separated by commas. Names of prepared transactions begin with "-". Empty
	// where a database cannot tell; Ordered means that it need not, because
	// ids grow in the order of commits.
	Watermark string
	Ordered   bool
	// Markable selects why Watermark proves nothing in this database, or "".
	Markable string

	// Dead selects dead messages in order of id (id after which to start,
	// limit): the columns that every list begins with, then the attempts made
	// and the last error.
	Dead string
	// Replay copies dead messages to outbox_waiting ([id]).
	Replay string
	// Forget deletes dead messages ([id]).
	Forget string
	// Purge deletes messages that died before a time (microseconds).
	Purge string

	// PurgeArchive deletes the messages of archive 0 that were delivered more
	// than so many microseconds ago (microseconds, limit).
	PurgeArchive string
	// Rotate empties an archive, by its number. It may be one of the
	// statements that end a transaction.
	Rotate func(archive int) string
	// Rotated takes an archive into use (number, number of the one before):
	// affects no row if somebody else did.
	Rotated string

	// Stats selects, in one row and counting up to a bound (bound): ready,
	// waiting, parked keys, dead, microseconds since the oldest became due.
	// The bound is a literal in the text.
	Stats func(bound int) string
	// TopicStats selects topic, ready, waiting, dead, paused of each topic,
	// looking at so many messages of each table, in order of topic.
	TopicStats func(bound int) string

	// Busy reports whether an error says that somebody else holds a lock, so
	// that the same call is likely to succeed a moment later.
	Busy func(error) bool
	// Explain returns what a user should know about an error of Insert, or "".
	Explain func(error) string
}

// A Statement is a text with its arguments.
type Statement struct {
	Text string
	Args []any
}

// A Row is a message to be inserted.
type Row struct {
	Topic, Key, Type string
	Bucket           int
	Payload          []byte // not nil
	Header           string
	DeliverAt        int64
}

// An Ack says which messages were delivered.
type Ack struct {
	Epoch   int64
	IDs     []int64
	Archive int // number, or -1
}

// A Fetch says which messages to select.
type Fetch struct {
	Epoch   int64
	Buckets []int // nil: all
	// Topics are the only ones to select, or, if Not, those to leave out. Nil
	// with Not means all.
	Topics []string
	Not    bool
	After  int64   // only greater ids
	Except []int64 // not these
	Limit  int
	// Parked says that keys may be parked: without it, state 1 need not be
	// told from state 0.
	Parked bool
}
