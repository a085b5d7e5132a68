package outboxtest

import (
	"context"
	"database/sql"
	"strings"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// A Strategy is a way to get messages out of a table. Strategies has the usual
// ones as bare loops, to compare with package outbox and to see each of them
// fail where it does: they are for tests, benchmarks and reading only.
type Strategy struct {
	// Name is short and has no spaces.
	Name string
	// Fault is what goes wrong, and when. Empty if nothing is known.
	Fault string
	// New makes a drainer, as if in a process of its own. A bare loop looks at
	// Options.Batch and Options.PollMin only.
	New func(outbox.Options) (Drainer, error)
}

// A Drainer is the part of *outbox.Outbox that a strategy is about; the comments
// there are the contract.
//
// A bare loop does less: it knows no topics, headers, delays, retries or dead
// messages. It may hand over several messages of a key at once, oldest first. An
// error of the Publisher ends Drain and Run with that error, and nothing of the
// batch is acknowledged.
type Drainer interface {
	Migrate(ctx context.Context, db *sql.DB) error
	Add(ctx context.Context, tx outbox.Tx, msgs ...outbox.Message) error
	Drain(ctx context.Context, db *sql.DB, p outbox.Publisher) (int, error)
	Run(ctx context.Context, db *sql.DB, p outbox.Publisher) error
}

var _ Drainer = (*outbox.Outbox)(nil)

// Strategies returns what there is for the database, the owner first. Each has
// tables of its own, so that all may live in one database. Those that need to
// know which transactions are in progress exist for PostgreSQL only.
//
// owner is package outbox. claim selects for update and skips what is locked,
// publishes and deletes, all in one transaction (River, gue and most others that
// are younger than SKIP LOCKED; on SQLite the transaction is the lock). lease
// writes into the row who has it and until when, commits, publishes and deletes.
// cursor remembers the last id and reads on from there. created-at is claim in
// the order of a column that is now() by default. xmin-cursor reads in order of
// transactions and ids up to the oldest transaction in progress (event-driven.io,
// "How Postgres sequences issues can impact your messaging guarantees", and
// watermill-sql). rotation reads what one snapshot sees and the one before did
// not, from three tables that take turns in being emptied (PgQ of Skype, 2007).
func Strategies(d Database) []Strategy {
	owner := Strategy{
		Name: "owner",
		New:  func(o outbox.Options) (Drainer, error) { return outbox.New(d.Dialect, o) },
	}
	f := flavorOf(d)
	all := []Strategy{
		owner,
		f.strategy("claim", claim, "two drainers reorder a key; a transaction is open while publishing; a held snapshot slows it down"),
		f.strategy("lease", lease, "two drainers reorder a key; each row is written twice; a held snapshot slows it down"),
		f.strategy("cursor", cursor, "loses what commits after a higher id was read; rows stay for somebody else to delete"),
	}
	switch f.name {
	case "mysql":
		all[1].Fault += "; a deadlock comes after publishing, and so repeats a batch"
	case "sqlite": // writers take turns, so ids grow in the order of commits
		all[1].Fault = "the database is locked while publishing"
		all[2].Fault = "two drainers reorder a key; each row is written twice"
		all[3].Fault = "the database is locked while publishing; rows stay for somebody else to delete"
	case "postgres":
		all = append(all,
			f.strategy("created-at", createdAt, "reorders a key when a transaction began early and came to the key late; and all that claim does"),
			f.strategy("xmin-cursor", xminCursor, "reorders a key when a transaction wrote early and came to the key late; "+
				"stalls while any transaction that wrote is open anywhere in the server; rows stay for somebody else to delete"),
			f.strategy("rotation", rotation, "a transaction is open while publishing; a crash repeats all that was new; one drainer at a time; "+
				"tables grow while a transaction that added is open"),
		)
	}
	return all
}

// strategy makes a Strategy of a bare loop.
func (f flavor) strategy(name string, bare func(f flavor, table string) loop, fault string) Strategy {
	return Strategy{Name: name, Fault: fault, New: func(o outbox.Options) (Drainer, error) {
		l := bare(f, "strategy_"+strings.ReplaceAll(name, "-", "_"))
		l.flavor, l.batch, l.poll = f, o.Batch, o.PollMin
		if l.batch <= 0 {
			l.batch = defaultBatch
		}
		if l.poll <= 0 {
			l.poll = defaultPoll
		}
		return &l, nil
	}}
}
