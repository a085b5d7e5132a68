package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/mysql"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// explained returns the plan of a statement, a line a row.
func explained(t *testing.T, db *sql.DB, how, text string, args ...any) string {
	rows, err := db.QueryContext(t.Context(), how+" "+text, args...)
	require.NoError(t, err, text)
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	require.NoError(t, err)
	var out strings.Builder
	for rows.Next() {
		values, dest := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range values {
			dest[i] = &values[i]
		}
		require.NoError(t, rows.Scan(dest...))
		for _, v := range values {
			out.WriteString(v.String + "|")
		}
		out.WriteString("\n")
	}
	require.NoError(t, rows.Err())
	return out.String()
}

func upTo(n int) (ids []int64) {
	for i := range n {
		ids = append(ids, int64(i))
	}
	return ids
}

// TestSQLiteReadsWalkAnIndex: reading a batch costs the same behind a million
// waiting messages as behind none.
func TestSQLiteReadsWalkAnIndex(t *testing.T) {
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			db, _ := newBox(t, driver, outbox.Options{})
			d := sqlite.Dialect{}.SQL()
			fetch, ack := argument(d.Fetch), argument(d.Ack)
			fetch.Not, fetch.Limit, fetch.Parked, fetch.Except = true, 100, true, upTo(3)
			ack.IDs, ack.Archive = upTo(3), 0
			texts := map[string]string{"fetch": d.Fetch(fetch).Text, "waiting": d.Waiting(fetch).Text, "ack": d.Ack(ack)[1].Text}
			for name, text := range texts {
				plan := explained(t, db, "EXPLAIN QUERY PLAN", text)
				t.Logf("%s\n%s", name, plan)
				require.NotContains(t, plan, "SCAN outbox_waiting", name)
				require.NotContains(t, plan, "SCAN p", name)
				require.NotContains(t, plan, "AUTOMATIC", name)
			}
			require.NotContains(t, explained(t, db, "EXPLAIN QUERY PLAN", texts["fetch"]), "TEMP B-TREE")
			// The two halves are merged by a sort of at most twice the limit;
			// inside them there is none.
			waiting := explained(t, db, "EXPLAIN QUERY PLAN", texts["waiting"])
			require.Equal(t, 1, strings.Count(waiting, "TEMP B-TREE"), waiting)
			require.Contains(t, waiting, "USING INDEX outbox_waiting_due (due_at<?)")
			require.Contains(t, waiting, "outbox_parked_due (due_at<?)")
			for name, args := range map[string][]any{d.Due: {"[]"}, d.Unpark: {"[]"}, d.HoldWaiting: {"[]"}, d.ResumeKeys: {"[]"}, d.PurgeArchive: {1, 1}} {
				plan := explained(t, db, "EXPLAIN QUERY PLAN", name, args...)
				require.NotContains(t, plan, "SCAN outbox_waiting", name)
				require.NotContains(t, plan, "SCAN outbox_parked", name)
			}
		})
	}
}

// fillMySQL adds n messages to each table of a MariaDB.
func fillMySQL(t *testing.T, db *sql.DB, n int) {
	for _, statement := range []string{
		`INSERT INTO outbox_messages (bucket, topic, message_key, type, payload, header, deliver_at, created_at)
			SELECT seq*7919 % 64, 't', concat('k',seq), '', repeat('x',200), '', 0, 1 FROM seq_1_to_%d`,
		`INSERT INTO outbox_waiting SELECT 1000000+seq, seq*7919 % 64, 't', concat('k',seq % 100), '', repeat('x',200), '', 0, 1, 0,
			IF(seq % 2=0, NULL, IF(seq % 3 = 0, 1, 1<<62)), '' FROM seq_1_to_%d`,
		`INSERT INTO outbox_dead SELECT 5000000+seq, seq*7919 % 64, 't', concat('k',seq % 100), '', repeat('x',200), '', 0, 1, 0, '', seq FROM seq_1_to_%d`,
	} {
		_, err := db.ExecContext(t.Context(), strings.ReplaceAll(statement, "%d", fmt.Sprint(n)))
		require.NoError(t, err)
	}
	for _, statement := range []string{
		`INSERT INTO outbox_parked SELECT 't', concat('k', seq), seq*7919 % 64, IF(seq % 2=0, 1<<62, seq) FROM seq_0_to_99`,
		`INSERT INTO outbox_leases VALUES (5, 'x', 1<<62), (6, 'y', 1<<62)`,
		`ANALYZE TABLE outbox_messages, outbox_waiting, outbox_parked, outbox_dead`,
	} {
		_, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
}

func newMySQL(t *testing.T, params string) *sql.DB {
	server := testserver.StartMariaDB(t, testserver.MariaDBOptions{})
	db := openServer(t, "mysql", server.DSN()+params)
	box, err := outbox.New(mysql.Dialect{}, outbox.Options{})
	require.NoError(t, err)
	require.NoError(t, box.Migrate(t.Context(), db))
	return db
}

// TestMySQLReadsWalkAnIndex: no statement of the drainer reads a table of
// messages from end to end. The optimizer's word for that is ALL.
func TestMySQLReadsWalkAnIndex(t *testing.T) {
	t.Parallel()
	underRace(t)
	db := newMySQL(t, "")
	fillMySQL(t, db, 5000)
	d := mysql.Dialect{}.SQL()
	fetch, ack := argument(d.Fetch), argument(d.Ack)
	fetch.Epoch, fetch.Not, fetch.Limit, fetch.Parked, fetch.Except = 5, true, 100, true, upTo(100)
	shared := fetch
	shared.Buckets = []int{1, 7, 9}
	ack.Epoch, ack.IDs, ack.Archive = 5, upTo(100), 0
	texts := map[string][]any{
		d.Fetch(fetch).Text: nil, d.Fetch(shared).Text: nil, d.Waiting(fetch).Text: nil, d.Waiting(shared).Text: nil,
		d.Ack(ack)[0].Text: nil, d.Ack(ack)[1].Text: nil,
		d.HoldReady: {`[{"id":1}]`}, d.HoldWaiting: {`[{"id":1}]`}, d.BuryWaiting: {`[{"id":1}]`}, d.DeleteReady: {`[1,2]`}, d.DeleteWaiting: {`[1,2]`},
		d.Due: {`[{"topic":"t","key":"a"}]`}, d.Unpark: {`[{"topic":"t","key":"a"}]`},
	}
	for text, args := range texts {
		plan := explained(t, db, "EXPLAIN", text, args...)
		for line := range strings.SplitSeq(plan, "\n") {
			for _, table := range []string{"|outbox_messages|", "|outbox_waiting|", "|m|", "|w|"} {
				require.False(t, strings.Contains(line, table) && strings.Contains(line, "|ALL|"), "%s\n%s", text, plan)
			}
		}
	}
}

// TestMySQLWaitsForNobodyElse: while a transaction adds a message, holds another
// up and renews its lease, nothing that another drainer does with its own
// messages waits for it.
func TestMySQLWaitsForNobodyElse(t *testing.T) {
	t.Parallel()
	underRace(t)
	db := newMySQL(t, "?innodb_lock_wait_timeout=1")
	fillMySQL(t, db, 5)
	d := mysql.Dialect{}.SQL()
	other, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: d.Isolation})
	require.NoError(t, err)
	do := func(tx *sql.Tx, text string, args ...any) {
		_, err := tx.ExecContext(t.Context(), text, args...)
		require.NoError(t, err, text)
	}
	do(other, `INSERT INTO outbox_messages (bucket, topic, message_key, type, payload, header, deliver_at, created_at) VALUES (1, 't', 'zz', '', '', '', 0, 1)`)
	do(other, d.Renew, 1000, 6)
	do(other, d.Park, `[{"topic":"t","key":"zz","bucket":1,"in":5}]`)
	do(other, d.HoldReady, `[{"id":5,"attempt":1,"in":null,"at":null,"error":""}]`)
	do(other, d.DeleteReady, `[5]`)

	ack := argument(d.Ack)
	ack.Epoch, ack.IDs, ack.Archive = 5, append([]int64{1, 2, 3, 4}, 100, 101, 102), 1
	mine := func(text string, args ...any) {
		tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: d.Isolation})
		require.NoError(t, err)
		do(tx, text, args...)
		require.NoError(t, tx.Rollback())
	}
	for _, st := range d.Ack(ack) {
		mine(st.Text, st.Args...)
	}
	mine(d.DeleteReady, `[1,2,3,4,77,78,79,80,90]`)
	mine(d.DeleteWaiting, `[1000001,1000002,1000003,1000004,77,78]`)
	mine(d.Park, `[{"topic":"t","key":"z","bucket":1,"in":5},{"topic":"t","key":"zzz","bucket":1,"in":5}]`)
	mine(d.Due, `[{"topic":"t","key":"z"},{"topic":"t","key":"k1"},{"topic":"t","key":"zzz"}]`)
	mine(d.Unpark, `[{"topic":"t","key":"z"},{"topic":"t","key":"k1"},{"topic":"t","key":"zzz"}]`)
	mine(d.HoldWaiting, `[{"id":1000001,"attempt":1,"in":1,"error":""}]`)
	mine(d.HoldReady, `[{"id":1,"attempt":1,"in":1,"error":""}]`)
	mine(d.BuryReady, `[{"id":1,"attempt":1,"error":""}]`)
	mine(d.Expire)
	mine(d.Free)
	mine(d.Join, 7, "x", 1)
	mine(d.Replay, `[5000001]`)
	require.NoError(t, other.Rollback())
}

// TestMySQLNeedsFewPrivileges: a service that does not migrate needs to read and
// write rows, and nothing else, whatever the log of the server.
func TestMySQLNeedsFewPrivileges(t *testing.T) {
	t.Parallel()
	underRace(t)
	server := testserver.StartMariaDB(t, testserver.MariaDBOptions{Args: []string{"--log-bin", "--binlog-format=MIXED", "--server-id=1"}})
	box, err := outbox.New(mysql.Dialect{}, outbox.Options{Retention: outbox.Archive})
	require.NoError(t, err)
	root := openServer(t, "mysql", server.DSN())
	require.NoError(t, box.Migrate(t.Context(), root))
	for _, statement := range []string{
		`CREATE USER app@'%' IDENTIFIED BY 'x'`, `GRANT SELECT, INSERT, UPDATE, DELETE ON test.* TO app@'%'`,
	} {
		_, err := root.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	db := openServer(t, "mysql", "app:x@tcp("+server.Addr()+")/test")
	require.NoError(t, box.Migrate(t.Context(), db), "nothing to do")
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, box.Add(t.Context(), tx, outbox.Message{Topic: "a", Key: "k"}, outbox.Message{Topic: "b"}))
	require.NoError(t, tx.Commit())
	fails := true
	publish := outbox.PublisherFunc(func(_ context.Context, m outbox.Message) error {
		if fails && m.Topic == "a" {
			return outbox.Permanent(sql.ErrNoRows)
		}
		return nil
	})
	n, err := box.Drain(t.Context(), db, publish)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	for m, err := range box.Dead(t.Context(), db) {
		require.NoError(t, err)
		_, err = box.Replay(t.Context(), db, m.ID)
		require.NoError(t, err)
	}
	require.NoError(t, box.Pause(t.Context(), db, "a"))
	require.NoError(t, box.Resume(t.Context(), db, "a"))
	fails = false
	n, err = box.Drain(t.Context(), db, publish)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	_, err = box.Stats(t.Context(), db)
	require.NoError(t, err)
}
