//go:build unix

package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// A catcher is a publisher that keeps the payloads it accepted.
type catcher struct {
	mu    sync.Mutex
	names []string
	most  int // messages of a call
}

func (c *catcher) Publish(_ context.Context, batch []outbox.Message) []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most = max(c.most, len(batch))
	for _, m := range batch {
		c.names = append(c.names, string(m.Payload))
	}
	return nil
}

// take returns what was accepted since the last take.
func (c *catcher) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := c.names
	c.names = nil
	return names
}

func (s *site) drain(t testing.TB, box *outbox.Outbox) []string {
	c := new(catcher)
	_, err := box.Drain(context.WithoutCancel(t.Context()), s.db, c)
	require.NoError(t, err)
	return c.take()
}

func addNamed(t testing.TB, tx *sql.Tx, box *outbox.Outbox, key, name string) {
	t.Helper()
	require.NoError(t, box.Add(t.Context(), tx, outbox.Message{Topic: "t", Key: key, Payload: []byte(name)}))
}

func (s *site) begin(t testing.TB, opts *sql.TxOptions) *sql.Tx {
	tx, err := s.db.BeginTx(t.Context(), opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback() })
	return tx
}

func run(t testing.TB, tx *sql.Tx, queries ...string) {
	t.Helper()
	for _, query := range queries {
		_, err := tx.ExecContext(t.Context(), query)
		require.NoError(t, err, query)
	}
}

// TestSchedules runs schedules that have broken other outboxes, one transaction
// after the other. On SQLite most of them cannot happen, as there is one writer.
func TestSchedules(t *testing.T) {
	t.Parallel()
	underRace(t)
	for kind, newSite := range siteKinds(t, "postgres", "mysql") {
		t.Run(kind, func(t *testing.T) {
			for name, schedule := range map[string]func(*testing.T, *site){
				"EarlyTransactionThatWaitsForARow": inversion,
				"LowerIdCommitsLater":              gap,
				"SavepointsAreTakenBack":           savepoints,
				"StricterIsolationOfTheCaller":     isolationOfCaller,
				"StricterIsolationOfTheDrainer":    isolationOfDrainer,
				"NoTransactionWhilePublishing":     noTransactionWhilePublishing,
				"LateStatementOfAFrozenDrainer":    func(t *testing.T, s *site) { lateStatement(t, s, false) },
				"LateStatementOfAKilledDrainer":    func(t *testing.T, s *site) { lateStatement(t, s, true) },
			} {
				t.Run(name, func(t *testing.T) { t.Parallel(); schedule(t, newSite(t)) })
			}
		})
	}
}

// inversion: the transaction that began first, and has a number first, changes
// the row second. Its message comes second.
func inversion(t *testing.T, s *site) {
	box := s.box(t, outbox.Options{})
	early, late := s.begin(t, nil), s.begin(t, nil)
	run(t, early, `INSERT INTO committed (name) VALUES ('has a number')`)
	change := `UPDATE versions SET version = version + 1 WHERE k = 1`
	run(t, late, change)
	addNamed(t, late, box, "1", "first")
	waits := make(chan error, 1)
	go func() {
		_, err := early.ExecContext(context.WithoutCancel(t.Context()), change)
		waits <- err
	}()
	s.someoneWaits(t)
	require.NoError(t, late.Commit())
	require.NoError(t, <-waits)
	addNamed(t, early, box, "1", "second")
	require.NoError(t, early.Commit())
	require.Equal(t, []string{"first", "second"}, s.drain(t, box))
}

// someoneWaits waits until a transaction waits for a lock.
func (s *site) someoneWaits(t testing.TB) {
	until(t, "a transaction waits for a lock", func() bool {
		if s.Kind == "postgres" {
			return s.count(t, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
				AND pid IN (SELECT pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE c.relnamespace = current_schema()::regnamespace)`) > 0
		}
		// Not innodb_trx, which is as it was while somebody reads it more often
		// than every 100 ms, and so may never show it.
		return s.count(t, `SELECT count(*) FROM information_schema.processlist
			WHERE db = DATABASE() AND id <> CONNECTION_ID() AND command IN ('Query', 'Execute') AND time_ms > 100`) > 0
	})
}

// gap: a smaller id is committed after a greater one was delivered, also by a
// drainer that has been at work all the while.
func gap(t *testing.T, s *site) {
	box := s.box(t, matrixOptions.options())
	c := new(catcher)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- box.Run(ctx, s.db, c) }()
	for i := range 5 {
		slow, quick := s.begin(t, nil), s.begin(t, nil)
		addNamed(t, slow, box, "slow", fmt.Sprint("slow ", i))
		addNamed(t, quick, box, "quick", fmt.Sprint("quick ", i))
		require.NoError(t, quick.Commit())
		s.gone(t)
		require.Equal(t, []string{fmt.Sprint("quick ", i)}, c.take())
		require.NoError(t, slow.Commit())
		until(t, "the late one", func() bool { return c.size() > 0 })
		require.Equal(t, []string{fmt.Sprint("slow ", i)}, c.take())
	}
	stop()
	require.NoError(t, <-ended)
}

func (c *catcher) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.names)
}

// gone waits until nothing that is visible is left.
func (s *site) gone(t testing.TB) {
	until(t, "all that is visible was delivered", func() bool { return s.count(t, `SELECT count(*) FROM outbox_messages`) == 0 })
}

func savepoints(t *testing.T, s *site) {
	box := s.box(t, outbox.Options{})
	tx := s.begin(t, nil)
	addNamed(t, tx, box, "k", "1")
	run(t, tx, `SAVEPOINT a`)
	addNamed(t, tx, box, "k", "taken back")
	run(t, tx, `SAVEPOINT b`)
	addNamed(t, tx, box, "k", "taken back too")
	run(t, tx, `RELEASE SAVEPOINT b`, `ROLLBACK TO SAVEPOINT a`)
	addNamed(t, tx, box, "k", "2")
	run(t, tx, `SAVEPOINT c`)
	addNamed(t, tx, box, "k", "3")
	run(t, tx, `RELEASE SAVEPOINT c`)
	require.Empty(t, s.drain(t, box), "nothing is committed")
	require.NoError(t, tx.Commit())
	require.Equal(t, []string{"1", "2", "3"}, s.drain(t, box))
}

// isolationOfCaller: whoever adds in a stricter transaction does not fail because
// of a drainer, and what it adds is delivered.
func isolationOfCaller(t *testing.T, s *site) {
	box := s.box(t, outbox.Options{})
	for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
		name := level.String()
		before := s.begin(t, nil)
		addNamed(t, before, box, "k", "before "+name)
		require.NoError(t, before.Commit())
		tx := s.begin(t, &sql.TxOptions{Isolation: level})
		var n int
		require.NoError(t, tx.QueryRowContext(t.Context(), `SELECT version FROM versions WHERE k = 1`).Scan(&n))
		addNamed(t, tx, box, "k", name+" 1")
		require.Equal(t, []string{"before " + name}, s.drain(t, box))
		addNamed(t, tx, box, "k", name+" 2")
		require.NoError(t, tx.Commit(), "neither reads what the other changes")
		require.Equal(t, []string{name + " 1", name + " 2"}, s.drain(t, box))
	}
}

// isolationOfDrainer: a pool whose transactions are serializable by default.
func isolationOfDrainer(t *testing.T, s *site) {
	name := "default_transaction_isolation"
	dsn := s.DSN
	if s.Kind == "postgres" {
		dsn = withParam(t, dsn, name, "serializable")
	} else {
		dsn = patient(dsn) + "&tx_isolation=%27SERIALIZABLE%27"
	}
	strict, err := sql.Open(s.driver(), dsn)
	require.NoError(t, err)
	defer func() { require.NoError(t, strict.Close()) }()
	file, err := s.file()
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	for range 2 {
		running.Go(func() {
			if err := s.box(t, matrixOptions.options()).Run(ctx, strict, deliverTo(file, 10)); err != nil {
				t.Error(err)
			}
		})
	}
	box := s.box(t, outbox.Options{})
	var adding sync.WaitGroup
	for w := range 2 {
		adding.Go(func() {
			for i := range 20 {
				if err := s.add(t.Context(), s.db, box, i%5 > 0, 2, w*5+i%5, -1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	adding.Wait()
	s.settled(t)
	stop()
	running.Wait()
	s.check(t)
}

// noTransactionWhilePublishing: a destination that takes its time holds no
// snapshot and no lock in the database.
func noTransactionWhilePublishing(t *testing.T, s *site) {
	s.addSome(t, 1)
	var open *sql.DB
	var err error
	count := `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'drainer' AND (xact_start IS NOT NULL AND state <> 'active' OR backend_xid IS NOT NULL)`
	if s.Kind == "postgres" {
		open, err = sql.Open("pgx", withParam(t, s.DSN, "application_name", "drainer"))
	} else {
		open, err = sql.Open("mysql", s.DSN)
		count = `SELECT count(*) FROM information_schema.innodb_trx JOIN information_schema.processlist p
			ON p.id = trx_mysql_thread_id WHERE p.db = DATABASE() AND p.command = 'Sleep'`
	}
	require.NoError(t, err)
	defer func() { require.NoError(t, open.Close()) }()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	h := hold(new(catcher))
	ended := make(chan error, 1)
	go func() { ended <- s.box(t, matrixOptions.options()).Run(ctx, open, h) }()
	<-h.entered
	// Renewals of the lease and looks at the table come and go; what is open
	// all the while would be seen each time.
	idle := 0
	for range 20 {
		elapse(matrixOptions.Lease / 50)
		if s.count(t, count) == 0 {
			idle++
		}
	}
	require.NotZero(t, idle, "a transaction is open while the publisher works")
	close(h.release)
	s.gone(t)
	stop()
	require.NoError(t, <-ended)
}
