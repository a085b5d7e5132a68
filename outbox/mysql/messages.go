package mysql

import (
	"slices"
	"strconv"
	"strings"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// Numbers stand in the texts: they cannot inject, and a statement without
// arguments takes one round trip, where the drivers prepare one with arguments
// first. Strings are always arguments.

func insert(rows []dialect.Row) dialect.Statement {
	var b strings.Builder
	b.Grow(200 + 120*len(rows))
	b.WriteString(`INSERT INTO outbox_messages (bucket, topic, message_key, type, payload, header, deliver_at, created_at) VALUES `)
	args := make([]any, 0, 5*len(rows))
	for i := range rows {
		r := &rows[i]
		if i > 0 {
			b.WriteString(`, `)
		}
		b.WriteString(`(` + strconv.Itoa(r.Bucket) + `, ?, ?, ?, ?, ?, ` + strconv.FormatInt(r.DeliverAt, 10) + `, ` + now + `)`)
		args = append(args, r.Topic, r.Key, r.Type, r.Payload, r.Header)
	}
	return dialect.Statement{Text: b.String(), Args: args}
}

// State 1 is blocked (its key is parked), 2 is early (its time has not come), 0
// is neither.

// parked is 1 if the key of a message of table m is parked.
const parked = `(m.message_key <> '' AND EXISTS (SELECT 1 FROM outbox_parked p WHERE p.topic = m.topic AND p.message_key = m.message_key))`

// fetch finds ids first and messages then. For all buckets the ids are the
// primary key. For some, each bucket has its own walk along an index, up to the
// limit, since a filter would walk over whatever the other buckets have too
// much of.
//
// The lease comes first: the optimizer reads it as a constant, and stops at once
// if it is not there.
func fetch(f dialect.Fetch) dialect.Statement {
	state := `CASE WHEN m.deliver_at > ` + now + ` THEN 2 ELSE 0 END`
	if f.Parked {
		state = `CASE WHEN m.deliver_at > ` + now + ` THEN 2 WHEN ` + parked + ` THEN 1 ELSE 0 END`
	}
	selected := `SELECT ` + of("m", head) + `, m.bucket, ` + state + ` FROM outbox_leases l STRAIGHT_JOIN `
	where := ` WHERE l.epoch = ` + strconv.FormatInt(f.Epoch, 10)
	filter, args := topics(`m`, f)
	if f.After > 0 {
		filter += ` AND m.id > ` + strconv.FormatInt(f.After, 10)
	}
	limit := ` LIMIT ` + strconv.Itoa(f.Limit)
	if len(f.Buckets) == 0 {
		if f.Buckets != nil {
			filter += ` AND FALSE`
		}
		return dialect.Statement{
			Text: selected + `outbox_messages m FORCE INDEX (PRIMARY)` + where + filter + except("m.id", f.Except) + ` ORDER BY m.id` + limit,
			Args: args,
		}
	}
	// Each walk goes on for as many as may be excepted, instead of comparing
	// each id with all of these.
	more := ` ORDER BY m.id LIMIT ` + strconv.Itoa(f.Limit+len(f.Except))
	walks := make([]string, len(f.Buckets))
	for i, bucket := range f.Buckets {
		walks[i] = `SELECT m.id FROM outbox_messages m FORCE INDEX (bucket) WHERE m.bucket = ` + strconv.Itoa(bucket) + filter + more
	}
	return dialect.Statement{
		Text: selected + `(SELECT u.id FROM (` + union(walks) + `) u WHERE TRUE` + except("u.id", f.Except) + ` ORDER BY u.id` + limit + `) i
STRAIGHT_JOIN outbox_messages m FORCE INDEX (PRIMARY) ON m.id = i.id` + where + ` ORDER BY i.id`,
		Args: slices.Repeat(args, len(f.Buckets)),
	}
}

// union returns several queries as one.
func union(queries []string) string {
	if len(queries) == 1 {
		return queries[0]
	}
	return `(` + strings.Join(queries, ")\nUNION ALL (") + `)`
}

// topics returns the condition on the topic of a table.
func topics(table string, f dialect.Fetch) (condition string, args []any) {
	if len(f.Topics) == 0 {
		if f.Not {
			return ``, nil
		}
		return ` AND FALSE`, nil
	}
	condition = ` AND ` + table + `.topic IN (?`
	if f.Not {
		condition = ` AND ` + table + `.topic NOT IN (?`
	}
	for _, topic := range f.Topics {
		args = append(args, topic)
	}
	return condition + strings.Repeat(`, ?`, len(args)-1) + `)`, args
}

// except returns the condition that an id is not one of a list. The sum keeps
// the optimizer from making a range of each gap between them.
func except(id string, ids []int64) string {
	if len(ids) == 0 {
		return ``
	}
	return ` AND ` + id + ` + 0 NOT IN (` + numbers(ids) + `)`
}

func numbers[T int | int64](list []T) string {
	var b strings.Builder
	for i, n := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(int64(n), 10))
	}
	return b.String()
}

// ack locks the lease, so that it is there until the end of the transaction.
// Without that, a drainer that was given up could delete what its successor has
// read, and is about to postpone. The ids are a table, as in the other lists,
// with the numbers in the text.
func ack(a dialect.Ack) []dialect.Statement {
	from := strings.Replace(listOfIDs, `?`, `'[`+numbers(a.IDs)+`]'`, 1) + ` STRAIGHT_JOIN outbox_messages m FORCE INDEX (PRIMARY) ON m.id = j.id
WHERE EXISTS (SELECT 1 FROM outbox_leases WHERE epoch = ` + strconv.FormatInt(a.Epoch, 10) + ` LOCK IN SHARE MODE)`
	remove := dialect.Statement{Text: `DELETE m FROM ` + from}
	if a.Archive < 0 {
		return []dialect.Statement{remove}
	}
	return []dialect.Statement{{Text: archiving(a.Archive) + from}, remove}
}
