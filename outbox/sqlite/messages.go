package sqlite

import (
	"strconv"
	"strings"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// Numbers stand in the texts: they cannot inject, and a statement is compiled
// each time anyway. Strings are always arguments.

func insert(rows []dialect.Row) dialect.Statement {
	var b strings.Builder
	b.Grow(100 + 40*len(rows))
	b.WriteString(`INSERT INTO outbox_messages (bucket, topic, message_key, type, payload, header, deliver_at) VALUES `)
	args := make([]any, 0, 5*len(rows))
	for i := range rows {
		r := &rows[i]
		if i > 0 {
			b.WriteString(`, `)
		}
		b.WriteString(`(` + strconv.Itoa(r.Bucket) + `, ?, ?, ?, ?, ?, ` + strconv.FormatInt(r.DeliverAt, 10) + `)`)
		args = append(args, r.Topic, r.Key, r.Type, r.Payload, r.Header)
	}
	return dialect.Statement{Text: b.String(), Args: args}
}

// held is a condition that holds while the lease of an epoch is there. SQLite
// evaluates it once for a statement.
func held(epoch int64) string {
	return `EXISTS (SELECT 1 FROM outbox_leases WHERE epoch = ` + strconv.FormatInt(epoch, 10) + `)`
}

// State 1 is blocked (its key is parked), 2 is early (its time has not come), 0
// is neither.

// parked is 1 if the key of a message of table m is parked.
const parked = `(m.message_key <> '' AND EXISTS (SELECT 1 FROM outbox_parked p WHERE p.topic = m.topic AND p.message_key = m.message_key))`

func fetch(f dialect.Fetch) dialect.Statement {
	var b strings.Builder
	b.WriteString(`SELECT ` + head + `, bucket, CASE WHEN deliver_at > ` + now + ` THEN 2`)
	if f.Parked {
		b.WriteString(` WHEN ` + parked + ` THEN 1`)
	}
	b.WriteString(` ELSE 0 END FROM outbox_messages m WHERE ` + held(f.Epoch))
	if f.After > 0 {
		b.WriteString(` AND id > ` + strconv.FormatInt(f.After, 10))
	}
	if f.Buckets != nil {
		writeList(&b, ` AND bucket IN (`, f.Buckets)
	}
	if len(f.Except) > 0 {
		writeList(&b, ` AND id NOT IN (`, f.Except)
	}
	args := writeTopics(&b, f)
	b.WriteString(` ORDER BY id LIMIT ` + strconv.Itoa(f.Limit))
	return dialect.Statement{Text: b.String(), Args: args}
}

func writeTopics(b *strings.Builder, f dialect.Fetch) (args []any) {
	if len(f.Topics) == 0 {
		if !f.Not {
			b.WriteString(` AND false`)
		}
		return nil
	}
	b.WriteString(` AND m.topic`)
	if f.Not {
		b.WriteString(` NOT`)
	}
	b.WriteString(` IN (?` + strings.Repeat(`, ?`, len(f.Topics)-1) + `)`)
	for _, topic := range f.Topics {
		args = append(args, topic)
	}
	return args
}

// writeList writes a list of numbers after its beginning, and closes it.
func writeList[T int | int64](b *strings.Builder, begin string, numbers []T) {
	b.WriteString(begin)
	for i, n := range numbers {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(int64(n), 10))
	}
	b.WriteByte(')')
}

func ack(a dialect.Ack) []dialect.Statement {
	var b strings.Builder
	writeList(&b, ` WHERE id IN (`, a.IDs)
	where := b.String() + ` AND ` + held(a.Epoch)
	out := []dialect.Statement{{Text: `DELETE FROM outbox_messages` + where}}
	if a.Archive >= 0 {
		out = append([]dialect.Statement{{Text: archiving(a.Archive, `outbox_messages`) + where}}, out...)
	}
	return out
}

// waiting has two halves, which each stop at the limit by themselves, walking an
// index. Place 1 is a message by its own time, 2 is one by the time of its key.
// CROSS JOIN keeps SQLite from walking outbox_waiting first.
func waiting(f dialect.Fetch) dialect.Statement {
	var b strings.Builder
	if f.Buckets != nil {
		writeList(&b, ` AND m.bucket IN (`, f.Buckets)
	}
	if len(f.Except) > 0 {
		writeList(&b, ` AND m.id NOT IN (`, f.Except)
	}
	args := writeTopics(&b, f)
	filter := b.String() + ` AND ` + held(f.Epoch)
	limit := strconv.Itoa(f.Limit)
	return dialect.Statement{Text: `SELECT ` + head + `, bucket, state, attempt, error, place FROM (
	SELECT * FROM (SELECT ` + of("m", body) + `, m.attempt, m.error, 1 AS place, ` + parked + ` AS state, m.due_at AS due
		FROM outbox_waiting m WHERE m.due_at <= ` + now + filter + ` ORDER BY m.due_at, m.id LIMIT ` + limit + `)
	UNION ALL
	SELECT * FROM (SELECT ` + of("m", body) + `, m.attempt, m.error, 2 AS place, 0 AS state, p.due_at AS due
		FROM outbox_parked p CROSS JOIN outbox_waiting m ON m.topic = p.topic AND m.message_key = p.message_key AND m.due_at IS NULL
		WHERE p.due_at <= ` + now + filter + ` ORDER BY p.due_at, p.topic, p.message_key, m.id LIMIT ` + limit + `)
) ORDER BY due, id LIMIT ` + limit, Args: append(args, args...)}
}
