package postgres

import (
	"strconv"
	"strings"

	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

const insertHead = `INSERT INTO outbox_messages (bucket, deliver_at, topic, message_key, type, header, payload) `

const insertOne = insertHead + `VALUES ($1, $2, $3, $4, $5, $6, $7)`

// insertMany takes one array for each column, so that its text is the same for
// any number of rows, and all payloads in one value together with where each
// begins and how long it is: in an array they would have to be quoted, which
// takes both sides longer than the rest. The ids are given in the order of the
// arrays.
const insertMany = insertHead + `SELECT bucket, deliver_at, topic, message_key, type, header, substring($7::bytea, start, length)
FROM unnest($1::text::smallint[], $2::text::bigint[], $3::text::text[], $4::text::text[], $5::text::text[], $6::text::text[],
	$8::text::integer[], $9::text::integer[])
	WITH ORDINALITY AS m (bucket, deliver_at, topic, message_key, type, header, start, length, n)
ORDER BY n`

func insert(rows []dialect.Row) dialect.Statement {
	if len(rows) == 1 {
		r := &rows[0]
		return dialect.Statement{Text: insertOne, Args: []any{r.Bucket, r.DeliverAt, r.Topic, r.Key, r.Type, r.Header, r.Payload}}
	}
	size := 0
	for i := range rows {
		size += len(rows[i].Payload)
	}
	payloads := make([]byte, 0, size)
	starts, lengths := newArray(8*len(rows)), newArray(4*len(rows))
	for i := range rows {
		starts.number(int64(len(payloads)) + 1)
		lengths.number(int64(len(rows[i].Payload)))
		payloads = append(payloads, rows[i].Payload...)
	}
	return dialect.Statement{Text: insertMany, Args: []any{
		column(rows, 4, func(a *array, r *dialect.Row) { a.number(int64(r.Bucket)) }),
		column(rows, 4, func(a *array, r *dialect.Row) { a.number(r.DeliverAt) }),
		column(rows, 20, func(a *array, r *dialect.Row) { a.text(r.Topic) }),
		column(rows, 20, func(a *array, r *dialect.Row) { a.text(r.Key) }),
		column(rows, 20, func(a *array, r *dialect.Row) { a.text(r.Type) }),
		column(rows, 4, func(a *array, r *dialect.Row) { a.text(r.Header) }),
		payloads, starts.String(), lengths.String(),
	}}
}

// column returns one column of rows as an array; size is what an element is
// likely to take.
func column(rows []dialect.Row, size int, add func(*array, *dialect.Row)) string {
	a := newArray(size * len(rows))
	for i := range rows {
		add(a, &rows[i])
	}
	return a.String()
}

// An array is the text of an array: what any driver can send, whatever it knows
// about arrays.
type array struct{ b []byte }

func newArray(size int) *array { return &array{append(make([]byte, 0, size+2), '{')} }

func (a *array) next() {
	if len(a.b) > 1 {
		a.b = append(a.b, ',')
	}
}

func (a *array) number(n int64) {
	a.next()
	a.b = strconv.AppendInt(a.b, n, 10)
}

func (a *array) text(s string) {
	a.next()
	a.b = append(a.b, '"')
	for {
		i := strings.IndexAny(s, `"\`)
		if i < 0 {
			break
		}
		a.b = append(a.b, s[:i]...)
		a.b = append(a.b, '\\', s[i])
		s = s[i+1:]
	}
	a.b = append(a.b, s...)
	a.b = append(a.b, '"')
}

// String ends the array.
func (a *array) String() string { return string(append(a.b, '}')) }

func numbers[T int | int64](list []T) string {
	a := newArray(8 * len(list))
	for _, n := range list {
		a.number(int64(n))
	}
	return a.String()
}

func texts(list []string) string {
	a := newArray(16 * len(list))
	for _, s := range list {
		a.text(s)
	}
	return a.String()
}
