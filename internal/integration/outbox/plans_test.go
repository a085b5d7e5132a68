package outbox_test

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/outbox/postgres"
)

// argument returns a zero argument of a function, whose type may be one that
// cannot be named here.
func argument[A, R any](func(A) R) (a A) { return a }

func arguments[A, B, R any](func(A, B) R) (a A, b B) { return a, b }

// burst adds n messages of 200 bytes, and as many that wait, half of them for a
// parked key of their own.
func burst(t *testing.T, db *sql.DB, n int) {
	for _, statement := range []string{
		`INSERT INTO outbox_messages (deliver_at, bucket, topic, message_key, type, payload, header)
			SELECT 0, i % 64, 'orders', 'order/' || i, 'order.paid', decode(repeat('78', 200), 'hex'), '' FROM generate_series(1, $1::integer) i`,
		`INSERT INTO outbox_waiting (id, created_at, deliver_at, bucket, topic, message_key, type, payload, header, attempt, error, due_at)
			SELECT -i, 0, 0, i % 64, 'orders', 'order/' || i, '', decode(repeat('78', 200), 'hex'), '', 0, '', CASE WHEN i % 2 = 0 THEN i END
			FROM generate_series(1, $1::integer) i`,
		`INSERT INTO outbox_parked (due_at, bucket, topic, message_key)
			SELECT i, i % 64, 'orders', 'order/' || i FROM generate_series(1, $1::integer, 2) i`,
	} {
		_, err := db.ExecContext(t.Context(), statement, n)
		require.NoError(t, err)
	}
}

// TestPostgresReadsInTheOrderOfAnIndex plans the statements of the drainer as
// they are planned after some executions, and requires that none reads a queue
// from end to end: neither when it is new, nor after it was vacuumed while it was
// empty, nor then with a burst of messages that nobody has told the planner of.
func TestPostgresReadsInTheOrderOfAnIndex(t *testing.T) {
	t.Parallel()
	underRace(t)
	db, err := sql.Open("pgx", testserver.PostgresDSN(t))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	db.SetMaxOpenConns(1) // settings are of a session
	exec := func(statement string) {
		_, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err, statement)
	}
	dialect := postgres.Dialect{}.SQL()
	for _, statement := range dialect.Versions[0] {
		exec(statement)
	}

	ack, fetch := arguments(dialect.AckFetch)
	ack.Epoch, ack.IDs, ack.Archive = 1, []int64{1, 2, 3}, 0
	fetch.Epoch, fetch.Not, fetch.Except, fetch.Limit, fetch.Parked = 1, true, []int64{1, 2, 3}, 100, true
	shared := fetch
	shared.Buckets, shared.Topics, shared.Except = []int{1, 2, 3, 4}, []string{"orders"}, []int64{1, 100, 200}
	texts := map[string]string{"anyparked": dialect.AnyParked}
	texts["fetch"], texts["fetch of a share"] = dialect.Fetch(fetch).Text, dialect.Fetch(shared).Text
	texts["ack"] = dialect.Ack(ack)[0].Text
	texts["ack and fetch"], texts["ack and fetch of a share"] = dialect.AckFetch(ack, fetch).Text, dialect.AckFetch(ack, shared).Text
	texts["waiting"] = dialect.Waiting(fetch).Text

	check := func(state string) {
		for name, text := range texts {
			plan := genericPlan(t, db, text)
			for _, table := range []string{"outbox_messages", "outbox_waiting", "outbox_parked"} {
				require.NotRegexp(t, `(Seq|Bitmap Heap) Scan on `+table, plan, "%s, %s:\n%s", name, state, plan)
			}
			require.NotRegexp(t, `outbox_parked_due.*\n.*message_key`, plan, "%s, %s:\n%s", name, state, plan)
		}
	}
	const tables = `outbox_messages, outbox_waiting, outbox_parked`
	check("new")
	exec(`VACUUM ANALYZE ` + tables)
	check("vacuumed while empty")
	burst(t, db, 200)
	exec(`ANALYZE ` + tables)
	check("analyzed with 200 rows")
	for table := range strings.SplitSeq(tables, ", ") {
		exec(`DELETE FROM ` + table)
	}
	exec(`VACUUM ANALYZE ` + tables)
	burst(t, db, 20_000)
	check("20,000 rows of which the planner knows nothing")
	exec(`VACUUM ANALYZE ` + tables)
	check("20,000 rows, analyzed")
}

// genericPlan is the plan that a session keeps for a statement.
func genericPlan(t *testing.T, db *sql.DB, text string) string {
	for _, statement := range []string{`SET plan_cache_mode = force_generic_plan`, `PREPARE planned AS ` + text} {
		_, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err, text)
	}
	defer func() {
		_, err := db.ExecContext(t.Context(), `DEALLOCATE planned`)
		require.NoError(t, err)
	}()
	n := 0
	for ; strings.Contains(text, fmt.Sprintf("$%d", n+1)); n++ {
	}
	list := ""
	if n > 0 {
		list = "(" + strings.Join(slices.Repeat([]string{"NULL"}, n), ", ") + ")"
	}
	return strings.Join(column(t, db, `EXPLAIN EXECUTE planned`+list), "\n")
}

func column(t *testing.T, db *sql.DB, query string, args ...any) (out []string) {
	rows, err := db.QueryContext(t.Context(), query, args...)
	require.NoError(t, err, query)
	defer func() { require.NoError(t, rows.Close()) }()
	columns, err := rows.Columns()
	require.NoError(t, err)
	dest := make([]any, len(columns))
	for i := range dest {
		dest[i] = new(sql.RawBytes)
	}
	for rows.Next() {
		require.NoError(t, rows.Scan(dest...))
		out = append(out, string(*dest[0].(*sql.RawBytes)))
	}
	require.NoError(t, rows.Err())
	return out
}

// TestPostgresRespectsTheLimitUnderAnyPlan takes kinds of plans away from the
// planner, one after the other: what is read and deleted must be the same.
func TestPostgresRespectsTheLimitUnderAnyPlan(t *testing.T) {
	t.Parallel()
	underRace(t)
	db, err := sql.Open("pgx", testserver.PostgresDSN(t))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	db.SetMaxOpenConns(1)
	exec := func(statement string, args ...any) int64 {
		res, err := db.ExecContext(t.Context(), statement, args...)
		require.NoError(t, err, statement)
		n, err := res.RowsAffected()
		require.NoError(t, err)
		return n
	}
	dialect := postgres.Dialect{}.SQL()
	for _, statement := range dialect.Versions[0] {
		exec(statement)
	}
	exec(dialect.Join, int64(1), "test", int64(1e12))
	// The rows lie on the disk in another order than their ids.
	exec(`INSERT INTO outbox_messages (id, deliver_at, bucket, topic, message_key, type, payload, header) OVERRIDING SYSTEM VALUE
		SELECT (i * 7) % 1009, 0, i % 4, 't', 'k' || i % 10, '', '', '' FROM generate_series(1, 1008) i`)

	ack, fetch := arguments(dialect.AckFetch)
	ack.Epoch, ack.Archive = 1, 1
	fetch.Epoch, fetch.Not, fetch.Limit, fetch.Parked = 1, true, 10, true
	waiting := argument(dialect.Waiting)
	waiting.Epoch, waiting.Not, waiting.Limit = 1, true, 10
	next := 1
	for _, off := range []string{
		"", "seqscan", "indexscan", "bitmapscan", "seqscan,indexscan", "indexscan,bitmapscan", "seqscan,bitmapscan",
		"sort", "incremental_sort", "nestloop", "hashjoin,mergejoin", "material", "hashagg", "memoize",
	} {
		exec(`RESET ALL`)
		for method := range strings.SplitSeq(off, ",") {
			if method != "" {
				exec(`SET enable_` + method + ` = off`)
			}
		}
		for _, mode := range []string{"force_generic_plan", "force_custom_plan"} {
			exec(`SET plan_cache_mode = ` + mode)
			ack.IDs = fetch.Except
			st := dialect.AckFetch(ack, fetch)
			got := column(t, db, st.Text, st.Args...)
			var want []string
			fetch.Except = nil
			for range 10 {
				want, fetch.Except = append(want, fmt.Sprint(next)), append(fetch.Except, int64(next))
				next++
			}
			require.Equal(t, want, got, "without %s, %s", off, mode)
			require.Equal(t, []string{fmt.Sprint(1008 - next + 1 + 10)}, column(t, db, `SELECT count(*) FROM outbox_messages`),
				"without %s, %s", off, mode)
			require.Equal(t, []string{fmt.Sprint(next - 1 - 10)}, column(t, db, `SELECT count(*) FROM outbox_archive_1`))
		}
	}

	exec(`RESET ALL`)
	exec(`TRUNCATE outbox_messages RESTART IDENTITY`)
	burst(t, db, 1000)
	st := dialect.Waiting(waiting)
	due := column(t, db, st.Text, st.Args...)
	require.Len(t, due, 10)
	for _, off := range []string{"seqscan", "indexscan,bitmapscan", "sort", "incremental_sort", "nestloop"} {
		exec(`RESET ALL`)
		for method := range strings.SplitSeq(off, ",") {
			exec(`SET enable_` + method + ` = off`)
		}
		require.Equal(t, due, column(t, db, st.Text, st.Args...), "without %s", off)
	}
}
