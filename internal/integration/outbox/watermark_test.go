package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/outbox/postgres"
)

// watermarkDB is a database with the tables of the outbox on a private server,
// which allows prepared transactions.
type watermarkDB struct {
	*testserver.Postgres
	name string
	db   *sql.DB
}

// TestWatermark runs schedules of writers against the watermark of PostgreSQL,
// without the engine: rows are added by plain SQL.
func TestWatermark(t *testing.T) {
	t.Parallel()
	underRace(t)
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	for name, schedule := range map[string]func(*testing.T, watermarkDB){
		"CountsFromNothing":                            countsFromNothing,
		"WaitsForAnOpenTransaction":                    waitsForAnOpenTransaction,
		"WaitsForAnIdWithoutARow":                      waitsForAnIDWithoutARow,
		"WaitsForTheOuterTransactionOfASavepoint":      waitsForTheOuterTransaction,
		"DoesNotWaitForASavepointThatIsGone":           doesNotWaitForASavepointThatIsGone,
		"WaitsForCopy":                                 waitsForCopy,
		"WaitsForAPreparedTransaction":                 waitsForAPreparedTransaction,
		"DoesNotWaitForTransactionsOfLaterIds":         doesNotWaitForLaterIDs,
		"DoesNotWaitForAnotherDatabaseOrALongSnapshot": doesNotWaitForOthers,
		"ProvesNothingWhereAnAssumptionFails":          provesNothing,
		"NoRowBelowItAppearsLater":                     noRowBelowItAppearsLater,
		// The last one, which restarts the server.
	} {
		t.Run(name, func(t *testing.T) { schedule(t, newWatermarkDB(t, server)) })
	}
	t.Run("WaitsForAPreparedTransactionOfBeforeACrash", func(t *testing.T) {
		waitsAcrossACrash(t, newWatermarkDB(t, server))
	})
}

func newWatermarkDB(t *testing.T, server *testserver.Postgres) watermarkDB {
	d := watermarkDB{Postgres: server, name: fmt.Sprintf("watermark_%d", rand.Uint64())}
	server.Query(t, "CREATE DATABASE "+d.name)
	d.db = d.open(t, "pgx")
	for _, statement := range (postgres.Dialect{}).SQL().Versions[0] {
		d.exec(t, d.db, statement)
	}
	return d
}

func (d watermarkDB) open(t *testing.T, driver string) *sql.DB {
	u, err := url.Parse(d.DSN())
	require.NoError(t, err)
	u.Path = "/" + d.name
	db, err := sql.Open(driver, u.String())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// begin starts a transaction on a connection of its own.
func (d watermarkDB) begin(t *testing.T) *sql.Tx {
	tx, err := d.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback() })
	return tx
}

type executor interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func (watermarkDB) exec(t *testing.T, e executor, query string) {
	t.Helper()
	_, err := e.ExecContext(t.Context(), query)
	require.NoError(t, err, query)
}

func (d watermarkDB) count(t *testing.T, query string) (n int64) {
	t.Helper()
	require.NoError(t, d.db.QueryRowContext(t.Context(), query).Scan(&n), query)
	return n
}

const addOne = `INSERT INTO outbox_messages (deliver_at, bucket, topic, message_key, type, payload, header) VALUES (0, 0, 't', '', '', '', '')`

// A decider finds out up to which id everything is decided, as the engine does:
// step by step, and with a pause between the steps that is not its business.
type decider struct {
	db   *sql.DB
	h    int64
	open map[string]bool // nil: a new round begins
	safe int64
}

func (d *decider) step(t require.TestingT) {
	var h int64
	var list string
	require.NoError(t, d.db.QueryRowContext(context.Background(), postgres.Dialect{}.SQL().Watermark).Scan(&h, &list))
	names := map[string]bool{}
	for name := range strings.SplitSeq(list, ",") {
		if name != "" {
			names[name] = true
		}
	}
	if d.open == nil {
		d.h, d.open = h, names
	} else {
		maps.DeleteFunc(d.open, func(name string, _ bool) bool { return !names[name] })
		for name := range names {
			if strings.HasPrefix(name, "-") {
				d.open[name] = true
			}
		}
	}
	if len(d.open) == 0 {
		d.safe, d.open = d.h, nil
	}
}

// stays requires that some steps more decide no id beyond safe.
func (d *decider) stays(t *testing.T, safe int64, why string) {
	t.Helper()
	for range 3 {
		d.step(t)
		require.Equal(t, safe, d.safe, why)
	}
}

// reaches requires that the next two steps, of which one may end a round that
// began earlier, decide all ids up to safe.
func (d *decider) reaches(t *testing.T, safe int64, why string) {
	t.Helper()
	d.step(t)
	d.step(t)
	require.Equal(t, safe, d.safe, why)
}

func countsFromNothing(t *testing.T, d watermarkDB) {
	for _, driver := range []string{"pgx", "postgres"} {
		w := &decider{db: d.open(t, driver)}
		w.reaches(t, 0, "no id was given yet")
	}
	d.exec(t, d.db, addOne)
	for _, driver := range []string{"pgx", "postgres"} {
		w := &decider{db: d.open(t, driver)}
		w.reaches(t, 1, "one was")
	}
}

func waitsForAnOpenTransaction(t *testing.T, d watermarkDB) {
	w := &decider{db: d.db}
	for _, end := range []string{"COMMIT", "ROLLBACK"} {
		tx := d.begin(t)
		d.exec(t, tx, addOne) // the smaller id, committed later
		d.exec(t, d.db, addOne)
		w.stays(t, w.safe, "the smaller id is not decided")
		d.exec(t, tx, end)
		w.reaches(t, d.count(t, `SELECT last_value FROM outbox_messages_id_seq`), "all are decided after "+end)
	}
}

// A default that waits leaves a time in which a session has an id and nobody
// sees anything of it: neither a row nor the number of a transaction. That is
// why asking for the oldest running transaction would not do.
func waitsForAnIDWithoutARow(t *testing.T, d watermarkDB) {
	d.exec(t, d.db, `CREATE FUNCTION gate() RETURNS text LANGUAGE sql AS 'SELECT pg_advisory_xact_lock_shared(7)::text'`)
	d.exec(t, d.db, addOne) // the sequence now has numbers that are in the log
	d.exec(t, d.db, `ALTER TABLE outbox_messages ADD COLUMN gate text`)
	d.exec(t, d.db, `ALTER TABLE outbox_messages ALTER COLUMN gate SET DEFAULT gate()`)
	gate := d.begin(t)
	d.exec(t, gate, `SELECT pg_advisory_xact_lock(7)`)
	done := make(chan error, 1)
	go func() {
		_, err := d.db.ExecContext(context.Background(), addOne)
		done <- err
	}()
	require.Eventually(t, func() bool {
		return d.count(t, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`) == 1
	}, time.Minute, time.Millisecond)
	require.EqualValues(t, 2, d.count(t, `SELECT last_value FROM outbox_messages_id_seq`), "the id is given")
	require.EqualValues(t, 1, d.count(t, `SELECT count(*) FROM outbox_messages`), "and has no row")
	require.EqualValues(t, 0, d.count(t, `SELECT count(backend_xid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'`),
		"nor a transaction with a number")

	w := &decider{db: d.db}
	w.stays(t, 0, "the id is not decided")
	require.NoError(t, gate.Rollback())
	require.NoError(t, <-done)
	w.reaches(t, 2, "it is")
}

func waitsForTheOuterTransaction(t *testing.T, d watermarkDB) {
	w := &decider{db: d.db}
	tx := d.begin(t)
	d.exec(t, tx, addOne)
	d.exec(t, tx, `SAVEPOINT s`)
	d.exec(t, tx, addOne)
	w.stays(t, 0, "both are open")
	d.exec(t, tx, `ROLLBACK TO s`)
	w.stays(t, 0, "the first is open")
	d.exec(t, tx, `COMMIT`)
	w.reaches(t, 2, "the first is there, the second will never be")

	tx = d.begin(t)
	d.exec(t, tx, `SAVEPOINT s`)
	d.exec(t, tx, addOne)
	d.exec(t, tx, `RELEASE s`)
	w.stays(t, 2, "a savepoint that was released belongs to its transaction")
	d.exec(t, tx, `COMMIT`)
	w.reaches(t, 3, "committed")
}

func doesNotWaitForASavepointThatIsGone(t *testing.T, d watermarkDB) {
	w := &decider{db: d.db}
	tx := d.begin(t)
	d.exec(t, tx, `SAVEPOINT s`)
	d.exec(t, tx, addOne)
	w.stays(t, 0, "open")
	d.exec(t, tx, `ROLLBACK TO s`)
	w.reaches(t, 1, "id 1 will never have a row, though its transaction goes on")
	d.exec(t, tx, addOne)
	d.exec(t, tx, `COMMIT`)
	require.EqualValues(t, 2, d.count(t, `SELECT min(id) FROM outbox_messages`), "what it adds later is above")
	w.reaches(t, 2, "committed")
}

func waitsForCopy(t *testing.T, d watermarkDB) {
	conn, err := d.db.Conn(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	d.exec(t, conn, `BEGIN`)
	require.NoError(t, conn.Raw(func(c any) error {
		_, err := c.(*stdlib.Conn).Conn().CopyFrom(t.Context(), pgx.Identifier{"outbox_messages"},
			[]string{"deliver_at", "bucket", "topic", "message_key", "type", "payload", "header"},
			pgx.CopyFromRows([][]any{{int64(0), int16(0), "t", "", "", []byte{}, ""}, {int64(0), int16(0), "t", "", "", []byte{}, ""}}))
		return err
	}))
	w := &decider{db: d.db}
	w.stays(t, 0, "copied, and not committed")
	d.exec(t, conn, `COMMIT`)
	w.reaches(t, 2, "committed")
}

func waitsForAPreparedTransaction(t *testing.T, d watermarkDB) {
	w := &decider{db: d.db}
	for _, end := range []string{"COMMIT", "ROLLBACK"} {
		before := w.safe
		tx := d.begin(t)
		d.exec(t, tx, addOne)
		w.stays(t, before, "open")
		d.exec(t, tx, `PREPARE TRANSACTION 'p'`)
		w.stays(t, before, "prepared between two steps")
		late := &decider{db: d.db, safe: before}
		late.stays(t, before, "prepared before the first")
		d.exec(t, d.db, end+` PREPARED 'p'`)
		last := d.count(t, `SELECT last_value FROM outbox_messages_id_seq`)
		w.reaches(t, last, end)
		late.reaches(t, last, end)
		_ = tx.Rollback()
	}
}

// waitsAcrossACrash has a transaction whose name changes: it is that of its
// session, and after a restart that of the prepared transaction.
func waitsAcrossACrash(t *testing.T, d watermarkDB) {
	w := &decider{db: d.db}
	prepared, lost := d.begin(t), d.begin(t)
	d.exec(t, prepared, addOne)
	d.exec(t, lost, addOne)
	w.stays(t, 0, "open")
	require.Len(t, w.open, 2)
	d.exec(t, prepared, `PREPARE TRANSACTION 'crash'`)
	d.Kill()
	d.Restart(t)

	w.db = d.open(t, "pgx")
	d.db = w.db
	w.stays(t, 0, "the prepared transaction is there, under another name")
	require.Len(t, w.open, 1, "the other one is not")
	for name := range w.open {
		require.True(t, strings.HasPrefix(name, "-1/"), name)
	}
	d.exec(t, d.db, `COMMIT PREPARED 'crash'`)
	w.step(t)
	require.GreaterOrEqual(t, w.safe, int64(2))
	require.EqualValues(t, 1, d.count(t, `SELECT id FROM outbox_messages`))
}

func doesNotWaitForLaterIDs(t *testing.T, d watermarkDB) {
	w := &decider{db: d.db}
	first := d.begin(t)
	d.exec(t, first, addOne)
	w.step(t)
	later := d.begin(t)
	d.exec(t, later, addOne)
	d.exec(t, first, `COMMIT`)
	w.step(t)
	require.EqualValues(t, 1, w.safe, "whoever came after the round began is not asked for")
	w.stays(t, 1, "and belongs to the next one")
}

func doesNotWaitForOthers(t *testing.T, d watermarkDB) {
	other := newWatermarkDB(t, d.Postgres)
	foreign := other.begin(t)
	other.exec(t, foreign, addOne)
	reader, err := d.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, reader.Rollback()) }()
	d.exec(t, reader, `SELECT count(*) FROM outbox_messages`)
	writer := d.begin(t)
	d.exec(t, writer, `CREATE TABLE mine (n int)`)

	d.exec(t, d.db, addOne)
	w := &decider{db: d.db}
	w.step(t)
	require.EqualValues(t, 1, w.safe, "neither has an id of this table")
}

func provesNothing(t *testing.T, d watermarkDB) {
	markable := func(e *sql.DB) (why string) {
		require.NoError(t, e.QueryRowContext(t.Context(), postgres.Dialect{}.SQL().Markable).Scan(&why))
		return why
	}
	require.Empty(t, markable(d.db))
	require.Empty(t, markable(d.open(t, "postgres")))
	for _, c := range []struct{ why, do, undo string }{
		{
			"CACHE 20", `ALTER TABLE outbox_messages ALTER COLUMN id SET CACHE 20`,
			`ALTER TABLE outbox_messages ALTER COLUMN id SET CACHE 1`,
		},
		{
			"do not ascend", `ALTER TABLE outbox_messages ALTER COLUMN id SET INCREMENT -1 SET MAXVALUE 100 SET MINVALUE -100`,
			`ALTER TABLE outbox_messages ALTER COLUMN id SET INCREMENT 1 SET NO MAXVALUE SET MINVALUE 1`,
		},
		{
			"do not ascend", `ALTER TABLE outbox_messages ALTER COLUMN id SET CYCLE`,
			`ALTER TABLE outbox_messages ALTER COLUMN id SET NO CYCLE`,
		},
		{
			"child tables", `CREATE TABLE child () INHERITS (outbox_messages)`,
			`DROP TABLE child`,
		},
		{
			"not logged", `ALTER TABLE outbox_messages SET UNLOGGED`,
			`ALTER TABLE outbox_messages SET LOGGED`,
		},
		{
			"outbox_messages_id_seq", `ALTER SEQUENCE outbox_messages_id_seq RENAME TO other`,
			`ALTER SEQUENCE other RENAME TO outbox_messages_id_seq`,
		},
		{
			"identity", `ALTER TABLE outbox_messages ALTER COLUMN id DROP IDENTITY`,
			`ALTER TABLE outbox_messages ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME outbox_messages_id_seq)`,
		},
		{
			"part of another table", `CREATE TABLE parent (id bigint NOT NULL); ALTER TABLE outbox_messages INHERIT parent`,
			`ALTER TABLE outbox_messages NO INHERIT parent`,
		},
		{
			"not a table", `ALTER TABLE outbox_messages RENAME TO moved; CREATE VIEW outbox_messages AS SELECT * FROM moved`,
			`DROP VIEW outbox_messages; ALTER TABLE moved RENAME TO outbox_messages`,
		},
		{
			"partitioned", `ALTER TABLE outbox_messages RENAME TO moved; CREATE TABLE outbox_messages (LIKE moved INCLUDING DEFAULTS) PARTITION BY RANGE (id)`,
			`DROP TABLE outbox_messages; ALTER TABLE moved RENAME TO outbox_messages`,
		},
	} {
		d.exec(t, d.db, c.do)
		require.Contains(t, markable(d.db), c.why)
		d.exec(t, d.db, c.undo)
		require.Empty(t, markable(d.db), c.undo)
	}
}

// noRowBelowItAppearsLater has writers that do all that makes ids and commits
// come in another order. No row is deleted, so it is enough that the number of
// rows up to each watermark is the same in the end as when it was found.
func noRowBelowItAppearsLater(t *testing.T, d watermarkDB) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	const writers, transactions = 8, 60
	var running sync.WaitGroup
	for n := range writers {
		running.Go(func() {
			w := watermarkWriter{d: d, random: rand.New(rand.NewPCG(seed, uint64(n))), name: fmt.Sprintf("w%d", n)}
			for range transactions {
				if err := w.transaction(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	finished := make(chan struct{})
	go func() { running.Wait(); close(finished) }()

	upTo := func(id int64) int64 {
		return d.count(t, fmt.Sprintf(`SELECT count(*) FROM outbox_messages WHERE id <= %d`, id))
	}
	found := map[int64]int64{} // number of rows by watermark
	deciders := []*decider{{db: d.open(t, "pgx")}, {db: d.open(t, "postgres")}}
	for going := true; going; {
		select {
		case <-finished:
			going = false
		default:
		}
		for _, w := range deciders {
			if w.step(t); w.open == nil && found[w.safe] == 0 {
				found[w.safe] = upTo(w.safe)
			}
		}
	}
	for id, n := range found {
		require.Equal(t, n, upTo(id), "rows up to the watermark %d", id)
	}
	for _, w := range deciders {
		w.reaches(t, d.count(t, `SELECT last_value FROM outbox_messages_id_seq`), "nobody is left")
	}
	t.Logf("%d watermarks, %d rows", len(found), upTo(1<<62))
}

type watermarkWriter struct {
	d      watermarkDB
	random *rand.Rand
	name   string
}

// transaction runs one transaction of a few statements on a connection of its
// own, and ends it one way or another.
func (w *watermarkWriter) transaction() error {
	ctx := context.Background()
	conn, err := w.d.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	script := []string{`BEGIN`}
	for range 1 + w.random.IntN(3) {
		switch w.random.IntN(5) {
		case 0:
			script = append(script, `SAVEPOINT s`, addOne, `ROLLBACK TO s`)
		case 1:
			script = append(script, `SAVEPOINT s`, addOne, `RELEASE s`)
		case 2:
			script = append(script, `SELECT pg_sleep(0.002)`)
		default:
			script = append(script, addOne)
		}
	}
	switch w.random.IntN(6) {
	case 0:
		script = append(script, `ROLLBACK`)
	case 1:
		script = append(script, `PREPARE TRANSACTION '`+w.name+`'`, `SELECT pg_sleep(0.001)`, `COMMIT PREPARED '`+w.name+`'`)
	case 2:
		script = append(script, `PREPARE TRANSACTION '`+w.name+`'`, `ROLLBACK PREPARED '`+w.name+`'`)
	default:
		script = append(script, `COMMIT`)
	}
	for _, statement := range script {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}
