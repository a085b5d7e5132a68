package outbox

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// Tx is an open transaction: *sql.Tx, or a type that embeds one. *sql.DB and
// *sql.Conn are not, on purpose: a message added outside the transaction of the
// change that it announces may be lost, or announce what never happened.
type Tx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	Commit() error
	Rollback() error
}

// maxInsert is how many messages one statement adds at most. Beyond this,
// longer statements cost more to parse than they save.
const maxInsert = 500

// Add writes messages to the outbox inside tx, the transaction of the change
// that they announce: if it commits, they will be delivered, and if it rolls
// back, they never existed. Add neither commits nor rolls back. Call Wake after
// the commit.
//
// Messages with the same key are delivered in the order of their Adds, if the
// transactions that add them exclude each other, as those do that lock or
// update the row that the key names before they Add. On SQLite all writing
// transactions exclude each other.
//
// The messages are not changed; in particular their IDs are not filled in. All
// of them are checked before the first is written: returns ErrInvalid when one
// breaks a limit of Message, and then the transaction is untouched. Any other
// error is the database's, and the transaction should be rolled back.
//
// One statement adds up to 500 messages. Add is safe for concurrent use by
// multiple goroutines as far as tx is.
func (o *Outbox) Add(ctx context.Context, tx Tx, msgs ...Message) error {
	for i := range msgs {
		if wrong := msgs[i].validate(); wrong != "" {
			return fmt.Errorf("%w message %d of %d: %s", ErrInvalid, i+1, len(msgs), wrong)
		}
	}
	chunk := min(maxInsert, o.sql.MaxParams/dialect.InsertColumns)
	args := make([]any, 0, min(len(msgs), chunk)*dialect.InsertColumns)
	for len(msgs) > 0 {
		n := min(len(msgs), chunk)
		args = args[:0]
		for i := range msgs[:n] {
			m := &msgs[i]
			header, err := encodeHeader(m.Header)
			if err != nil {
				return fmt.Errorf("outbox: add: %w", err)
			}
			payload := m.Payload
			if payload == nil {
				payload = []byte{} // nil would be NULL
			}
			args = append(args, m.Topic, m.Key, m.Type, payload, header, micros(m.DeliverAt))
		}
		if _, err := tx.ExecContext(ctx, o.sql.Insert(n), args...); err != nil {
			return fmt.Errorf("outbox: add %d messages: %w", n, err)
		}
		msgs = msgs[n:]
	}
	return nil
}
