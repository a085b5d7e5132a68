package outboxtest

import (
	"database/sql"
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/internal/dialect"
)

// statements checks each statement of a dialect by itself, so that a mistake in
// one is found here and not in what a drainer makes of it.
func statements(t *testing.T, d Database) {
	for _, part := range []struct {
		name string
		f    func(*statementTest)
	}{
		{"InsertAndFetch", insertAndFetch},
		{"FetchFilters", fetchFilters},
		{"FetchStates", fetchStates},
		{"AckIsFenced", ackIsFenced},
		{"AckArchives", ackArchives},
		{"AckFetch", ackFetch},
		{"NamesAreBytes", namesAreBytes},
		{"WaitingOrder", waitingOrder},
		{"WaitingFilters", waitingFilters},
		{"Hold", hold},
		{"ParkDueUnpark", parkDueUnpark},
		{"BuryReplayPurge", buryReplayPurge},
		{"PauseResume", pauseResume},
		{"Leases", leases},
		{"LeaseExpires", leaseExpires},
		{"StatsAndTopics", statsAndTopics},
		{"ArchivePurged", archivePurged},
		{"ArchiveRotated", archiveRotated},
		{"WatermarkReads", watermarkReads},
	} {
		t.Run(part.name, func(t *testing.T) {
			db, _ := setUp(t, d, outbox.Options{})
			part.f(&statementTest{T: t, db: db, sql: d.Dialect.SQL()})
		})
	}
}

// A statementTest runs statements on a database of its own.
type statementTest struct {
	*testing.T
	db  *sql.DB
	sql *dialect.SQL
}

// exec returns how many rows a statement affected.
func (t *statementTest) exec(query string, args ...any) int {
	t.Helper()
	res, err := t.db.ExecContext(t.Context(), query, args...)
	require.NoError(t, err, query)
	n, err := res.RowsAffected()
	require.NoError(t, err, query)
	return int(n)
}

// execAll runs statements in one transaction and returns what the last affected.
func (t *statementTest) execAll(statements []dialect.Statement) int {
	t.Helper()
	tx, err := t.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: t.sql.Isolation})
	require.NoError(t, err)
	defer func() { _ = tx.Rollback() }()
	var n int64
	for _, st := range statements {
		res, err := tx.ExecContext(t.Context(), st.Text, st.Args...)
		require.NoError(t, err, st.Text)
		n, err = res.RowsAffected()
		require.NoError(t, err, st.Text)
	}
	require.NoError(t, tx.Commit())
	return int(n)
}

// number returns the one number that a query selects.
func (t *statementTest) number(query string, args ...any) (n int64) {
	t.Helper()
	require.NoError(t, t.db.QueryRowContext(t.Context(), query, args...).Scan(&n), query)
	return n
}

// each scans every row of a query into dest and calls f.
func (t *statementTest) each(st dialect.Statement, dest []any, f func()) {
	t.Helper()
	rows, err := t.db.QueryContext(t.Context(), st.Text, st.Args...)
	require.NoError(t, err, st.Text)
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		require.NoError(t, rows.Scan(dest...), st.Text)
		f()
	}
	require.NoError(t, rows.Err(), st.Text)
}

// jsonList returns the text of a list parameter.
func jsonList[T any](elements ...T) string {
	if len(elements) == 0 {
		return "[]"
	}
	b, err := json.Marshal(elements)
	if err != nil {
		panic(err) // numbers, strings and maps of them
	}
	return string(b)
}

type object = map[string]any

// A row is a message as a statement selects it, with what only some select.
type row struct {
	id                     int64
	topic, key, typ        string
	payload                []byte
	header                 string
	createdAt, deliverAt   int64
	bucket, state, attempt int
	error                  string
	place                  int
}

func (r *row) head() []any {
	return []any{&r.id, &r.topic, &r.key, &r.typ, &r.payload, &r.header, &r.createdAt, &r.deliverAt}
}

func (t *statementTest) fetch(f dialect.Fetch) (out []row) {
	t.Helper()
	return t.fetched(t.sql.Fetch(f))
}

func (t *statementTest) fetched(st dialect.Statement) (out []row) {
	t.Helper()
	var r row
	t.each(st, append(r.head(), &r.bucket, &r.state), func() { out = append(out, r) })
	return out
}

func (t *statementTest) waiting(f dialect.Fetch) (out []row) {
	t.Helper()
	var r row
	t.each(t.sql.Waiting(f), append(r.head(), &r.bucket, &r.state, &r.attempt, &r.error, &r.place), func() { out = append(out, r) })
	return out
}

func (t *statementTest) dead(after int64, limit int) (out []row) {
	t.Helper()
	var r row
	t.each(dialect.Statement{Text: t.sql.Dead, Args: []any{after, limit}}, append(r.head(), &r.attempt, &r.error), func() { out = append(out, r) })
	return out
}

func ids(rows []row) (out []int64) {
	for i := range rows {
		out = append(out, rows[i].id)
	}
	return out
}

func states(rows []row) (out []int) {
	for i := range rows {
		out = append(out, rows[i].state)
	}
	return out
}

// insert adds messages and returns their ids. A message without a topic gets
// one, one without a payload an empty one.
func (t *statementTest) insert(rows ...dialect.Row) []int64 {
	t.Helper()
	for i := range rows {
		if rows[i].Topic == "" {
			rows[i].Topic = "t"
		}
		if rows[i].Payload == nil {
			rows[i].Payload = []byte{}
		}
	}
	last := t.number(`SELECT coalesce(max(id), 0) FROM outbox_messages`)
	for rest := rows; len(rest) > 0; {
		n := min(len(rest), t.sql.MaxRows)
		st := t.sql.Insert(rest[:n])
		require.Equal(t, n, t.exec(st.Text, st.Args...))
		rest = rest[n:]
	}
	var out []int64
	var id int64
	t.each(dialect.Statement{Text: `SELECT id FROM outbox_messages WHERE id > ` + strconv.FormatInt(last, 10) + ` ORDER BY id`}, []any{&id}, func() { out = append(out, id) })
	require.Len(t, out, len(rows))
	return out
}

// insertKeys adds a message of topic t for each of the keys.
func (t *statementTest) insertKeys(keys ...string) []int64 {
	t.Helper()
	rows := make([]dialect.Row, len(keys))
	for i, key := range keys {
		rows[i] = dialect.Row{Key: key}
	}
	return t.insert(rows...)
}

// lease returns the epoch of a lease of one hour.
func (t *statementTest) lease(owner string) int64 {
	t.Helper()
	t.exec(t.sql.LockState, 1)
	epoch, _, _ := t.state()
	require.Equal(t, 1, t.exec(t.sql.Join, epoch, owner, time.Hour.Microseconds()))
	return epoch
}

func (t *statementTest) state() (epoch int64, archive int, since time.Duration) {
	t.Helper()
	var us int64
	require.NoError(t, t.db.QueryRowContext(t.Context(), t.sql.State).Scan(&epoch, &archive, &us))
	return epoch, archive, time.Duration(us) * time.Microsecond
}

// all selects everything there is.
func all(epoch int64) dialect.Fetch {
	return dialect.Fetch{Epoch: epoch, Not: true, Limit: 1000, Parked: true}
}

// most returns all buckets but the last, if there are several.
func (t *statementTest) most() (buckets []int) {
	for bucket := range max(1, t.sql.Buckets-1) {
		buckets = append(buckets, bucket)
	}
	return buckets
}

// everyByte has each value of a byte once.
func everyByte() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}
