package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/evenkeel-go/evenkeel/internal/mix"
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

// Add writes messages to the outbox inside tx, the transaction of the change
// that they announce: if it commits, they will be delivered, and if it rolls
// back, they never existed. Add neither commits nor rolls back. Call Wake after
// the commit.
//
// Messages with the same topic and key are delivered in the order of their Adds,
// if the transactions that add them exclude each other, as those do that lock or
// update the row that the key names before they Add. On SQLite all writing
// transactions exclude each other.
//
// The messages are not changed; in particular their IDs are not filled in. All
// of them are checked before the first is written: returns ErrInvalid when one
// breaks a limit of Message or Options, and then the transaction is untouched.
// Any other error is the database's, and the transaction should be rolled back.
//
// One statement adds many messages: 500, or fewer if they are large. Add is safe
// for concurrent use by multiple goroutines as far as tx is.
func (o *Outbox) Add(ctx context.Context, tx Tx, msgs ...Message) error {
	if tx == nil {
		return fmt.Errorf("outbox: add: %w: tx is nil", ErrInvalid)
	}
	if len(msgs) == 0 {
		return nil
	}
	rows, err := o.rows(ctx, msgs)
	if err != nil {
		return err
	}
	for len(rows) > 0 {
		n := o.chunk(rows)
		st := o.sql.Insert(rows[:n])
		if _, err := tx.ExecContext(ctx, st.Text, st.Args...); err != nil {
			if hint := o.sql.Explain(err); hint != "" {
				return fmt.Errorf("outbox: add %d messages: %s: %w", n, hint, err)
			}
			return fmt.Errorf("outbox: add %d messages: %w", n, err)
		}
		rows = rows[n:]
	}
	return nil
}

// maxInsertBytes is how much payload one statement carries, unless a single
// message is larger: databases limit the size of statements, and the smallest
// default is the 16 MiB of MariaDB's max_allowed_packet.
const maxInsertBytes = 4 << 20

// chunk returns how many rows the next statement takes.
func (o *Outbox) chunk(rows []dialect.Row) int {
	n, size := 0, 0
	for n < min(len(rows), o.sql.MaxRows) {
		size += len(rows[n].Payload)
		if n > 0 && size > maxInsertBytes {
			break
		}
		n++
	}
	return n
}

// rows checks msgs and returns what is to be inserted.
func (o *Outbox) rows(ctx context.Context, msgs []Message) ([]dialect.Row, error) {
	var common map[string]string
	if o.o.Headers != nil {
		common = o.o.Headers(ctx)
	}
	rows := make([]dialect.Row, len(msgs))
	for i := range msgs {
		m := &msgs[i]
		header := m.Header
		if len(common) > 0 {
			header = maps.Clone(common)
			maps.Copy(header, m.Header)
		}
		wrong := o.undeclared(m.Topic)
		if wrong == "" {
			checked := *m
			checked.Header = header
			wrong = checked.validate(o.o.MaxPayload)
		}
		if wrong != "" {
			return nil, fmt.Errorf("%w message %d of %d: %s", ErrInvalid, i+1, len(msgs), wrong)
		}
		text, err := encodeHeader(header)
		if err != nil {
			return nil, fmt.Errorf("outbox: add: %w", err)
		}
		payload := m.Payload
		if payload == nil {
			payload = []byte{} // nil would be NULL
		}
		rows[i] = dialect.Row{
			Topic: m.Topic, Key: m.Key, Type: m.Type, Bucket: o.bucket(m.Topic, m.Key),
			Payload: payload, Header: text, DeliverAt: micros(m.DeliverAt),
		}
	}
	return rows, nil
}

// undeclared returns what is wrong with a topic that is not one of the declared.
func (o *Outbox) undeclared(topic string) string {
	if len(o.o.Topics) == 0 || topic == "" {
		return ""
	}
	if _, ok := o.o.Topics[topic]; ok {
		return ""
	}
	return fmt.Sprintf("Topic %q is not one of Options.Topics: %s", topic, strings.Join(slices.Sorted(maps.Keys(o.o.Topics)), ", "))
}

// bucket returns the bucket of a key. The finalizer keeps it apart from other
// uses of the same hash: where keys are sharded by XXH64, as package shard does,
// the keys of one shard would otherwise crowd into few buckets. Without a key
// any bucket will do.
func (o *Outbox) bucket(topic, key string) int {
	n := uint64(o.sql.Buckets)
	if n == 1 {
		return 0
	}
	if key == "" {
		return int(rand.Uint64N(n))
	}
	h := mix.Bits(xxhash.Sum64String(topic)) + xxhash.Sum64String(key)
	return int(mix.Bits(h) % n)
}
