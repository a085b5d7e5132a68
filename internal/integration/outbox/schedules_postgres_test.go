//go:build unix

package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/outbox"
)

// TestSchedulesOfPostgreSQL runs schedules that need a server of their own or a
// database of their own.
func TestSchedulesOfPostgreSQL(t *testing.T) {
	underRace(t)
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	t.Setenv("EVENKEEL_POSTGRES_DSN", server.DSN())
	for name, schedule := range map[string]func(*testing.T, *site){
		"ForeignTransaction":  foreignTransaction,
		"HeldSnapshot":        heldSnapshot,
		"ForcedPlans":         forcedPlans,
		"PreparedTransaction": preparedTransaction,
		"DumpAndRestore":      dumpAndRestore,
		"ShuffledRows":        shuffledRows,
	} {
		t.Run(name, func(t *testing.T) { schedule(t, ownDatabase(t)) })
	}
}

func ownDatabase(t testing.TB) *site {
	s := &site{Kind: "postgres", DSN: testserver.PostgresDSN(t), Folder: t.TempDir()}
	s.setUp(t)
	return s
}

// foreignTransaction: writers that stay open, in this and in another database,
// are nothing to wait for.
func foreignTransaction(t *testing.T, s *site) {
	box := s.box(t, outbox.Options{})
	other := ownDatabase(t)
	foreign, here := other.begin(t, nil), s.begin(t, nil)
	addNamed(t, foreign, other.box(t, outbox.Options{}), "k", "foreign")
	run(t, here, `UPDATE versions SET version = 7 WHERE k = 7`)
	for range 3 {
		tx := s.begin(t, nil)
		addNamed(t, tx, box, "k", "mine")
		require.NoError(t, tx.Commit())
		require.Equal(t, []string{"mine"}, s.drain(t, box))
	}
	require.Empty(t, other.drain(t, other.box(t, outbox.Options{})))
}

// heldSnapshot: while a snapshot is held, what was delivered stays in the table,
// and a drainer must not walk over it again and again. Not the time is measured,
// but what the server says about how much of the index was looked at.
func heldSnapshot(t *testing.T, s *site) {
	const rounds, each = 5, 3000
	box := s.box(t, outbox.Options{PollMax: matrixOptions.options().PollMax})
	held := s.begin(t, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	run(t, held, `SELECT count(*) FROM outbox_messages`)
	c := new(catcher)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	alone, err := sql.Open("pgx", s.DSN) // a session that idles is slow to tell its counts
	require.NoError(t, err)
	defer func() { require.NoError(t, alone.Close()) }()
	alone.SetMaxOpenConns(1)
	go func() { ended <- box.Run(ctx, alone, c) }()
	var read []int
	before := 0
	for range rounds {
		tx := s.begin(t, nil)
		batch := make([]outbox.Message, each)
		for i := range batch {
			batch[i] = outbox.Message{Topic: "t", Payload: []byte{'x'}}
		}
		require.NoError(t, box.Add(t.Context(), tx, batch...))
		require.NoError(t, tx.Commit())
		box.Wake()
		s.gone(t)
		after := s.pagesRead(t, each*(len(read)+1))
		read = append(read, after-before)
		before = after
	}
	stop()
	require.NoError(t, <-ended)
	require.Equal(t, rounds*each, c.size())
	t.Logf("pages read in each round: %v", read)
	require.Less(t, read[rounds-1], 3*slices.Min(read), "pages read in a round grow: %v", read)
}

// pagesRead is how many pages of the table and its index were ever looked at. It
// waits until the server has counted the deletion of so many rows.
func (s *site) pagesRead(t testing.TB, deleted int) int {
	until(t, "the server has counted", func() bool {
		return s.count(t, `SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'outbox_messages'`) >= deleted
	})
	return s.count(t, `SELECT heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit FROM pg_statio_user_tables WHERE relname = 'outbox_messages'`)
}

// forcedPlans: whatever the planner is talked into, a batch is a batch, and all
// is delivered in order.
func forcedPlans(t *testing.T, s *site) {
	name := s.names(t, `SELECT current_database()`)[0]
	for _, off := range []string{"hashjoin,mergejoin,material,hashagg", "nestloop", "indexscan,bitmapscan", "seqscan", "sort,incremental_sort"} {
		s.exec(t, `ALTER DATABASE `+name+` RESET ALL`)
		s.exec(t, `ALTER DATABASE `+name+` SET jit = off`) // what is off costs so much that compiling seems to pay
		for method := range strings.SplitSeq(off, ",") {
			s.exec(t, `ALTER DATABASE `+name+` SET enable_`+method+` = off`)
		}
		s.addSome(t, 3)
		file, err := s.file()
		require.NoError(t, err)
		deliver := deliverTo(file, 10)
		most := 0
		o := matrixOptions.options()
		o.Batch = 7
		fresh, err := sql.Open("pgx", s.DSN) // settings are those of new sessions
		require.NoError(t, err)
		until(t, "all are out", func() bool {
			_, err := s.box(t, o).Drain(t.Context(), fresh, publisherFunc(func(ctx context.Context, batch []outbox.Message) []error {
				most = max(most, len(batch))
				return deliver.Publish(ctx, batch)
			}))
			require.NoError(t, err)
			return s.stored(t) == 0
		})
		require.NoError(t, fresh.Close())
		require.NoError(t, file.Close())
		require.LessOrEqual(t, most, 7, "without %s", off)
		require.Zero(t, s.check(t).repeated)
	}
	require.Contains(t, fmt.Sprint(s.names(t, `SELECT unnest(setconfig) FROM pg_db_role_setting`)), "enable_sort=off")
}

type publisherFunc func(context.Context, []outbox.Message) []error

func (f publisherFunc) Publish(ctx context.Context, batch []outbox.Message) []error {
	return f(ctx, batch)
}

// preparedTransaction: two-phase commit, also of a transaction that is decided
// long after later messages were delivered.
func preparedTransaction(t *testing.T, s *site) {
	box := s.box(t, matrixOptions.options())
	c := new(catcher)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- box.Run(ctx, s.db, c) }()
	for _, name := range []string{"kept", "dropped"} {
		tx := s.begin(t, nil)
		addNamed(t, tx, box, name, name)
		run(t, tx, `PREPARE TRANSACTION '`+name+`'`)
		_ = tx.Rollback() // the session has none any more
	}
	for i := range 20 {
		tx := s.begin(t, nil)
		addNamed(t, tx, box, "later", fmt.Sprint(i))
		require.NoError(t, tx.Commit())
		s.gone(t)
	}
	require.Len(t, c.take(), 20)
	s.exec(t, `ROLLBACK PREPARED 'dropped'`)
	s.exec(t, `COMMIT PREPARED 'kept'`)
	until(t, "the prepared one", func() bool { return c.size() > 0 })
	s.gone(t)
	stop()
	require.NoError(t, <-ended)
	require.Equal(t, []string{"kept"}, c.take())
}

// dumpAndRestore: the messages go along with a dump, and are delivered from the
// copy; so are those that are added there.
func dumpAndRestore(t *testing.T, s *site) {
	s.addSome(t, 2)
	file, err := s.file()
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	_, err = s.box(t, matrixOptions.options()).Drain(t.Context(), s.db, deliverTo(file, 3)) // some wait now
	require.NoError(t, err)
	s.addSome(t, 1)
	waiting := s.count(t, `SELECT count(*) FROM outbox_waiting`)

	dump, err := exec.LookPath("pg_dump")
	if err != nil {
		t.Skip("pg_dump is not there: apt-get install postgresql-client")
	}
	text, err := exec.CommandContext(t.Context(), dump, "--dbname="+s.DSN).Output()
	require.NoError(t, err)
	copied := &site{Kind: "postgres", DSN: testserver.PostgresDSN(t), Folder: s.Folder}
	copied.reopen(t)
	restore := exec.CommandContext(t.Context(), "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", copied.DSN)
	restore.Stdin = strings.NewReader(string(text))
	out, err := restore.CombinedOutput()
	require.NoError(t, err, string(out))

	require.Equal(t, waiting, copied.count(t, `SELECT count(*) FROM outbox_waiting`))
	copied.addSome(t, 1) // ids go on behind those of the dump
	copied.drainRest(t, matrixOptions.options(), deliverTo(file, 0))
	require.Zero(t, copied.check(t).repeated)
}

// shuffledRows: rows lie on the disk in another order than that of their ids.
func shuffledRows(t *testing.T, s *site) {
	s.addSome(t, 10)
	s.exec(t, `CREATE INDEX shuffle ON outbox_messages (hashint8(id))`)
	s.exec(t, `CLUSTER outbox_messages USING shuffle`)
	s.exec(t, `DROP INDEX shuffle`)
	require.NotEqual(t, "1", s.names(t, `SELECT id::text FROM outbox_messages LIMIT 1`)[0], "shuffled")
	file, err := s.file()
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	s.drainRest(t, matrixOptions.options(), deliverTo(file, 0))
	require.Zero(t, s.check(t).repeated)
}
